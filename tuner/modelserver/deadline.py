"""The deadline of the call that a thread is working on: from the transport to the session's run."""

from __future__ import annotations

import threading


class _Call(threading.local):
    deadline_s: float | None = None


_CALL = _Call()


def begin(deadline_s: float | None) -> None:
    """This thread begins a call that is over at that instant of ``time.monotonic``; None: never."""
    _CALL.deadline_s = deadline_s


def current_s() -> float | None:
    """When this thread's call is over."""
    return _CALL.deadline_s
