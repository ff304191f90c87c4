"""What else the machine did, and when that spoils a stage."""

from __future__ import annotations

import time

import pytest

from tuner.load import disturbance, machine, wait_until_calm


def test_a_busy_loop_shows_as_busy_share() -> None:
    before = machine.snapshot()
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass
    share = machine.between(before, machine.snapshot())
    assert share is not None
    assert 0 < share.busy <= 1
    assert 0 <= share.steal < 1


def test_no_time_between_snapshots_is_no_share() -> None:
    now = machine.Snapshot(1.0, 0.0, 2.0)
    assert machine.between(now, now) is None
    assert machine.between(None, now) is None


def test_shares_are_parts_of_all_cores_time() -> None:
    share = machine.between(machine.Snapshot(1, 0, 10), machine.Snapshot(4, 1, 20))
    assert share is not None
    assert (share.busy, share.steal) == pytest.approx((0.3, 0.1))


@pytest.mark.parametrize(
    ("others", "steal", "says"),
    [(0.05, 0.01, None), (0.4, 0.0, "other work used 40%"), (0.0, 0.2, "hypervisor took 20%")],
)
def test_a_disturbed_stage_says_by_what(others: float, steal: float, says: str | None) -> None:
    details = {
        "machine_before": {"busy_others": others, "steal": 0.0, "seconds": 0.3},
        "machine_window": {"busy": 0.9, "steal": steal},
    }
    found = disturbance(details)
    assert found is None if says is None else says in str(found)


def test_an_unknown_machine_is_not_called_disturbed() -> None:
    assert disturbance({}) is None


def test_waiting_ends_with_the_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([machine.Snapshot(busy, 0.0, total) for busy, total in
                  [(0.0, 0.0), (1.8, 2.0), (1.8, 2.0), (3.0, 4.0), (3.0, 4.0), (3.1, 6.0)]])
    waited: list[float] = []
    monkeypatch.setattr(machine, "snapshot", lambda: next(looks))
    monkeypatch.setattr(machine.time, "sleep", waited.append)
    assert wait_until_calm()
    assert len(waited) == 3


def test_waiting_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = iter(range(1000))
    monkeypatch.setattr(machine, "snapshot", lambda: machine.Snapshot(n := next(busy), 0.0, n))
    monkeypatch.setattr(machine.time, "sleep", lambda _: None)
    assert not wait_until_calm(at_most_s=0.0)
