"""A study that repeats its configurations goes on after a stop with what still lacks repeats."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.study.conftest import Formula
from tuner import store, study
from tuner.measurement import configuration_key
from tuner.propose import make
from tuner.propose.repeating import RepeatingProposer
from tuner.space import Space


def run(space: Space, url: str, formula: Formula, sampler: str) -> study.Summary:
    proposer = RepeatingProposer(make(sampler, space, seed=0), 2)
    arm = study.Arm({}, store.Store.create(url, "s", space, {}), proposer)
    return study.run(space, [arm], formula, n_trials=None)


@pytest.mark.parametrize("sampler", ["grid", "random"])
def test_a_stopped_study_ends_with_every_configuration_finished_twice(
    space: Space, url: str, sampler: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(space, url, Formula(stop_after=7), sampler)
    assert run(space, url, Formula(), sampler).reason == "exhausted"
    records = store.Store.open(url, "s").records()
    assert [r.number for r in records if r.state == "killed"] == [7]
    finished = Counter(configuration_key(r.configuration) for r in records if r.is_finished)
    assert len(finished) == space.size and set(finished.values()) == {2}
