"""A deployer whose servers also tell how large their batches were.

Wraps one made with ``monitoring=True``, whose servers count their batches under TensorFlow
Serving's own names on their REST port.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tuner.deploy.base import Deployer, Deployment, DeploymentRequest
from tuner.deploy.files import METRICS_PATH

TIMEOUT_S = 5.0
_LINE = re.compile(
    r":tensorflow:serving:batching_session:processed_batch_size_(sum|count)(?:\{[^}]*\})? (\S+)"
)


@dataclass(frozen=True)
class BatchCounts:
    """Batches that a server ran since it started, over all its models."""

    batches: int
    rows: int

    def since(self, before: BatchCounts) -> BatchCounts:
        return BatchCounts(self.batches - before.batches, self.rows - before.rows)

    def to_json(self) -> dict[str, Any]:
        """``batches``, ``rows`` and their quotient, ``rows_mean``, ``None`` without any batch."""
        mean = self.rows / self.batches if self.batches else None
        return {"batches": self.batches, "rows": self.rows, "rows_mean": mean}


def parse(exposition: str) -> BatchCounts:
    """The counts in a Prometheus text; none where the server runs no batches."""
    totals = {"sum": 0.0, "count": 0.0}
    for kind, value in _LINE.findall(exposition):
        totals[kind] += float(value)
    return BatchCounts(int(totals["count"]), int(totals["sum"]))


class MonitoredDeployment(Deployment):
    """A deployment whose ``describe()`` adds ``batches``: those run since it was last asked.

    A trial asks once, after its load stage; so the counts are those of that stage, warm-up
    included. Asking between stages takes no time from a measured window.
    """

    def __init__(self, inner: Deployment) -> None:
        self._inner = inner
        self.grpc_address, self.rest_address = inner.grpc_address, inner.rest_address
        self.model_names = inner.model_names
        self.log_file = getattr(inner, "log_file", None)
        self._before = self._counts() or BatchCounts(0, 0)

    def pids(self) -> tuple[int, ...]:
        return self._inner.pids()

    def failure(self) -> tuple[str, str] | None:
        return self._inner.failure()

    def log_tail(self, lines: int = 40) -> str:
        return self._inner.log_tail(lines)

    def describe(self) -> Mapping[str, Any]:
        counts = self._counts()
        if counts is None:
            return {**self._inner.describe(), "batches": None}
        fresh, self._before = counts.since(self._before), counts
        return {**self._inner.describe(), "batches": fresh.to_json()}

    def _counts(self) -> BatchCounts | None:
        """``None`` where the server doesn't answer: it is dying, or serves no metrics."""
        if self.rest_address is None:
            return None
        host, _, port = self.rest_address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)
        try:
            connection.request("GET", METRICS_PATH)
            answer = connection.getresponse()
            return parse(answer.read().decode()) if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


class MonitoredDeployer(Deployer):
    """Deploys by another deployer, to be made with ``monitoring=True``."""

    def __init__(self, inner: Deployer) -> None:
        self._inner = inner
        self.name = inner.name

    @contextmanager
    def deploy(self, request: DeploymentRequest) -> Iterator[Deployment]:
        with self._inner.deploy(request) as deployment:
            yield MonitoredDeployment(deployment)

    def close(self) -> None:
        self._inner.close()
