"""A signal never breaks off what must not stop half-way."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tuner.interrupts import allowed, deferred


def interrupt(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_the_work(number: int) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), deferred():
        interrupt(number)
        done.append("whole")
    assert done == ["whole"]


def test_a_signal_that_waited_is_raised_where_it_is_allowed() -> None:
    with deferred():
        interrupt()
        with pytest.raises(KeyboardInterrupt), allowed():
            pytest.fail("the allowed part began in spite of the signal")


def test_in_an_allowed_part_a_signal_is_raised_at_once() -> None:
    with deferred():
        with pytest.raises(KeyboardInterrupt), allowed():
            interrupt()
            signal.pause()
        interrupted_once = True
    assert interrupted_once


def test_the_third_signal_is_obeyed_at_once() -> None:
    with deferred():
        interrupt()
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            interrupt()


def test_afterwards_signals_are_handled_as_before() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with deferred(), deferred():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_other_threads_are_left_alone() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with deferred(), allowed():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
