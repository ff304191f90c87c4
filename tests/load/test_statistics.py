"""The statistics that decide how long to measure, on series whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from tuner.load import doom, steady

RNG_SEED = 11


def test_mser5_cuts_a_transient_and_keeps_the_rest() -> None:
    rng = np.random.default_rng(RNG_SEED)
    transient = 20 * np.exp(-np.arange(500) / 25)
    cut = steady.mser5(5 + rng.exponential(1.0, 500) + transient)
    assert cut is not None
    assert 30 <= cut <= 150


def test_a_series_without_transient_is_steady_at_once() -> None:
    rng = np.random.default_rng(RNG_SEED)
    steady_share = np.mean([steady.is_steady(rng.exponential(1.0, 200)) for _ in range(200)])
    assert steady_share > 0.85


def test_a_series_that_still_falls_is_not_steady() -> None:
    rng = np.random.default_rng(RNG_SEED)
    falling = [
        steady.is_steady(np.linspace(50, 5, 200) + rng.exponential(1.0, 200)) for _ in range(100)
    ]
    assert np.mean(falling) < 0.05


def test_too_short_a_series_is_not_steady() -> None:
    assert steady.mser5(np.ones(49)) is None
    assert not steady.is_steady(np.ones(49))


def queue(rate: float, capacity: float, seconds: float, seed: int) -> doom.Backlog:
    """A single server with exponential service, looked at ten times a second."""
    rng = np.random.default_rng(seed)
    arrived = np.cumsum(rng.exponential(1 / rate, int(rate * seconds * 1.5)))
    service = rng.exponential(1 / capacity, len(arrived))
    done = np.empty(len(arrived))
    free = 0.0
    for i, (at, need) in enumerate(zip(arrived, service, strict=True)):
        free = max(free, at) + need
        done[i] = free
    backlog = doom.Backlog(cycle_s=1.0)
    for now in np.arange(0.1, seconds, 0.1):
        backlog.look(now, int(np.sum(arrived <= now)), int(np.sum(done <= now)))
        if backlog.overload():
            break
    return backlog


def test_a_queue_without_bound_is_overload_within_seconds() -> None:
    found = [queue(150, 100, 8.0, seed).overload() for seed in range(20)]
    assert all(found)
    assert "requests/s arrived and" in str(found[0])


def test_a_server_that_is_slow_or_answers_in_batches_is_not_silent() -> None:
    fast = [queue(150, 100, 8.0, seed) for seed in range(20)]
    slow = [queue(50, 2, 8.0, seed) for seed in range(20)]
    assert not any(one.silence() for one in fast + slow)
    assert not any(one.may_be_silent() for one in fast)
    backlog = doom.Backlog(cycle_s=1.0)
    for now in np.arange(0.1, 20.0, 0.1):  # 64 at once every three seconds
        backlog.look(now, int(50 * now), int(now // 3) * 64)
    assert backlog.overload() and backlog.silence() is None


@pytest.mark.parametrize("falls_silent_s", [0.0, 3.0])
def test_a_server_that_answers_no_more_is_told_from_an_overloaded_one(falls_silent_s: float) -> None:
    backlog = doom.Backlog(cycle_s=1.0)
    for now in np.arange(0.1, 10.0, 0.1):
        backlog.look(now, int(50 * now), int(50 * min(now, falls_silent_s)))
        if backlog.overload() and not (backlog.may_be_silent() and not backlog.silence()):
            break
    assert now < falls_silent_s + 3
    assert ("answered no more" if falls_silent_s else "none of") in str(backlog.silence())


@pytest.mark.parametrize("load", [0.6, 0.9])
def test_a_busy_server_that_keeps_up_is_never_overloaded(load: float) -> None:
    assert not any(queue(100 * load, 100, 12.0, seed).overload() for seed in range(60))


def test_a_burst_that_drains_is_not_overload() -> None:
    """Half a second of 400/s and half a second of nothing, at a capacity of 250/s."""
    backlog = doom.Backlog(cycle_s=1.0)
    for now in np.arange(0.05, 8.0, 0.05):
        cycle, into = divmod(now, 1.0)
        due = cycle * 200 + min(into, 0.5) * 400
        done = cycle * 200 + min(into * 250, 200)
        backlog.look(now, int(due), int(done))
        assert backlog.overload() is None


def test_one_failed_request_is_not_too_many_errors() -> None:
    assert doom.too_many_errors(40, 1, 0.01) is None
    assert doom.too_many_errors(1000, 10, 0.01) is None
    assert "9 of 40" in str(doom.too_many_errors(40, 9, 0.01))
    assert doom.too_many_errors(10, 10, 0.01) is None
