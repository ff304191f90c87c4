"""Undoes what a killed study left: servers, cgroups, clock settings, containers.

The study keeps a ``Watchdog``, which tells a small program beside it what would have to be
undone. When the study ends without saying "done", even by SIGKILL, the program does it. What the
program itself cannot do any more (both killed at once) is reaped at the next start.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tuner import inherited
from tuner.deploy import proc, programs

Undo = Mapping[str, Any]
"""``{"kill": pid, "started": ticks}``, ``{"cgroup": folder}``, ``{"write": path, "text": …}``,
``{"remove": path}`` or ``{"container": id, "engine": url}``."""


class Watchdog:
    """The study's side. The program starts with the first thing to undo, and again when something
    killed it; then it is told everything once more."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._pending: dict[int, Undo] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    @contextmanager
    def undoing(self, *undos: Undo) -> Iterator[None]:
        """While the context is open, a killed study gets these undone, the last one first.

        Leaving the context in an orderly way undoes nothing: its owner has done so.
        """
        numbers = [self.add(undo) for undo in undos]
        try:
            yield
        finally:
            for number in numbers:
                self.done(number)

    def add(self, undo: Undo) -> int:
        number = next(self._numbers)
        with self._lock:
            self._pending[number] = undo
            self._say({"number": number, "undo": dict(undo)})
        return number

    def done(self, number: int) -> None:
        with self._lock:
            self._pending.pop(number, None)
            if self._process is not None:
                self._say({"number": number})

    def close(self) -> None:
        """End the program; whatever was not said to be done is undone."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass
        ended_by_itself = self._process.wait(30.0) == 0
        self._process = None
        if not ended_by_itself:
            undo_all(self._pending)
        self._pending.clear()

    def _say(self, message: Mapping[str, Any]) -> None:
        if self._process is not None and self._process.poll() is None:
            try:
                self._write(message)
                return
            except BrokenPipeError:  # killed this very moment
                assert self._process.stdin is not None
                with suppress(OSError):
                    self._process.stdin.close()
        self._process = subprocess.Popen(
            programs.command("tuner.deploy.watchdog"),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**inherited.environment(), **programs.environment()},
            start_new_session=True,
        )
        for number, undo in self._pending.items():
            self._write({"number": number, "undo": dict(undo)})

    def _write(self, message: Mapping[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()


def perform(undo: Undo) -> None:
    """Undo one thing; what is undone already is fine."""
    if "kill" in undo:
        proc.kill(undo["kill"], undo["started"])
    elif "cgroup" in undo:
        empty_and_remove(Path(undo["cgroup"]))
    elif "write" in undo:
        Path(undo["write"]).write_text(undo["text"])
    elif "remove" in undo:
        Path(undo["remove"]).unlink(missing_ok=True)
    elif "container" in undo:
        import docker  # Only where containers were used.

        client = docker.DockerClient(base_url=undo["engine"])
        client.api.remove_container(undo["container"], force=True)


def undo_all(undos: Mapping[int, Undo]) -> None:
    """Undo what is numbered, the last one first; what fails is said on stderr."""
    for number in sorted(undos, reverse=True):
        try:
            perform(undos[number])
        except Exception as error:  # noqa: BLE001 - the rest must be undone as well
            sys.stderr.write(f"could not undo {undos[number]}: {error}\n")


def empty_and_remove(folder: Path, patience_s: float = 10.0) -> None:
    """Kill what still runs in a cgroup and remove it."""
    deadline = time.monotonic() + patience_s
    while folder.is_dir():
        try:
            for pid in (folder / "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
            folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def main() -> None:
    """Listen until the study is gone, then undo what is left, the last one first."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    undos: dict[int, Undo] = {}
    parent = os.pidfd_open(os.getppid())
    messages = sys.stdin.fileno()
    poll = select.poll()
    for descriptor in (parent, messages):
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
    rest = b""
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        # What the study said before it died is read before its death counts.
        chunk = os.read(messages, 65536) if messages in ready else b""
        if not chunk:
            break
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "undo" in message:
                undos[message["number"]] = message["undo"]
            else:
                undos.pop(message["number"], None)
    undo_all(undos)


if __name__ == "__main__":
    main()
