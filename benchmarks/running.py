"""Starts the command line in a folder of its own and sees what it leaves behind."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
MARK = "TUNER_BENCHMARK_FOLDER"
"""In the environment of all that a room starts, so that it is found whoever its parent is."""

SPACE = """
name: small
model: cnn1d
deployer: fake
duration_s: 0.5
load: 50
parameters:
  enable_batching: {choices: [false, true]}
  max_batch_size: {low: 1, high: 100000, when: {enable_batching: true}}
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """What it said last on standard error, as a person sees it."""
        lines = [line for line in self.err.splitlines() if line.startswith("tuner: ")]
        return lines[-1] if lines else (self.err.strip().splitlines() or [""])[-1]


class Room:
    """A folder in which studies run."""

    def __init__(self, folder: Path, space: str = SPACE, **environment: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "small.yaml").write_text(space)
        self.environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", MARK: str(folder),
            **environment,
        }

    @property
    def database(self) -> Path:
        return self.folder / "studies" / "small.db"

    def start(self, *arguments: str, before: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start ``tuner ARGUMENTS``, by way of the command ``before``."""
        return subprocess.Popen(
            [*before, sys.executable, "-m", "tuner", *arguments], cwd=self.folder,
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )

    def end(self, process: subprocess.Popen[str], timeout_s: float = 120.0) -> Ended:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            err += f"\nstill there after {timeout_s:g} s"
        return Ended(process.returncode, out, err)

    def run(
        self, *arguments: str, before: Sequence[str] = (), timeout_s: float = 120.0
    ) -> Ended:
        return self.end(self.start(*arguments, before=before), timeout_s)

    def study(self, trials: int, *more: str, before: Sequence[str] = (), **how: Any) -> Ended:
        return self.run(*self.study_arguments(trials, *more), before=before, **how)

    def study_arguments(self, trials: int, *more: str) -> tuple[str, ...]:
        return (
            "study", "--space", "small.yaml", "--sampler", "random", "--trials", str(trials), *more
        )

    def processes(self) -> list[psutil.Process]:
        """All that still runs of what was started here."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == str(self.folder) and process.status() not in (
                    psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD
                ):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def left(self, patience_s: float = 15.0) -> list[str]:
        """Command lines of processes that outlive the patience."""
        wait_until(lambda: not self.processes(), patience_s)
        return [command[:100] for p in self.processes() if (command := command_of(p))]

    def trials(self, name: str = "small") -> dict[int, tuple[str, str | None]]:
        """Number -> state and reason of a study's trials, read without disturbing it."""
        if not self.database.exists():
            return {}
        sql = """
            SELECT t.number, t.state, a.value_json FROM trials t JOIN studies s USING (study_id)
            LEFT JOIN trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = 'reason'
            WHERE s.study_name = ?"""
        try:
            with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
                rows = connection.execute(sql, (name,)).fetchall()
        except sqlite3.OperationalError:
            return {}
        return {number: (state, reason and reason.strip('"')) for number, state, reason in rows}

    def finished(self, name: str = "small") -> dict[int, tuple[str, str | None]]:
        """The trials that count."""
        return {
            number: (state, reason) for number, (state, reason) in self.trials(name).items()
            if state == "COMPLETE" or (state == "FAIL" and reason not in (None, "killed"))
        }


def command_of(process: psutil.Process) -> str:
    """Its command line; empty where it has ended meanwhile."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def wait_until(what: Callable[[], object], timeout_s: float) -> bool:
    """Poll until ``what`` is true; whether it became so in time."""
    deadline = time.monotonic() + timeout_s
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
