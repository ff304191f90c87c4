"""What every process that load starts has in common: it ends with its parent, and wakes on time."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import select
import selectors
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_TIMERSLACK = 29

EARLY_BOUNDS_S = (20e-6, 200e-6)
LATER_S, EARLIER_S = 6e-6, 2e-6
"""Steps by which the alarm's lead changes after a wake that came late or in time: it settles where
a quarter of the wakes are late."""
MIN_SLEEP = 4
"""The shortest sleep that is cut short, as a multiple of the lead."""


class PreciseSelector(selectors.EpollSelector):
    """An epoll selector that wakes within microseconds of its time.

    ``epoll_wait`` counts in whole milliseconds, so asyncio's timers may come 1 ms late;
    ``select`` on the epoll descriptor itself does not have that grain. An idle core still takes
    its time to wake: 160 us in the median on a virtual machine at 100 wakes a second, 65 us at
    1,000. So it sets its alarm earlier by what waking usually takes, learned from each time, and
    looks for events until the moment comes: 10 to 20 us of looking each time, and nothing where
    the next moment is too near for that to pay.
    """

    _early_s = 100e-6

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or not 0 < timeout < 60:
            return super().select(timeout)
        due = time.monotonic() + timeout
        early_s = self._early_s if timeout > MIN_SLEEP * self._early_s else 0.0
        ready, _, _ = select.select([self.fileno()], [], [], timeout - early_s)
        if ready or not early_s:
            return super().select(0)
        late = time.monotonic() >= due
        shortest, longest = EARLY_BOUNDS_S
        step_s = LATER_S if late else -EARLIER_S
        self._early_s = min(max(self._early_s + step_s, shortest), longest)
        while not (events := super().select(0)) and time.monotonic() < due:
            pass
        return events


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
