"""What two workers on one database do to each other: claims, heartbeats, deaths, lost connections."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
import sqlalchemy
from optuna.storages import RDBStorage

from tests.study.conftest import SPACE, Formula, measured
from tuner import propose, study
from tuner.cli import _arms
from tuner.measurement import configuration_key
from tuner.space import Space
from tuner.space_file import parse
from tuner.store import Heartbeat, Store, heartbeat, patience, urls
from tuner.store.owner import this_process

CHOSEN = {"batching": True, "size": 4, "threads": 2}
OTHER = {"batching": False, "threads": 1}
ELSEWHERE = {**this_process(), "host": "elsewhere", "boot": "another machine's"}


@pytest.fixture
def space() -> Space:
    return parse(SPACE)


@pytest.fixture
def url(tmp_path: Any) -> str:
    return f"sqlite:///{tmp_path}/small.db"


def two(url: str, space: Space) -> tuple[Store, Store]:
    return Store.create(url, "small", space, {}), Store.create(url, "small", space, {})


def grid(space: Space, url: str) -> study.Arm:
    def proposer() -> propose.Proposer:
        return propose.make("grid", space, seed=0)

    return study.Arm({}, Store.create(url, "small", space, {}), proposer(), renew=proposer)


def test_of_two_workers_that_start_the_same_the_first_has_it(space: Space, url: str) -> None:
    one, other = two(url, space)
    assert one.claim(CHOSEN, space, {}, {}) == 0
    assert other.claim(CHOSEN, space, {}, {}) is None
    lost = one.records()[1]
    assert (lost.state, lost.message) == ("killed", "trial 0 of another worker measures the same")


def test_a_repeat_of_what_is_known_is_no_lost_claim(space: Space, url: str) -> None:
    one, other = two(url, space)
    one.claim(CHOSEN, space, {}, {})
    assert other.claim(CHOSEN, space, {}, {}, known=[0]) == 1


def test_a_killed_trial_claims_nothing(space: Space, url: str) -> None:
    one, other = two(url, space)
    one.kill(one.start(CHOSEN, space, {}, {}), "stopped")
    assert other.claim(CHOSEN, space, {}, {}) == 1


def test_no_more_trials_are_started_than_wanted(space: Space, url: str) -> None:
    one, other = two(url, space)
    assert one.claim(CHOSEN, space, {}, {}, at_most=1) == 0
    assert other.claim(OTHER, space, {}, {}, at_most=1) is None


def test_a_worker_elsewhere_that_falls_silent_is_reaped(space: Space, url: str) -> None:
    here, there = two(url, space)
    there.start(CHOSEN, space, {}, {"owner": ELSEWHERE})
    for _ in range(heartbeat.SILENT_LOOKS):
        here.beat()
        assert here.reap() == []
    here.beat()
    assert here.reap() == [0]
    assert here.records()[0].message == "its worker on elsewhere fell silent"


def test_a_worker_elsewhere_that_beats_is_left_alone(space: Space, url: str) -> None:
    here, there = two(url, space)
    there.start(CHOSEN, space, {}, {"owner": ELSEWHERE})
    for _ in range(3 * heartbeat.SILENT_LOOKS):
        there.beat()
        here.beat()
    assert here.reap() == []


def test_what_comes_of_a_trial_taken_for_dead_is_dropped(space: Space, url: str) -> None:
    here, there = two(url, space)
    number = there.start(CHOSEN, space, {}, {})
    here.kill(number, "silent")
    assert there.finish(number, measured(20.0, 0.5), space).state == "killed"


def test_what_this_worker_ran_while_it_was_taken_for_dead_is_proposed_again(
    space: Space, url: str
) -> None:
    arm = grid(space, url)
    other = Store.create(url, "small", space, {})

    class Frozen(Formula):
        def evaluate(self, configuration: Any, levels: Any, numbers: Any) -> Any:
            if not self.seen:
                other.kill(numbers[0], "its worker on a frozen machine fell silent")
            return super().evaluate(configuration, levels, numbers)

    summary = study.run(space, [arm], Frozen(), n_trials=None)
    assert (summary.trials, summary.reason) == (space.size, "exhausted")
    done = Counter(configuration_key(r.configuration) for r in arm.store.records() if r.is_finished)
    assert len(done) == space.size and set(done.values()) == {1}


def test_a_dead_workers_configuration_is_measured_by_those_that_live(
    space: Space, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.02)
    arm = grid(space, url)
    dead = Store.create(url, "small", space, {})
    dead.start(OTHER, space, {}, {"owner": ELSEWHERE})
    waited: list[int] = []

    class Told(study.Silence):
        def waiting(self, trials: int) -> None:
            waited.append(trials)

    summary = study.run(space, [arm], Formula(), n_trials=None, listener=Told())
    assert (summary.trials, summary.reason) == (space.size, "exhausted")
    done = Counter(configuration_key(r.configuration) for r in arm.store.records() if r.is_finished)
    assert len(done) == space.size and set(done.values()) == {1}


def test_what_ends_while_the_proposer_is_made_anew_is_not_proposed_again(
    space: Space, url: str
) -> None:
    other = Store.create(url, "small", space, {})
    dies, lives = (other.start(c, space, {}, {}) for c in (CHOSEN, OTHER))

    def proposer() -> propose.Proposer:
        if arm.seen:
            other.finish(lives, measured(1.0, 1.0), space)
        return propose.make("grid", space, seed=0)

    arm = study.Arm(
        {}, Store.create(url, "small", space, {}), propose.make("grid", space, seed=0), proposer
    )
    arm.catch_up(space)
    other.kill(dies, "gone")
    assert arm.catch_up(space)
    proposed = []
    while (proposal := arm.proposer.propose()) is not None:
        proposed.append(proposal.configuration)
    assert CHOSEN in proposed and OTHER not in proposed
    assert (arm.finished, arm.running) == (1, set())


def test_a_configuration_that_another_worker_runs_is_not_started(space: Space, url: str) -> None:
    arm = grid(space, url)
    other = Store.create(url, "small", space, {})
    number = other.start(OTHER, space, {}, {})
    formula = Formula()

    class Ends(study.Silence):
        def waiting(self, trials: int) -> None:
            other.finish(number, measured(1.0, 1.0), space)

    study.run(space, [arm], formula, n_trials=None, listener=Ends())
    assert OTHER not in formula.seen and len(formula.seen) == space.size - 1


def test_a_level_that_is_ahead_is_not_measured_again(url: str) -> None:
    space = parse("parameters: {threads: {values: [1, 2]}}\nfactors: {load: [light, high]}")
    arms = [
        study.Arm(levels, Store.create(url, f"s@load={levels['load']}", space, levels),
                  propose.make("grid", space, seed=0))
        for levels in ({"load": "light"}, {"load": "high"})
    ]
    arms[0].store.finish(arms[0].store.start({"threads": 1}, space, {}, {}), measured(1, 1), space)
    study.run(space, arms, Formula(), n_trials=None)
    assert [len(arm.store.records()) for arm in arms] == [2, 2]


class Flaky:
    """Lets a storage's method fail with a lost connection, before or after its effect."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: str, *, after: bool) -> None:
        self.left = 1
        plain = getattr(RDBStorage, method)
        lost = sqlalchemy.exc.OperationalError("", {}, Exception("server closed the connection"))

        def failing(storage: Any, *args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left >= 0 and not after:
                raise lost
            result = plain(storage, *args, **kwargs)
            if self.left >= 0:
                raise lost
            return result

        monkeypatch.setattr(RDBStorage, method, failing)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_connection_lost_while_starting_makes_one_trial(
    space: Space, url: str, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    kept = Store.create(url, "small", space, {})
    flaky = Flaky(monkeypatch, "_create_new_trial", after=after)
    assert kept.start(CHOSEN, space, {}, {}) == 0
    assert flaky.left <= 0
    assert len(kept.records()) == 1


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_connection_lost_while_telling_tells_once(
    space: Space, url: str, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    flaky = Flaky(monkeypatch, "set_trial_state_values", after=after)
    kept = Store.create(url, "small", space, {})
    record = kept.finish(kept.start(CHOSEN, space, {}, {}), measured(20.0, 0.5), space)
    assert flaky.left <= 0
    assert (record.state, record.values[0]) == ("complete", 20.0)


def test_a_trial_written_twice_by_the_storage_itself_counts_once(
    space: Space, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = RDBStorage._create_new_trial

    def twice(storage: Any, *args: Any) -> Any:
        plain(storage, *args)
        return plain(storage, *args)

    kept = Store.create(url, "small", space, {})
    monkeypatch.setattr(RDBStorage, "_create_new_trial", twice)
    assert kept.claim(CHOSEN, space, {}, {}, at_most=1) == 1
    assert [r.state for r in kept.records()] == ["killed", "running"]


def test_a_database_that_another_program_locks_is_waited_for(
    space: Space, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "LOCK_TIMEOUT_S", 0.05)
    kept = Store.create(url, "small", space, {})
    holder = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(patience.time, "sleep", lambda s: holder.in_transaction and holder.rollback())
    assert kept.start(CHOSEN, space, {}, {}) == 0


def test_what_waiting_cannot_help_is_raised_at_once() -> None:
    full = sqlalchemy.exc.OperationalError("", {}, sqlite3.OperationalError("disk is full"))
    assert not patience.is_passing(full)
    assert not patience.is_passing(sqlalchemy.exc.ProgrammingError("", {}, Exception("no table")))
    locked = sqlalchemy.exc.OperationalError("", {}, sqlite3.OperationalError("database is locked"))
    assert patience.is_passing(locked)


def test_a_server_that_became_a_standby_is_waited_for() -> None:
    refused = Exception("cannot execute INSERT in a read-only transaction")
    refused.pgcode = "25006"  # type: ignore[attr-defined]
    assert patience.is_passing(sqlalchemy.exc.InternalError("", {}, refused))


class Calibrating:
    """Measures a capacity of its own where the study has none."""

    environment: ClassVar[dict[str, Any]] = {}

    def __init__(self, capacity_rps: float, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.own, self.meanwhile, self.capacity_rps = capacity_rps, meanwhile, 0.0

    def calibrate(self, facts: dict[str, Any], note: Any) -> dict[str, Any]:
        if facts.get("capacity_rps") is None:
            self.meanwhile()
            facts = {**facts, "idle_interval_w": (1.0, self.own), "capacity_rps": self.own}
        self.capacity_rps = facts["capacity_rps"]
        return facts


def test_of_two_that_calibrate_at_once_both_go_on_with_the_first_ones(
    space: Space, url: str
) -> None:
    def build(evaluator: Calibrating) -> Any:
        plan = _arms.Plan("grid", 0, None)
        return _arms.build(
            url, urls.connect(url, create=True), "small", space, plan, evaluator, {},
            lambda text: None,
        )

    first = Calibrating(100.0)
    second = Calibrating(200.0, meanwhile=lambda: build(first))
    (arm,) = build(second)
    assert first.capacity_rps == second.capacity_rps == arm.store.get("capacity_rps") == 100.0
    assert arm.store.get("idle_interval_w") == [1.0, 100.0]


def test_of_many_that_keep_a_fact_at_once_one_has_it(space: Space, url: str) -> None:
    kept = [Store.create(url, "small", space, {}) for _ in range(6)]
    assert len(values_seen(kept)) == 1


def values_seen(kept: Sequence[Store]) -> set[int]:
    """What each of the stores reads after all kept a fact of their own at the same moment."""
    together = threading.Barrier(len(kept))

    def keep(number: int) -> int:
        together.wait()
        kept[number].put_missing({"fact": number, "unknown": None})
        return int(kept[number].get("fact"))

    with ThreadPoolExecutor(len(kept)) as pool:
        return set(pool.map(keep, range(len(kept))))


def test_hearts_beat_while_a_trial_runs(space: Space, url: str) -> None:
    kept = Store.create(url, "small", space, {})
    kept.start(CHOSEN, space, {}, {})
    with Heartbeat([kept], beat_s=0.02):
        for _ in range(500):
            if kept.records()[0].attributes["beat"] >= 2:
                return
    raise AssertionError("no beat")


def test_a_database_that_is_being_made_by_another_worker_is_opened_again(
    space: Space, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, left = patience.open_database, [2]

    def meeting(*args: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise sqlalchemy.exc.IntegrityError("", {}, Exception("duplicate key value violates"))
        return plain(*args)

    monkeypatch.setattr(patience, "open_database", meeting)
    monkeypatch.setattr(urls.time, "sleep", lambda s: None)
    assert Store.create(url, "small", space, {}).name == "small" and left[0] < 0
