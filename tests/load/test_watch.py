"""What a stage sees of itself, on records and a clock that the test sets."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tuner.errors import TrialFailure
from tuner.load import watch
from tuner.load.base import StagePlan
from tuner.load.processes import RECORD_DTYPE
from tuner.load.watch import Watch, _in_order

STARTED_S, OPENED_S = 98.0, 100.0


def table(due: Any, latency_s: Any, lag_s: float = 0.0, window: int = 1) -> np.ndarray:
    """Records by seconds after the opening; a latency of NaN is a request that still waits."""
    found = np.zeros(len(due), RECORD_DTYPE)
    found["due"] = OPENED_S + np.asarray(due)
    found["sent"] = found["due"] + lag_s
    done = found["due"] + latency_s
    found["done"] = np.where(np.isnan(done), 0.0, done)
    found["window"] = window
    return found


def watching(
    monkeypatch: pytest.MonkeyPatch, records: np.ndarray, now_s: float, *,
    stop: str | None = None, opened: bool = True, **plan: Any,
) -> Watch:
    """A watch whose load is one request each tenth of a second; ``now_s`` after the opening."""
    every = np.arange(0.0, 20.0, 0.1)
    prepared: Any = SimpleNamespace(cycle_s=1.0, warmup_arrivals=every, window_arrivals=every)
    clients: Any = SimpleNamespace(read=lambda: records)
    observer: Any = SimpleNamespace(should_stop=lambda: stop)
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: OPENED_S + now_s))
    found = Watch(StagePlan("", ("m",), Path(), **plan), prepared, clients, observer)
    found.started_s = STARTED_S
    found.opened_s = OPENED_S if opened else float("inf")
    return found


def test_the_warm_up_is_judged_by_latencies_from_when_requests_were_due() -> None:
    records = table([1.0, 0.5, 2.0, 1.5, 2.5], [0.2, 0.1, np.nan, 0.3, 0.4], lag_s=0.05)
    records["status"][0] = 14
    assert _in_order(records) == pytest.approx([0.1, 0.3])  # before the first that waits


def test_a_request_that_waits_longer_than_the_p99_keeps_the_window_imprecise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    due = np.arange(4_000) / 1_000
    latency_s = 0.01 + 0.0001 * rng.random(4_000)
    found = watching(monkeypatch, table(due, latency_s), 4.0)
    found.read()
    assert found.is_precise()
    latency_s[3_995:] = np.nan  # these may still be quick
    found = watching(monkeypatch, table(due, latency_s), 4.0)
    found.read()
    assert found.is_precise()
    latency_s[1_000:3_000:20] = np.nan  # one in forty waits since seconds
    found = watching(monkeypatch, table(due, latency_s), 4.0)
    found.read()
    assert not found.is_precise()


def test_nothing_is_precise_before_the_first_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    found = watching(monkeypatch, table([0.0, 0.1], [np.nan, np.nan]), 1.0)
    found.read()
    assert not found.is_precise()


@pytest.mark.parametrize(("answered", "done"), [(40, True), (39, False)])
def test_the_drain_waits_for_every_request_that_was_due_in_the_window(
    monkeypatch: pytest.MonkeyPatch, answered: int, done: bool
) -> None:
    due = np.arange(41) / 10
    latency_s = np.where(np.arange(41) < answered, 0.01, np.nan)
    found = watching(monkeypatch, table(due, latency_s), 5.0)
    assert found.all_answered(OPENED_S + 3.95) is done
    unsent = watching(monkeypatch, table(due, latency_s)[:39], 5.0)
    assert not unsent.all_answered(OPENED_S + 3.95)
    warm = watching(monkeypatch, table(due, latency_s, window=0), 5.0)
    assert not warm.all_answered(OPENED_S + 3.95)


def test_a_closed_loop_waits_for_what_it_sent_in_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    records = table([-1.0, 1.0, 5.0], [np.nan, 0.1, np.nan])
    found = watching(monkeypatch, records, 5.0, pattern="closed")
    assert found.all_answered(OPENED_S + 4.0)
    records["done"][1] = 0.0
    assert not found.all_answered(OPENED_S + 4.0)


def test_a_client_that_falls_behind_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = np.arange(-2.0, 3.0, 0.1)  # 50 until three seconds after the opening
    watching(monkeypatch, table(sent, 0.01), 7.9).look(window=True)
    # 20 of the warm-up's and 81 of the window's are due.
    with pytest.raises(TrialFailure, match="fell behind: 51 requests not sent") as caught:
        watching(monkeypatch, table(sent, 0.01), 8.05).look(window=True)
    assert caught.value.reason == "client_limited"


def test_inside_the_window_its_errors_alone_count(monkeypatch: pytest.MonkeyPatch) -> None:
    records = table(np.arange(-2.0, 3.0, 0.1), 0.01)
    records["status"][:15] = 14
    watching(monkeypatch, records, 3.0).look(window=True)
    with pytest.raises(TrialFailure) as caught:
        watching(monkeypatch, records, 3.0).look(window=False)
    assert caught.value.reason == "errors"


def test_a_server_that_ended_is_told_before_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    found = watching(monkeypatch, table([0.0], [0.1]), 1.0, stop="it was killed")
    for ask in (lambda: found.look(window=True), found.check_server):
        with pytest.raises(TrialFailure, match="it was killed") as caught:
            ask()
        assert caught.value.reason == "crash"
