"""What every process that load starts has in common: it ends with its parent, and wakes on time."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import select
import selectors
import signal
from collections.abc import Callable, Coroutine
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_TIMERSLACK = 29


class PreciseSelector(selectors.EpollSelector):
    """An epoll selector that wakes within microseconds of its time.

    ``epoll_wait`` counts in whole milliseconds, so asyncio's timers may come 1 ms late;
    ``select`` on the epoll descriptor itself does not have that grain.
    """

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and 0 < timeout < 60:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


def run(main: Coroutine[Any, Any, None]) -> None:
    """``asyncio.run`` with precise timers."""
    with asyncio.Runner(
        loop_factory=lambda: asyncio.SelectorEventLoop(PreciseSelector())
    ) as runner:
        runner.run(main)


def tie_to_parent(parent_pid: int) -> None:
    """Die with the parent, and let timers fire on time (both Linux's; elsewhere the pipe does)."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def listen(command: Callable[[str], None]) -> None:
    """Take commands, a line each, from standard input; its end means that the parent has gone."""
    pending = b""

    def readable() -> None:
        nonlocal pending
        data = os.read(0, 65536)
        if not data:
            os._exit(1)
        pending += data
        *lines, pending = pending.split(b"\n")
        for line in lines:
            command(line.decode())

    os.set_blocking(0, False)
    asyncio.get_running_loop().add_reader(0, readable)
