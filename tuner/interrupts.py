"""Ctrl-C and SIGTERM wait for the work that must not stop half-way, such as a transaction."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
IMPATIENT = 3
"""So many signals in a row are obeyed at once, in case that what must not stop hangs."""

_waiting = 0
_deferring = False
_passing = False


@contextmanager
def deferred() -> Iterator[None]:
    """Until the end of this context a signal waits for the next ``allowed`` part of it.

    One that found none raises at the end. Contexts may be nested; only the main thread has signals.

    Raises:
        KeyboardInterrupt: in an ``allowed`` part, or at the end.
    """
    global _deferring, _waiting
    if _deferring or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _arrived) for number in SIGNALS}
    _deferring, _waiting = True, 0
    try:
        yield
    finally:
        _deferring = False
        for number, handler in before.items():
            signal.signal(number, handler)
    _raise_if_waiting()


@contextmanager
def allowed() -> Iterator[None]:
    """A part of a ``deferred`` context in which a signal raises at once."""
    global _passing
    outer, _passing = _passing, True
    try:
        _raise_if_waiting()
        yield
    finally:
        _passing = outer


def _arrived(number: int, frame: FrameType | None) -> None:
    global _waiting
    _waiting += 1
    if _passing or _waiting >= IMPATIENT:
        _raise_if_waiting()


def _raise_if_waiting() -> None:
    global _waiting
    if _waiting:
        _waiting = 0
        raise KeyboardInterrupt
