"""A model server with a scripted delay law, to test load, trials and studies without TensorFlow.

It runs in a process of its own and speaks TF Serving's Predict over gRPC and REST::

    with ScriptedServer(Constant(5.0)) as server:
        run_stage(StagePlan(address=server.grpc_address, ...))
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Self

import tuner
from tuner import inherited
from tuner.load.fake.laws import Bimodal, Constant, Instant, Law, Lognormal, Stall, to_json

__all__ = ["Bimodal", "Constant", "Instant", "Law", "Lognormal", "ScriptedServer", "Stall"]


class ScriptedServer:
    """Serves any model name and any inputs.

    Args:
        law: how long an answer takes.
        concurrency: requests served at once; others wait in line. ``None``: all at once.
        error_rate: share of the requests that fail (UNAVAILABLE, HTTP 503).
        warm_up_s: extra delay of the first request, halved every 20 requests.
    """

    def __init__(
        self,
        law: Law | None = None,
        *,
        concurrency: int | None = None,
        error_rate: float = 0.0,
        warm_up_s: float = 0.0,
    ) -> None:
        self.law: Law = law if law is not None else Instant()
        self._script = {
            "concurrency": concurrency,
            "error_rate": error_rate,
            "warm_up_s": warm_up_s,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        job = {"law": to_json(self.law), "script": self._script, "parent_pid": os.getpid()}
        home = str(Path(tuner.__file__).parents[1])
        path = os.pathsep.join(p for p in (home, os.environ.get("PYTHONPATH")) if p)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tuner.load.fake.server", json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=inherited.environment() | {"PYTHONPATH": path},
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.__exit__()
            raise RuntimeError("the scripted server did not start; its message is on stderr")
        ports = json.loads(line)
        self.grpc_address = f"127.0.0.1:{ports['grpc']}"
        self.rest_address = f"127.0.0.1:{ports['rest']}"
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        process.wait()
        process.stdin.close()
        process.stdout.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
