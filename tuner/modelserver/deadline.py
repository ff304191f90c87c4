"""The deadline of the call that a thread is working on: from the transport to the session's run."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class _Call(threading.local):
    deadline_s: float | None = None


_CALL = _Call()


def current_s() -> float | None:
    """The instant of ``time.monotonic`` at which this thread's call is over; ``None``: never."""
    return _CALL.deadline_s


@contextlib.contextmanager
def until(deadline_s: float | None) -> Iterator[None]:
    """Work for a call that is over at that instant."""
    _CALL.deadline_s = deadline_s
    try:
        yield
    finally:
        _CALL.deadline_s = None
