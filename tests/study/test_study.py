"""The loop proposes, runs, tells, and resumes with nothing lost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.study.conftest import Formula
from tuner import propose, study
from tuner.errors import LostError
from tuner.feasibility import error_rate_probabilities, hold_probability
from tuner.measurement import REASONS, UNFINISHED, Outcome, configuration_key
from tuner.space import Space
from tuner.space_file import parse
from tuner.store import Store, level_name
from tuner.study import Arm


def arms(
    space: Space, url: str, sampler: str, levels: Sequence[dict[str, str]] = ({},), seed: int = 0
) -> list[Arm]:
    return [
        Arm(
            level,
            Store.create(url, level_name("small", level), space, {"load": level.get("load")}),
            propose.make(sampler, space, seed=seed, budget=20),
        )
        for level in levels
    ]


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "grid"])
def test_the_wanted_number_of_trials_is_finished_and_stored(
    space: Space, url: str, formula: Formula, sampler: str
) -> None:
    summary = study.run(space, arms(space, url, sampler), formula, n_trials=8)
    records = Store.open(url, "small").records()
    assert (summary.trials, summary.reason) == (8, "trials")
    assert len([r for r in records if r.is_finished]) == 8
    assert all(space.is_valid(r.configuration) for r in records)


def test_the_grid_measures_each_configuration_once_and_then_ends(
    space: Space, url: str, formula: Formula
) -> None:
    summary = study.run(space, arms(space, url, "grid"), formula, n_trials=None)
    keys = [configuration_key(c) for c in formula.seen]
    assert summary.reason == "exhausted"
    assert len(keys) == len(set(keys)) == space.size == 10


def test_a_failure_counts_as_finished(space: Space, url: str, formula: Formula) -> None:
    study.run(space, arms(space, url, "grid"), formula, n_trials=None)
    failed = [r for r in Store.open(url, "small").records() if r.state == "failed"]
    assert [r.reason for r in failed] == ["crash"]


def test_an_interrupted_trial_is_killed_and_the_next_run_reaches_the_total(
    space: Space, url: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        study.run(space, arms(space, url, "grid"), Formula(stop_after=4), n_trials=None)
    first = Store.open(url, "small").records()
    assert [r.state for r in first].count("killed") == 1
    again = Formula()
    study.run(space, arms(space, url, "grid"), again, n_trials=None)
    assert len(again.seen) == space.size - 4
    finished = [r for r in Store.open(url, "small").records() if r.is_finished]
    assert len({configuration_key(r.configuration) for r in finished}) == space.size


def test_trials_of_earlier_runs_count(space: Space, url: str) -> None:
    study.run(space, arms(space, url, "tpe"), Formula(), n_trials=5)
    again = Formula()
    summary = study.run(space, arms(space, url, "tpe"), again, n_trials=7)
    assert summary.trials == len(again.seen) == 2


def test_the_time_limit_starts_no_further_trial(space: Space, url: str, formula: Formula) -> None:
    summary = study.run(space, arms(space, url, "tpe"), formula, n_trials=5, timeout_s=0.0)
    assert (summary.trials, summary.reason) == (0, "timeout")


def test_a_bug_in_the_evaluator_fails_the_trial_not_the_study(space: Space, url: str) -> None:
    class Broken(Formula):
        def evaluate(self, configuration, levels, numbers):  # type: ignore[no-untyped-def]
            raise RuntimeError("out of cheese")

    study.run(space, arms(space, url, "random"), Broken(), n_trials=2)
    records = Store.open(url, "small").records()
    assert [r.reason for r in records] == ["internal", "internal"]
    assert "out of cheese" in records[0].message


def test_without_what_it_stands_on_a_study_ends_and_blames_no_configuration(
    space: Space, url: str
) -> None:
    class Lost(Formula):
        def evaluate(self, *args: object) -> list[Outcome]:
            raise LostError("the engine is gone")

    with pytest.raises(LostError, match="the engine is gone"):
        study.run(space, arms(space, url, "random"), Lost(), n_trials=2)
    assert [r.state for r in Store.open(url, "small").records()] == ["killed"]


def test_every_level_is_measured_for_each_proposal(url: str, formula: Formula) -> None:
    text = "parameters: {threads: {values: [1, 2]}}\nfactors: {load: [light, high]}"
    space = parse(text)
    levels = [{"load": "light"}, {"load": "high"}]
    study.run(space, arms(space, url, "grid", levels), formula, n_trials=None)
    light = Store.open(url, "small@load=light").records()
    high = Store.open(url, "small@load=high").records()
    assert len(formula.seen) == 2
    assert [h.metrics["latency_p99_ms"] for h in high] == [
        pytest.approx(3 * l.metrics["latency_p99_ms"]) for l in light
    ]


def test_maximised_objectives_reach_the_proposer_negated(url: str, formula: Formula) -> None:
    text = "parameters: {threads: {values: [1, 2]}}\npattern: closed\nobjectives: [throughput_rps]"
    space = parse(text)
    (arm,) = arms(space, url, "grid")
    study.run(space, [arm], formula, n_trials=1)
    observed = study.observation(arm.store.records()[0], space)
    assert observed.values == (-25.0,)
    assert arm.store.records()[0].values == (25.0,)


def test_intervals_of_violations_reach_the_proposer(url: str, formula: Formula) -> None:
    limits = ("constraints: {latency_p99_ms: {max: 20}, throughput_rps: {min: 1}, "
              "power_average_w: {max: 500}}")
    space = parse(f"parameters: {{threads: {{values: [1]}}}}\n{limits}")
    (arm,) = arms(space, url, "grid")
    study.run(space, [arm], formula, n_trials=1)
    (changed,) = arm.store.changed({})
    p99_ms = arm.store.records()[0].metrics["latency_p99_ms"]
    key = "latency_p99_ms <= 20"
    observed = study.observation(changed, space)
    assert observed.violation_intervals == {
        key: (pytest.approx(0.9 * p99_ms / 20 - 1), pytest.approx(1.1 * p99_ms / 20 - 1))
    }
    assert observed.violations[key] == pytest.approx(p99_ms / 20 - 1)
    told = observed.limit_probabilities
    assert told[key] == pytest.approx(
        hold_probability(p99_ms, 0.9 * p99_ms, 1.1 * p99_ms, 20.0, "<=")
    )
    # The rate less the share in error; of the power no error is known, and nothing is told.
    assert told["throughput_rps >= 1"] == pytest.approx(1)
    assert "power_average_w <= 500" not in told and "power_average_w <= 500" in observed.violations
    # No error in so many requests: Jeffreys' posterior.
    assert told["error_rate <= 0.01"] == pytest.approx(
        error_rate_probabilities([0], [observed_requests(arm)], 0.01, "<=")[0]
    )


@pytest.mark.parametrize("reason", sorted(set(REASONS) - set(UNFINISHED)))
def test_only_a_failure_of_the_server_reaches_the_proposer_as_one(
    url: str, formula: Formula, reason: str
) -> None:
    space = parse("parameters: {threads: {values: [1]}}")
    (arm,) = arms(space, url, "grid")
    study.run(space, [arm], formula, n_trials=1)
    failed = replace(arm.store.records()[0], state="failed", values=None, reason=reason)
    observed = study.observation(failed, space)
    servers = {"crash", "out_of_memory", "start_timeout", "start_failed", "errors", "overloaded",
               "percentile_unknown", "no_answers"}
    assert observed.violations == ({"failed": 1.0} if reason in servers else {})
    assert observed.tells_nothing == (reason not in servers)


def test_a_limit_that_was_not_measured_is_beyond_every_one_that_was(
    url: str, formula: Formula
) -> None:
    space = parse(
        "parameters: {threads: {values: [1]}}\npattern: closed\nobjectives: [throughput_rps]\n"
        "constraints: {power_average_w: {max: 5}}"
    )
    (arm,) = arms(space, url, "grid")
    study.run(space, [arm], Unmetered(formula), n_trials=1)
    (changed,) = arm.store.changed({})
    observed = study.observation(changed, space)
    assert observed.violations["power_average_w <= 5"] == math.inf
    assert not observed.feasible and observed.violation_intervals == {}


def observed_requests(arm) -> int:
    return arm.store.records()[0].measurement["stage"]["requests"]


class Unmetered:
    """Measures as another evaluator does, without energy."""

    def __init__(self, inner: Formula) -> None:
        self.inner = inner

    def evaluate(self, *args):
        return [replace(outcome, energy=None) for outcome in self.inner.evaluate(*args)]

    def attributes(self):
        return self.inner.attributes()
