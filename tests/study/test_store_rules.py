"""Who may have a trial, what a study refuses, and when a trial is feasible: each rule by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from tests.study.conftest import measured
from tuner.errors import StudyError
from tuner.measurement import Failure, Measurement, Outcome
from tuner.space import Objective, Space
from tuner.space_file import parse
from tuner.store import Store, patience
from tuner.store.heartbeat import SILENT_LOOKS
from tuner.store.owner import this_process

ON = {"batching": True, "size": 4, "threads": 2}
OFF = {"batching": False, "threads": 1}
OTHER_OFF = {"batching": False, "threads": 2}
ELSEWHERE = {**this_process(), "host": "elsewhere", "boot": "another"}


URL = "memory"
"""Says nothing here: each test's studies are in a storage of Optuna's in memory, which takes
milliseconds where a database takes a second; ``test_store.py`` has the same store on SQLite."""


@pytest.fixture
def storage() -> BaseStorage:
    return optuna.storages.InMemoryStorage()


@pytest.fixture
def kept(space: Space, storage: BaseStorage) -> Store:
    return Store.create(URL, "small", space, {"model": "m", "server": "s"}, storage)


def states(kept: Store) -> list[str]:
    return [record.state for record in kept.records()]


# What belongs together.


def test_a_study_made_anew_is_opened_with_its_trials(kept: Store, space: Space, storage: BaseStorage) -> None:
    kept.start(ON, space, {}, {})
    again = Store.create(URL, "small", space, {"model": "m", "server": "s"}, storage)
    assert [r.number for r in again.records()] == [0]
    assert optuna.get_all_study_names(storage) == ["small"]


def test_a_study_has_its_spaces_directions(space: Space, storage: BaseStorage) -> None:
    both = Objective("latency_p99_ms", "minimize"), Objective("throughput_rps", "maximize")
    kept = Store.create(URL, "other", replace(space, objectives=both), {}, storage)
    assert kept.directions == ["minimize", "maximize"]
    assert kept.metric_names == ["latency_p99_ms", "throughput_rps"]


def test_another_study_in_the_same_database_is_of_its_own(kept: Store, storage: BaseStorage) -> None:
    other = Store.create(URL, "wide", parse("parameters: {x: [1, 2, 3]}"), {"model": "z"}, storage)
    assert (kept.environment["model"], other.environment) == ("m", {"model": "z"})
    with pytest.raises(StudyError, match="it holds: small, wide"):
        Store.open(URL, "narrow", storage)


def test_every_part_of_a_space_that_differs_is_named(kept: Store, space: Space) -> None:
    other = replace(space, fixed={"y": 1}, factors={"load": ("light",)})
    with pytest.raises(StudyError, match=r"another space \(fixed, factors differ\)"):
        kept.refuse_other(other, {})


def test_an_environment_may_tell_more_or_less_than_before_but_nothing_else(
    kept: Store, space: Space
) -> None:
    kept.refuse_other(space, {"model": "m"})
    kept.refuse_other(space, {"model": "m", "server": "s", "new": 1})
    with pytest.raises(StudyError, match="server 's', not 't'"):
        kept.refuse_other(space, {"model": "m", "server": "t"})


def test_a_study_that_says_nothing_of_its_space_yet_refuses_none(space: Space, storage: BaseStorage) -> None:
    study = optuna.create_study(study_name="bare", storage=storage, directions=["minimize"] * 2)
    Store(study, URL).refuse_other(space, {"model": "m"})


def test_a_study_that_was_described_is_not_described_again(
    kept: Store, space: Space, storage: BaseStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna.Study, "set_user_attr", lambda *_: pytest.fail("written again"))
    Store.create(URL, "small", space, {"model": "m"}, storage)


def test_facts_are_kept_apart_from_what_a_study_says_of_itself(kept: Store) -> None:
    assert kept.facts() == {} and kept.get("capacity") is None
    kept.put("capacity", 250.0)
    kept.put_missing({"capacity": 99.0, "idle_w": 2.4})
    assert kept.facts() == {"capacity": 250.0, "idle_w": 2.4}
    assert kept.get("capacity") == 250.0


# Who may have a trial.


def test_trials_are_numbered_from_zero_and_run_until_they_end(kept: Store, space: Space) -> None:
    assert [kept.start(ON, space, {}, {}), kept.start(OFF, space, {}, {})] == [0, 1]
    assert states(kept) == ["running", "running"]
    (first, _) = kept.records()
    assert first.attributes["beat"] == 0 and first.attributes["owner"] == this_process()


def test_the_lower_number_has_a_configuration_that_both_did_not_know_of(
    kept: Store, space: Space
) -> None:
    assert [kept.claim(ON, space, {}, {}) for _ in range(3)] == [0, None, None]
    assert kept.claim(OFF, space, {}, {}) == 3
    assert states(kept) == ["running", "killed", "killed", "running"]
    assert kept.records()[1].message == "trial 0 of another worker measures the same"


def test_a_configuration_that_was_known_when_it_was_proposed_may_be_measured_again(
    kept: Store, space: Space
) -> None:
    assert kept.claim(ON, space, {}, {}) == 0
    assert kept.claim(ON, space, {}, {}, known={0}) == 1
    assert kept.claim(ON, space, {}, {}, known={0}) is None
    assert kept.claim(ON, space, {}, {}, known={0, 1}) == 3


def test_a_later_trial_of_the_same_does_not_take_a_claim_away(
    kept: Store, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = kept.start

    def overtaken(*told: object) -> int:
        number = start(*told)  # type: ignore[arg-type]
        start(*told)  # type: ignore[arg-type]
        return number

    monkeypatch.setattr(kept, "start", overtaken)
    assert kept.claim(ON, space, {}, {}) == 0


def test_a_failed_or_complete_one_has_its_configuration_and_a_killed_one_has_not(
    kept: Store, space: Space
) -> None:
    kept.finish(kept.start(ON, space, {}, {}), Failure("crash", "x"), space)
    kept.finish(kept.start(OFF, space, {}, {}), measured(20.0, 0.5), space)
    kept.kill(kept.start(OTHER_OFF, space, {}, {}), "stopped")
    assert kept.claim(ON, space, {}, {}) is None
    assert kept.claim(OFF, space, {}, {}) is None
    assert kept.claim(OTHER_OFF, space, {}, {}) == 5


def claims(kept: Store, space: Space, at_most: int) -> list[int | None]:
    every = [{"batching": True, "size": s, "threads": t} for s in (1, 2, 4) for t in (1, 2)]
    return [kept.claim(c, space, {}, {}, at_most=at_most) for c in every]


def test_a_study_holds_at_most_the_wanted_number_of_trials(kept: Store, space: Space) -> None:
    assert claims(kept, space, 3) == [0, 1, 2, None, None, None]
    assert kept.records()[3].message == "other workers run the last trials that were wanted"


def test_killed_trials_make_room_for_others(kept: Store, space: Space) -> None:
    kept.kill(kept.start(OFF, space, {}, {}), "stopped")
    kept.start(OTHER_OFF, space, {}, {})
    kept.kill(kept.start(OFF, space, {}, {}), "stopped")
    assert claims(kept, space, 3) == [3, 4, None, None, None, None]


def test_a_trial_that_the_database_took_twice_counts_once(
    kept: Store, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = patience.create_trial

    def twice(held: object, study_id: int, template: object, twin: object) -> int:
        held.create_new_trial(study_id, template_trial=template)  # type: ignore[attr-defined]
        return create(held, study_id, template, twin)  # type: ignore[arg-type]

    monkeypatch.setattr(patience, "create_trial", twice)
    assert kept.claim(ON, space, {}, {}, at_most=1) == 1
    assert states(kept) == ["killed", "running"]
    assert "written twice" in kept.records()[0].message


def test_a_trial_written_before_an_answer_was_lost_is_found_by_its_mark(
    kept: Store, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.start(OFF, space, {}, {})

    def lost(held: object, study_id: int, template: object, twin: object) -> int:
        assert twin() is None  # type: ignore[operator]
        written = held.create_new_trial(study_id, template_trial=template)  # type: ignore[attr-defined]
        assert twin() == written  # type: ignore[operator]
        return int(written)

    monkeypatch.setattr(patience, "create_trial", lost)
    assert kept.start(ON, space, {}, {}) == 1


# How a trial ends.


def test_a_trial_on_its_limit_is_feasible_and_one_beyond_is_not(storage: BaseStorage) -> None:
    space = parse("parameters: {threads: [1, 2]}\nconstraints: {latency_p99_ms: {max: 20}}")
    kept = Store.create(URL, "limited", space, {}, storage)
    ended = [
        kept.finish(kept.start({"threads": 1}, space, {}, {}), measured(p99, 0.5), space)
        for p99 in (20.0, 19.0, 25.0)
    ]
    assert [r.feasible for r in ended] == [True, True, False]
    assert [r.attributes["feasible"] for r in ended] == [True, True, False]
    assert [r.violations["latency_p99_ms <= 20"] for r in ended] == pytest.approx([0, -0.05, 0.25])
    assert all(r.state == "complete" for r in ended)


def test_a_measurement_that_lacks_an_objective_failed_and_says_why(
    kept: Store, space: Space
) -> None:
    unmetered: Measurement = replace(measured(20.0, 0.5), energy=None)
    record = kept.finish(kept.start(ON, space, {}, {}), unmetered, space)
    assert (record.state, record.values, record.violations) == ("failed", None, {})
    assert record.attributes["feasible"] is False
    assert (record.reason, record.message) == unmetered.why_unmeasured("energy_per_request_j")
    assert "constraints" not in kept._frozen(0).system_attrs


def test_a_failure_is_not_feasible(kept: Store, space: Space) -> None:
    record = kept.finish(kept.start(ON, space, {}, {}), Failure("crash", "x"), space)
    assert record.attributes["feasible"] is False and record.state == "failed"


def test_a_trial_that_others_killed_meanwhile_stays_killed(
    kept: Store, space: Space, storage: BaseStorage
) -> None:
    number = kept.start(ON, space, {}, {})
    Store.open(URL, "small", storage).kill(number, "fell silent")
    record = kept.finish(number, measured(20.0, 0.5), space)
    assert (record.state, record.message, record.values) == ("killed", "fell silent", None)
    assert kept.records()[0].attributes["feasible"] is False


@pytest.mark.parametrize("outcome", [Failure("crash", "x"), measured(20.0, 0.5)])
def test_a_trial_killed_in_the_moment_in_which_its_end_is_written_stays_killed(
    kept: Store, space: Space, monkeypatch: pytest.MonkeyPatch, outcome: Outcome
) -> None:
    number, plain = kept.start(ON, space, {}, {}), patience.set_attributes

    def overtaken(held: BaseStorage, trial_id: int, attributes: Mapping[str, object]) -> None:
        plain(held, trial_id, attributes)
        held.set_trial_state_values(trial_id, TrialState.FAIL)

    monkeypatch.setattr(patience, "set_attributes", overtaken)
    assert kept.finish(number, outcome, space).values is None
    assert kept._mine == {}


def test_equal_trials_beyond_a_limit_are_all_listed_by_the_dashboard(
    kept: Store, space: Space
) -> None:
    for configuration in (ON, OFF):
        number = kept.start(configuration, space, {}, {})
        kept.finish(number, measured(20.0, 0.5, errors=5), space)
    assert kept.best_beyond_limits() == [0, 1]


def test_killing_a_trial_that_ended_changes_nothing(kept: Store, space: Space) -> None:
    number = kept.start(ON, space, {}, {})
    kept.finish(number, measured(20.0, 0.5), space)
    kept.kill(number, "too late")
    assert states(kept) == ["complete"]


def test_what_optuna_and_its_dashboard_read_of_limits_is_the_same(space: Space, storage: BaseStorage) -> None:
    kept = Store.create(URL, "small", space, {}, storage)
    for errors in (0, 5):
        number = kept.start({"batching": False, "threads": 1 + errors // 5}, space, {}, {})
        record = kept.finish(number, measured(20.0 - errors, 0.5, errors=errors), space)
    assert record.violations == {"error_rate <= 0.01": pytest.approx(4.0)}
    study = optuna.load_study(study_name="small", storage=storage)
    assert [t.system_attrs["constraints"] for t in study.trials] == [[-1.0], [pytest.approx(4.0)]]
    assert [t.number for t in study.best_trials] == [0]
    assert kept.best_beyond_limits() == [1]


def test_a_study_within_its_limits_lists_no_best_trial_beyond_one(space: Space, storage: BaseStorage) -> None:
    kept = Store.create(URL, "small", space, {}, storage)
    assert kept.best_beyond_limits() == []
    for threads, errors in ((1, 0), (2, 5)):
        number = kept.start({"batching": False, "threads": threads}, space, {}, {})
        # Worse than the first in every way: best in no list.
        kept.finish(number, measured(20.0 + errors, 0.5 + errors, errors=errors), space)
    assert kept.best_beyond_limits() == []


# Who is alive.


def test_only_running_trials_of_ones_own_beat(kept: Store, space: Space, storage: BaseStorage) -> None:
    mine, over = kept.start(ON, space, {}, {}), kept.start(OFF, space, {}, {})
    theirs = Store.open(URL, "small", storage).start(OTHER_OFF, space, {}, {})
    kept.finish(over, Failure("crash", "x"), space)
    for _ in range(3):
        kept.beat()
    beats = [record.attributes["beat"] for record in kept.records()]
    assert [beats[n] for n in (mine, over, theirs)] == [3, 0, 0]


def test_a_trial_killed_by_others_beats_no_more(kept: Store, space: Space, storage: BaseStorage) -> None:
    number = kept.start(ON, space, {}, {})
    kept.beat()
    Store.open(URL, "small", storage).kill(number, "x")
    kept.beat()
    assert kept._mine == {}
    assert kept.records()[0].attributes["beat"] == 1


def test_a_trial_that_ends_while_others_beat_keeps_none_from_beating(
    kept: Store, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, ending, last = (kept.start(c, space, {}, {}) for c in (ON, OFF, OTHER_OFF))
    plain = kept._running

    def meanwhile(number: int) -> optuna.trial.Trial:
        kept._forget(ending)
        return plain(number)

    monkeypatch.setattr(kept, "_running", meanwhile)
    kept.beat()
    beats = [record.attributes["beat"] for record in kept.records()]
    assert [beats[n] for n in (first, ending, last)] == [1, 0, 1]


def test_a_worker_elsewhere_is_dead_once_it_stood_still_for_six_looks(
    kept: Store, space: Space
) -> None:
    still = kept.start(ON, space, {}, {"owner": ELSEWHERE})
    busy = kept.start(OFF, space, {}, {"owner": ELSEWHERE})
    kept._forget(still)
    kept._forget(busy)
    for look in range(SILENT_LOOKS + 1):
        assert kept.reap() == []
        kept._running(busy).set_user_attr("beat", look)
        kept.beat()
    assert kept.reap() == [still]
    assert states(kept) == ["killed", "running"]
    assert kept.records()[0].message == "its worker on elsewhere fell silent"


def test_a_process_of_this_machine_is_dead_when_it_is_gone_whatever_its_beats(
    kept: Store, space: Space
) -> None:
    gone = kept.start(ON, space, {}, {"owner": {**this_process(), "started": 1}})
    alive = kept.start(OFF, space, {}, {})
    assert kept.reap() == [gone]
    assert [r.state for r in kept.records()] == ["killed", "running"]
    assert kept.reap() == [] and alive == 1


# What is read back.


def test_only_trials_whose_state_changed_are_given(kept: Store, space: Space) -> None:
    kept.start(ON, space, {}, {})
    kept.finish(kept.start(OFF, space, {}, {}), Failure("crash", "x"), space)
    assert [r.number for r in kept.changed({})] == [0, 1]
    assert [r.number for r in kept.changed({0: "running", 1: "running"})] == [1]
    assert [r.number for r in kept.changed({0: "running", 1: "failed"})] == []


def test_reading_takes_no_copy_of_the_trials(
    kept: Store, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.start(ON, space, {}, {})
    asked: list[bool] = []
    plain = optuna.Study.get_trials

    def watched(study: optuna.Study, deepcopy: bool = True, **told: object) -> object:
        asked.append(deepcopy)
        return plain(study, deepcopy=deepcopy, **told)  # type: ignore[arg-type]

    monkeypatch.setattr(optuna.Study, "get_trials", watched)
    list(kept.changed({}))
    kept.reap()
    kept.beat()
    kept.claim(OFF, space, {}, {})
    assert asked and not any(asked)


def test_a_database_without_a_study_says_so(storage: BaseStorage) -> None:
    with pytest.raises(StudyError, match="it holds: none"):
        Store.open(URL, "small", storage)


def test_running_is_what_optuna_calls_so(kept: Store, space: Space) -> None:
    number = kept.start(ON, space, {}, {})
    assert kept._frozen(number).state == TrialState.RUNNING
    assert [t.number for t in kept._frozen_running()] == [number]


def test_a_study_that_never_said_what_it_measures_tells_who_completes_it(
    storage: BaseStorage
) -> None:
    study = optuna.create_study(study_name="bare", storage=storage, directions=["minimize"] * 2)
    with pytest.raises(StudyError, match="the same `tuner study` completes it"):
        _ = Store(study, URL).metric_names
