"""A program that starts servers for a study and takes them with it when the study ends.

It speaks the fork server's protocol, JSON lines on standard input and output::

    {"id": 1, "argv": ["program", …], "log": "/path", "env": {}, "affinity": [0, 1] | null,
     "cgroup_procs": ["…/cgroup.procs"], "nice": 0}       ->  {"id": 1, "pid": 42}
                                                           …  {"id": 1, "exit": 0 | -signal}
    {"kill": 42, "signal": 15}

but executes ``argv`` instead of forking a warm interpreter. A program that cannot be started is
answered by ``{"id": 1, "error": "…"}``. When standard input ends or the study is gone, every
server is killed. Standard library only, so that it starts in a few milliseconds.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1


class Launcher:
    """The servers of one study."""

    def __init__(self) -> None:
        self.children: dict[int, tuple[int, subprocess.Popen[bytes]]] = {}
        """File descriptor of the child's pidfd -> (id of the request, the child)."""
        self.poll = select.poll()

    def start(self, order: dict[str, Any]) -> None:
        def prepare() -> None:
            # The server dies with this program, even when it is killed before it can clean up.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            for procs in order.get("cgroup_procs") or ():
                with open(procs, "w") as stream:
                    stream.write(str(os.getpid()))
            if order.get("affinity"):
                os.sched_setaffinity(0, order["affinity"])
            if order.get("nice"):
                os.nice(order["nice"])

        try:
            with open(order["log"], "ab") as log:
                child = subprocess.Popen(
                    order["argv"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **order.get("env", {})},
                    preexec_fn=prepare,  # noqa: PLW1509 - there are no threads here
                    start_new_session=True,
                )
        except (OSError, subprocess.SubprocessError) as error:
            say({"id": order["id"], "error": f"{order['argv'][0]}: {error}"})
            return
        watch = os.pidfd_open(child.pid)
        self.children[watch] = (order["id"], child)
        self.poll.register(watch, select.POLLIN)
        say({"id": order["id"], "pid": child.pid})

    def ended(self, watch: int) -> None:
        number, child = self.children.pop(watch)
        self.poll.unregister(watch)
        os.close(watch)
        say({"id": number, "exit": child.wait()})

    def signal(self, pid: int, number: int) -> None:
        for _, child in self.children.values():
            if child.pid == pid:
                child.send_signal(number)

    def end_all(self) -> None:
        for _, child in self.children.values():
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()


def say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Serve orders until the study is gone."""
    launcher = Launcher()
    parent = os.pidfd_open(os.getppid())
    orders = sys.stdin.fileno()
    for descriptor in (parent, orders):
        launcher.poll.register(descriptor, select.POLLIN | select.POLLHUP)
    rest = b""
    try:
        while True:
            for descriptor, _ in launcher.poll.poll():
                if descriptor in launcher.children:
                    launcher.ended(descriptor)
                    continue
                chunk = os.read(orders, 65536) if descriptor == orders else b""
                if not chunk:
                    return
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    order = json.loads(line)
                    if "kill" in order:
                        launcher.signal(order["kill"], order.get("signal", signal.SIGTERM))
                    else:
                        launcher.start(order)
    except (BrokenPipeError, KeyboardInterrupt):
        pass
    finally:
        launcher.end_all()


if __name__ == "__main__":
    # A polite end, too, has to take the servers along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    main()
