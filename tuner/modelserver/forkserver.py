"""A program that forks model servers from an interpreter with TensorFlow already loaded.

JSON lines, orders on standard input and answers on standard output::

    {"id": 1, "argv": ["--port=8500", …], "log": "/path", "env": {}, "affinity": [0, 1] | null,
     "cgroup_procs": ["…/cgroup.procs"], "nice": 0}       ->  {"id": 1, "pid": 42}
                                                           …  {"id": 1, "exit": code | -signal}
    {"kill": 42, "signal": 15}

``argv`` are the flags of ``python -m tuner.modelserver``; ``env`` may hold only variables that
still mean something after the fork. An order that cannot be carried out is answered by
``{"id": 1, "error": "…"}``. When standard input ends, which is when whoever holds the other end is
gone, however it went, every server is killed and reaped and the program ends. Servers die with
this program too, even when it is killed.

Nothing here may start a thread: a fork copies only the thread that calls it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import sys
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_PREPARE_FAILED = 127


class ForkServer:
    """The servers forked so far."""

    def __init__(self) -> None:
        self.children: dict[int, tuple[int, int]] = {}
        """pidfd -> (id of the order, pid)."""
        self.poll = select.poll()
        self.orders = sys.stdin.fileno()
        self.answers = os.dup(sys.stdout.fileno())
        # A print of some library must not read like an answer.
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self.poll.register(self.orders, select.POLLIN | select.POLLHUP)

    def serve(self) -> None:
        """Carry out orders until there can be no more."""
        rest = b""
        while True:
            for descriptor, _ in self.poll.poll():
                if descriptor != self.orders:
                    self.ended(descriptor)
                    continue
                chunk = os.read(self.orders, 65536)
                if not chunk:
                    return
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    self.obey(line)

    def obey(self, line: bytes) -> None:
        number = None
        try:
            order = json.loads(line)
            number = order.get("id")
            if "kill" in order:
                self.signal(int(order["kill"]), int(order.get("signal", signal.SIGTERM)))
            else:
                self.start(order)
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            self.say({"id": number, "error": f"{type(error).__name__}: {error}"})

    def start(self, order: dict[str, Any]) -> None:
        number, argv = order["id"], [str(item) for item in order["argv"]]
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_server(order, argv, log, parent)
        os.close(log)
        watch = os.pidfd_open(pid)
        self.children[watch] = (number, pid)
        self.poll.register(watch, select.POLLIN)
        self.say({"id": number, "pid": pid})

    def ended(self, watch: int) -> None:
        number, pid = self.children.pop(watch)
        self.poll.unregister(watch)
        os.close(watch)
        _, status = os.waitpid(pid, 0)
        self.say({"id": number, "exit": os.waitstatus_to_exitcode(status)})

    def signal(self, pid: int, number: int) -> None:
        for watch, (_, child) in self.children.items():
            if child == pid:
                # The pidfd still means this child, whatever has become of its number.
                signal.pidfd_send_signal(watch, number)

    def end_all(self) -> None:
        for watch, (_, pid) in self.children.items():
            try:
                signal.pidfd_send_signal(watch, signal.SIGKILL)
            except ProcessLookupError:
                pass
            os.waitpid(pid, 0)

    def say(self, answer: dict[str, Any]) -> None:
        os.write(self.answers, json.dumps(answer).encode() + b"\n")

    def _become_server(
        self, order: dict[str, Any], argv: list[str], log: int, parent: int
    ) -> NoReturn:
        """The child's side of the fork; never returns, whatever happens."""
        code = _PREPARE_FAILED
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before it could be watched
                os._exit(_PREPARE_FAILED)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            os.dup2(log, 1)
            os.dup2(log, 2)
            for descriptor in (*self.children, self.answers):
                os.close(descriptor)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for procs in order.get("cgroup_procs") or ():
                with open(procs, "w") as stream:
                    stream.write(str(os.getpid()))
            if order.get("affinity"):
                os.sched_setaffinity(0, order["affinity"])
            if order.get("nice"):
                os.nice(order["nice"])
            os.environ.update({key: str(value) for key, value in (order.get("env") or {}).items()})
            from tuner.modelserver.__main__ import main

            code = main(argv)
        except BaseException as error:  # noqa: BLE001 - a child must never run the parent's loop
            os.write(
                2, f"Failed to start server. Error: {type(error).__name__}: {error}\n".encode()
            )
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def preload() -> None:
    """Import all that a server needs, without starting a thread.

    Raises:
        RuntimeError: some import started one.
    """
    # NumPy's BLAS starts its threads when it is imported; TensorFlow does not use it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    import tuner.modelserver.__main__
    import tuner.modelserver.server  # noqa: F401

    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise RuntimeError(f"{threads} threads after the imports: forking would lose all but one")
    gc.collect()
    gc.freeze()  # the collector leaves the pages alone that parent and children share


def main() -> None:
    """Fork servers until standard input ends."""
    server = ForkServer()
    try:
        preload()
        server.serve()
    except (BrokenPipeError, KeyboardInterrupt):
        pass
    finally:
        server.end_all()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    main()
