"""Runs the real command line against real servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]

SMALL = """
name: small
model: cnn1d
duration_s: 1
parameters:
  enable_batching: {choices: [false, true]}
  max_batch_size: {values: [2, 4, 8], when: {enable_batching: true}}
  batch_timeout_micros: {values: [0, 2000], when: {enable_batching: true}}
"""


class Tuner:
    """Starts ``python -m tuner`` in a folder and ends what it started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []
        self.environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3",
            # Lets a test find every process of this study, whoever its parent is by now.
            "TUNER_TEST_FOLDER": str(folder),
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tuner", *arguments], cwd=self.folder, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )
        self._started.append(process)
        return process

    def run(self, *arguments: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=timeout_s)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def processes(self) -> list[psutil.Process]:
        """All living processes of this test's studies: study, fork server, server, load."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("TUNER_TEST_FOLDER") == str(self.folder):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return [p for p in found if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_until(what: Callable[[], object], timeout_s: float, why: str) -> None:
    """Poll until ``what`` is true."""
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {why}"
        time.sleep(0.05)


@pytest.fixture
def tuner(tmp_path: Path) -> Iterator[Tuner]:
    (tmp_path / "small.yaml").write_text(SMALL)
    runner = Tuner(tmp_path)
    yield runner
    runner.end()
