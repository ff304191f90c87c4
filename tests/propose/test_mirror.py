"""What Optuna's samplers are told, and how they are set up."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.contracts.proposer_contract import FINITE, drive, ended, failed
from tests.propose.test_behaviour import PLANE
from tuner.measurement import configuration_key
from tuner.propose import make
from tuner.propose.candidates import Untried
from tuner.propose.encoding import Encoder
from tuner.replay.table import from_frame

ERRORS = FINITE.constraints[0].key


def table(sizes: list[float | None]):
    rows = {"on": [False, True, True], "size": sizes, "x": [3.0, 2.0, 1.0], "y": [1.0, 2.0, 3.0]}
    return from_frame(pd.DataFrame(rows), ["on", "size"], ["x", "y"], "t").space


@pytest.mark.parametrize(
    ("space", "grouped"),
    [
        (FINITE, True), (PLANE, False),
        (table([None, 1.0, 2.0]), True), (table([3.0, 1.0, 2.0]), False),
    ],
)
def test_tpe_looks_at_knobs_together_and_in_groups_where_the_space_is_conditional(space, grouped):
    proposer = make("tpe", space, seed=0)
    drive_one(proposer)
    sampler = proposer._study.sampler
    assert sampler._multivariate
    assert sampler._group is grouped
    assert ("branch" in proposer.explain()) is grouped


def drive_one(proposer) -> None:
    assert proposer.propose() is not None


@pytest.mark.parametrize("name", ["tpe", "nsga2", "nsga3"])
@pytest.mark.parametrize("resumed", [False, True])
def test_every_trial_tells_of_every_constraint_and_a_failure_of_its_own(name, resumed):
    proposer = make(name, FINITE, seed=0)
    first = ended(proposer.propose(), 0)
    proposer.observe(first)
    second = failed(proposer.propose(), 1)
    proposer.observe(second)
    if resumed:
        proposer = make(name, FINITE, seed=0)
        proposer.observe(first)
        proposer.observe(second)
        drive_one(proposer)
    kept, broken = [t.constraints for t in proposer._study.get_trials() if t.values is not None]
    assert set(kept) == set(broken) == {"failed", ERRORS}
    assert kept["failed"] <= 0 and kept[ERRORS] == -0.5
    assert broken["failed"] > 0 and broken[ERRORS] <= 0


def test_what_is_untried_follows_each_trial():
    every = list(FINITE.configurations())
    untried = Untried(every, Encoder(FINITE))
    left = [configuration_key(c) for c in every]
    for wanted in every[::-1]:
        untried.remove({"threads": 99})
        assert untried and configuration_key(untried.nearest(wanted)) == configuration_key(wanted)
        untried.remove(wanted)
        untried.remove(wanted)
        left.remove(configuration_key(wanted))
        near = untried.nearest(wanted)
        assert (near is None) == (not left)
        assert near is None or configuration_key(near) in left
        assert untried.nearest(wanted, tried_too=True) == wanted
    assert not untried


def test_tried_configurations_are_not_looked_up_anew_in_each_proposal(monkeypatch):
    proposer = make("tpe", PLANE, seed=0)
    drive(proposer, 3)
    looked_up = []
    seen = proposer._history.has_seen
    monkeypatch.setattr(proposer._history, "has_seen", lambda c: looked_up.append(c) or seen(c))
    proposer.propose()
    assert len(looked_up) < 10
