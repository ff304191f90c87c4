"""The load generator's processes as the stage sees them: started, commanded, read, ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import numpy as np

import tuner
from tuner import inherited
from tuner.errors import TrialFailure
from tuner.load import placement
from tuner.load.records import FIELDS, HEADER_BYTES, create

RECORD_DTYPE = np.dtype(FIELDS)
READY_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 5.0
END_TIMEOUT_S = 5.0


class ClientProcesses:
    """A group of load generators that share one load.

    Args:
        jobs: one job for each process (see ``tuner.load.client``), without its own files.
        folder: where records and logs go; the caller removes it.

    Raises:
        TrialFailure: client_failed or no_answers, from ``wait_ready`` and ``read`` on.
    """

    def __init__(
        self, jobs: list[dict[str, Any]], folder: Path, where: placement.Placement
    ) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._records: list[np.memmap[Any, Any]] = []
        self._headers: list[np.memmap[Any, Any]] = []
        self._buffers: list[bytes] = []
        self._logs: list[Path] = []
        self.placed: list[dict[str, Any]] = []
        """Where each process runs and at which priority, from ``wait_ready`` on."""
        self._where = where
        try:
            for index, job in enumerate(jobs):
                self._start(index, job, folder)
        except BaseException:
            self.end()
            raise

    def _start(self, index: int, job: dict[str, Any], folder: Path) -> None:
        records = folder / f"records-{index}"
        create(records, job["capacity"])
        job_file = folder / f"job-{index}.json"
        job_file.write_text(
            json.dumps(job | {"index": index, "records": str(records), "parent_pid": os.getpid()})
        )
        log = folder / f"client-{index}.log"
        home = str(Path(tuner.__file__).parents[1])
        path = os.pathsep.join(p for p in (home, os.environ.get("PYTHONPATH")) if p)
        with open(log, "wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "tuner.load.client", str(job_file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=inherited.environment() | {"PYTHONPATH": path, "GRPC_VERBOSITY": "ERROR"},
            )
        self._processes.append(process)
        self._buffers.append(b"")
        self._logs.append(log)
        self._headers.append(np.memmap(records, dtype="<i8", mode="r", shape=(1,)))
        self._records.append(
            np.memmap(records, RECORD_DTYPE, "r", offset=HEADER_BYTES, shape=(job["capacity"],))
        )

    def pids(self) -> tuple[int, ...]:
        return tuple(process.pid for process in self._processes)

    def command(self, text: str) -> None:
        """Give every process one command."""
        for process in self._processes:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(text.encode() + b"\n")
                process.stdin.flush()

    def wait_ready(self) -> bytes | None:
        """Wait until every process is connected; gives the server's metadata, if it gave any."""
        answers = [
            self._hear(i, time.monotonic() + READY_TIMEOUT_S) for i in range(len(self._processes))
        ]
        for answer in answers:
            if "failed" in answer:
                raise TrialFailure("no_answers", answer["failed"])
        # Only now: importing and connecting at a raised priority would disturb the server.
        self.placed += [placement.apply(self._where, process.pid) for process in self._processes]
        metadata = answers[0]["metadata"]
        return bytes.fromhex(metadata) if metadata is not None else None

    def reports(self, timeout_s: float = END_TIMEOUT_S) -> list[dict[str, Any]]:
        """End the load and gather what each process has to say."""
        self.command("quit")
        deadline_s = time.monotonic() + timeout_s
        return [self._hear(i, deadline_s) for i in range(len(self._processes))]

    def read(self) -> np.ndarray:
        """All records so far, in no particular order; dtype ``RECORD_DTYPE``."""
        for index, process in enumerate(self._processes):
            if process.poll() is not None:
                raise self._failed(index)
        parts = [r[: int(h[0])] for r, h in zip(self._records, self._headers, strict=True)]
        return np.concatenate(parts)

    def end(self) -> None:
        """End every process, whatever it is doing."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()

    def _hear(self, index: int, deadline_s: float) -> dict[str, Any]:
        process = self._processes[index]
        assert process.stdout is not None
        while b"\n" not in self._buffers[index]:
            ready, _, _ = select.select(
                [process.stdout], [], [], max(0.0, deadline_s - time.monotonic())
            )
            data = os.read(process.stdout.fileno(), 65536) if ready else b""
            if not data:
                raise self._failed(index)
            self._buffers[index] += data
        line, _, self._buffers[index] = self._buffers[index].partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failed(self, index: int) -> TrialFailure:
        log = self._logs[index].read_text(errors="replace")
        code = self._processes[index].poll()
        state = "did not answer" if code is None else f"ended with code {code}"
        last = log.strip().splitlines()[-1:] or ["it wrote nothing"]
        return TrialFailure("client_failed", f"the load generator {state}: {last[0]}", log)
