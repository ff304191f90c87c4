"""Repeats of a configuration: how many, how far apart, and that they survive a restart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from tests.contracts.proposer_contract import FINITE, MIXED, drive, ended, failed, keys
from tuner.measurement import configuration_key
from tuner.propose import Observation, make
from tuner.propose.repeating import GAP, RepeatingProposer
from tuner.space import Parameter, Space

TINY = Space(
    name="tiny",
    parameters=(Parameter("threads", "int", choices=(1, 2, 4), ordered=True),),
    objectives=FINITE.objectives,
    constraints=(),
)


def repeating(name: str, space: Space, repeats: int) -> RepeatingProposer:
    return RepeatingProposer(make(name, space, seed=1), repeats)


def others_between(found: Sequence[object]) -> list[int]:
    """Trials between one measurement of a configuration and its next."""
    last: dict[object, int] = {}
    gaps = []
    for place, key in enumerate(found):
        if key in last:
            gaps.append(place - last[key] - 1)
        last[key] = place
    return gaps


def running(o: Observation) -> Observation:
    return Observation(o.configuration, "running", notes=o.notes, number=o.number)


@pytest.mark.parametrize("name", ["grid", "screening"])
def test_a_fixed_set_is_measured_in_whole_passes_of_one_order_and_then_ends(name: str) -> None:
    once = keys(drive(make(name, FINITE, seed=1), 100))
    proposer = repeating(name, FINITE, 3)
    assert keys(drive(proposer, 200)) == once * 3
    assert proposer.propose() is None


def test_auto_that_takes_the_grid_goes_in_passes() -> None:
    proposer = RepeatingProposer(make("auto", TINY, seed=1, budget=TINY.size * 2), 2)
    found = keys(drive(proposer, TINY.size * 2))
    assert found[: TINY.size] == found[TINY.size :] == list(dict.fromkeys(found))


@pytest.mark.parametrize("name", ["random", "tpe", "nsga2", "qmc", "auto"])
def test_a_sampler_repeats_what_waited_for_five_others_before_something_new(name: str) -> None:
    found = keys(drive(repeating(name, FINITE, 3), 36))
    assert set(others_between(found)) == {GAP}
    assert set(Counter(found).values()) == {3}


def test_a_sampler_on_an_infinite_space_repeats_too() -> None:
    found = keys(drive(repeating("tpe", MIXED, 2), 24))
    assert len(set(found)) == 12 and set(others_between(found)) == {GAP}


def test_a_sampler_without_anything_new_ends_with_all_measured_in_full() -> None:
    proposer = repeating("random", TINY, 4)
    found = Counter(keys(drive(proposer, 100)))
    assert sorted(found.values()) == [4, 4, 4]
    assert proposer.propose() is None


@pytest.mark.parametrize("name", ["grid", "qmc"])
@pytest.mark.parametrize("stopped_after", [3, 9, 40])
def test_a_new_instance_goes_on_where_the_last_one_stopped(name: str, stopped_after: int) -> None:
    whole = drive(repeating(name, FINITE, 2), 100)
    resumed = repeating(name, FINITE, 2)
    for o in whole[:stopped_after]:
        resumed.observe(o)
    later = drive(resumed, 100, first=stopped_after)
    assert keys(whole[:stopped_after]) + keys(later) == keys(whole)


def test_a_killed_trial_does_not_count() -> None:
    for name in ("grid", "random"):
        proposer = repeating(name, TINY, 2)
        first = proposer.propose()
        assert first is not None
        o = ended(first, 0)
        proposer.observe(running(o))
        proposer.observe(Observation(o.configuration, "killed", number=0))
        found = Counter(keys(drive(proposer, 100, first=1)))
        assert found[configuration_key(o.configuration)] == 2
        assert sorted(found.values()) == [2, 2, 2]


def test_a_failure_counts() -> None:
    proposer = repeating("grid", TINY, 2)
    number = 0
    while (proposal := proposer.propose()) is not None:
        proposer.observe(failed(proposal, number))
        number += 1
    assert number == 6


@pytest.mark.parametrize("name", ["grid", "random"])
def test_what_runs_is_not_proposed_at_the_same_moment(name: str) -> None:
    proposer = repeating(name, TINY, 3)
    seen = drive(proposer, 3)
    proposer.observe(Observation(seen[0].configuration, "running", number=3))
    several = [proposer.propose() for _ in range(3)]
    found = [configuration_key(p.configuration) for p in several if p is not None]
    assert sorted(found) == sorted(keys(seen[1:]))


def test_a_repeat_keeps_the_generation_of_its_first_proposal() -> None:
    proposer = RepeatingProposer(make("nsga2", FINITE, seed=1, budget=50), 2)
    seen = drive(proposer, 48)
    generations: dict[object, set[object]] = {}
    for o in seen:
        generations.setdefault(configuration_key(o.configuration), set()).add(
            o.notes.get("generation", 0)
        )
    assert all(len(g) == 1 for g in generations.values())
    assert len(set.union(*generations.values())) > 1


def test_it_says_that_it_repeats() -> None:
    assert "each configuration 3 times, in whole passes" in repeating("grid", TINY, 3).explain()
    assert "5 other trials apart" in repeating("tpe", TINY, 3).explain()
