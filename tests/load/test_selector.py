"""The event loop of load generator and scripted server wakes when it should."""

from __future__ import annotations

import selectors
import socket
import threading
import time

import numpy as np
import pytest

from tuner.load import child

SLEEP_S = 0.0022
"""Python's own selector counts in milliseconds: it would be 0.8 ms late each time."""


def test_a_wake_is_never_early_and_learns_to_be_in_time() -> None:
    late = []
    with child.PreciseSelector() as selector:
        for _ in range(150):
            due = time.monotonic() + SLEEP_S
            assert selector.select(SLEEP_S) == []
            late.append(time.monotonic() - due)
    assert min(late) > -1e-6
    assert np.percentile(late[50:], 25) < 0.4e-3


def test_an_event_ends_the_wait_also_in_its_last_moments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left, right = socket.socketpair()
    with left, right, child.PreciseSelector() as selector:
        selector.register(left, selectors.EVENT_READ)
        right.send(b"x")
        for timeout in (None, 0, SLEEP_S, 5.0):
            ((key, _),) = selector.select(timeout)
            assert key.fileobj is left
        left.recv(1)
        # It sleeps for 0.1 s and then looks for events for up to 2 s.
        monkeypatch.setattr(child, "MIN_SLEEP", 1)
        selector._early_s = 2.0
        sender = threading.Timer(0.2, right.send, (b"x",))
        sender.start()
        began = time.monotonic()
        assert selector.select(2.1)
        assert time.monotonic() - began < 1.5
        sender.join()
