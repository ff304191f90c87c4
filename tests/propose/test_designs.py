"""Designs made before the first trial: the whole factorial, an even spread, screening."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import qmc

from tests.contracts.proposer_contract import FINITE, MIXED, drive, ended, keys
from tuner.errors import SpaceError
from tuner.measurement import configuration_key
from tuner.propose import Observation, make
from tuner.propose.designs import _plackett_burman
from tuner.space import Parameter, Space

SQUARE = Space("square", tuple(Parameter(n, "int", low=0, high=63) for n in "ab"), constraints=())
POINTS = 16


def test_the_grid_takes_each_level_of_a_mixed_space_once():
    found = keys(drive(make("grid", MIXED, seed=0), 1_000))
    assert found == [configuration_key(c) for c in MIXED.configurations()]
    assert len(set(found)) == len(found) == 9 + 4 * 9


def test_the_grid_of_a_range_without_levels_is_refused():
    endless = Space("endless", (Parameter("share", "float", low=0.1, high=1.0),))
    with pytest.raises(SpaceError, match="levels"):
        make("grid", endless, seed=0)


def discrepancy(observations) -> float:
    points = [[(o.configuration[n] + 0.5) / 64 for n in "ab"] for o in observations]
    assert len(points) == POINTS
    return float(qmc.discrepancy(points, method="CD"))


def at_random() -> float:
    """What random draws reach in the median."""
    draws = [drive(make("random", SQUARE, seed=seed), POINTS) for seed in range(15)]
    return float(np.median([discrepancy(d) for d in draws]))


def alternating(seed: int) -> list[Observation]:
    """Two workers of one study; each sees the other's trial begin and end."""
    two, seen = [make("qmc", SQUARE, seed=seed) for _ in range(2)], []
    for number in range(POINTS):
        own, other = two[number % 2], two[1 - number % 2]
        proposal = own.propose()
        other.observe(Observation(proposal.configuration, "running", number=number))
        seen.append(Observation(proposal.configuration, "complete", (1.0, 1.0), number=number))
        own.observe(seen[-1])
        other.observe(seen[-1])
    return seen


def test_qmc_spreads_more_evenly_than_chance():
    found = [discrepancy(drive(make("qmc", SQUARE, seed=s), POINTS)) for s in range(5)]
    assert max(found) < 0.5 * at_random()


def test_two_workers_go_on_with_one_sequence():
    for seed in range(2):
        together = alternating(seed)
        assert discrepancy(together) < 0.5 * at_random()
        assert keys(together) == keys(drive(make("qmc", SQUARE, seed=seed), POINTS))


def test_screening_moves_an_excluded_corner_and_keeps_every_row():
    design = drive(make("screening", FINITE, seed=0), 100)
    assert all(FINITE.is_valid(o.configuration) for o in design)
    # Eight rows for four knobs, and the middle.
    assert len(set(keys(design))) == len(design) == 9


MANY = Space(
    "many",
    tuple(Parameter(f"k{i}", "int", low=0, high=9) for i in range(30)),
    constraints=(),
    exclude=({"k0": (9,), "k1": (9,)},),
)


def test_screening_of_a_space_too_large_to_enumerate_changes_one_knob_of_an_excluded_row():
    design = drive(make("screening", MANY, seed=0), 100)
    assert all(MANY.is_valid(o.configuration) for o in design)
    assert len(set(keys(design))) == len(design) == 33
    inner = [sum(v not in (0, 9) for v in o.configuration.values()) for o in design[:-1]]
    free = drive(make("screening", replace(MANY, exclude=()), seed=0), 100)
    excluded = sum(MANY.excluded(o.configuration) for o in free)
    assert excluded > 0
    assert sorted(inner) == [0] * (32 - excluded) + [1] * excluded


def test_screening_of_a_large_conditional_space_keeps_every_row():
    parents = tuple(Parameter(f"p{i}", "categorical", choices=(False, True)) for i in range(12))
    children = tuple(
        Parameter(f"c{i}", "int", low=1, high=8, when={f"p{i}": (True,)}) for i in range(12)
    )
    space = Space("deep", parents + children, exclude=({"p0": (True,), "c0": (8,)},))
    design = drive(make("screening", space, seed=0), 100)
    assert all(space.is_valid(o.configuration) for o in design)
    assert len(set(keys(design))) == len(design) == 33


@pytest.mark.parametrize(("knobs", "rows"), [(1, 4), (11, 12), (12, 16), (24, 32), (33, 40)])
def test_screening_has_a_design_of_independent_columns_for_any_number_of_knobs(knobs, rows):
    design = _plackett_burman(knobs)
    assert design.shape == (rows, knobs)
    assert set(np.unique(design)) == {0.0, 1.0}
    signs = 2 * design - 1
    assert (signs.T @ signs == rows * np.eye(knobs)).all()


def test_screening_says_so_where_no_row_can_be_saved():
    all_of_it = {"k29": tuple(range(10))}
    with pytest.raises(SpaceError, match="screening"):
        make("screening", replace(MANY, exclude=(all_of_it,)), seed=0)


def test_a_resumed_sequence_goes_on_where_it_was():
    whole = drive(make("qmc", SQUARE, seed=0), POINTS)
    resumed = make("qmc", SQUARE, seed=0)
    for o in whole[:5]:
        resumed.observe(o)
    assert keys([ended(resumed.propose(), 5)]) == keys(whole)[5:6]
