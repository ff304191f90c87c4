"""What can be seen of a running server from outside: threads, memory maps, metrics, answers."""

from __future__ import annotations

import collections
import os
import re
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tests.deploy.asking import predict_raw
from tuner.deploy.base import Deployment
from tuner.deploy.files import METRICS_PATH

Deploy = Callable[..., AbstractContextManager[Deployment]]
"""Deploys the doubling model with these knobs: ``deploy(max_batch_size=4)``."""


def threads(deployment: Deployment) -> collections.Counter[str]:
    """Thread name -> how many the server has of it."""
    tasks = Path(f"/proc/{deployment.pids()[0]}/task")
    return collections.Counter((tasks / t / "comm").read_text().strip() for t in os.listdir(tasks))


def process_file(deployment: Deployment, name: str) -> bytes:
    """A file of the server's ``/proc`` folder: ``environ``, ``maps``."""
    return Path(f"/proc/{deployment.pids()[0]}/{name}").read_bytes()


def metrics_page(deployment: Deployment) -> str:
    """What Prometheus reads."""
    with urllib.request.urlopen(f"http://{deployment.rest_address}{METRICS_PATH}") as page:
        return str(page.read().decode())


def metric(deployment: Deployment, name: str) -> float:
    """Sum over all label sets of one Prometheus metric; 0 when it is not there."""
    pattern = rf"^:tensorflow:serving:{name}(?:{{.*}})? (\S+)$"
    found = re.findall(pattern, metrics_page(deployment), re.MULTILINE)
    return sum(float(value) for value in found)


def ask(deployment: Deployment, *rows: float) -> bytes:
    """The raw answer to one request of so many rows."""
    return predict_raw(deployment.grpc_address, deployment.model_names[0], list(rows))


def ask_at_once(deployment: Deployment, count: int) -> list[BaseException | None]:
    """Ask ``count`` one-row requests together; how each ended."""
    with ThreadPoolExecutor(count) as pool:
        asked = [pool.submit(ask, deployment, 1.0) for _ in range(count)]
        return [one.exception() for one in asked]


def packed_as(raw: bytes) -> set[int]:
    """Field numbers of the answer's one tensor: 4 is ``tensor_content``, 5 ``float_val``."""
    from tuner.deploy.readiness import fields

    entry = next(dict(fields(body)) for number, body in fields(raw) if number == 1)
    found: dict[int, Any] = dict(fields(entry[2]))
    return set(found)
