"""A list of configurations, each measured as often as asked."""

from __future__ import annotations

import pytest

from tuner import propose
from tuner.measurement import Configuration
from tuner.propose.base import Observation
from tuner.propose.listed import ListedProposer, everything, shuffled
from tuner.space_file import parse

LIST: list[Configuration] = [{"n": 1}, {"n": 2}, {"n": 3}]


def proposed(proposer: ListedProposer) -> list[object]:
    return [c["n"] for c in everything(proposer)]


def test_each_is_proposed_once_in_the_lists_order() -> None:
    assert proposed(ListedProposer("list", LIST)) == [1, 2, 3]


def test_what_earlier_processes_finished_is_left_out_but_not_what_was_killed() -> None:
    proposer = ListedProposer("list", LIST)
    proposer.observe(Observation(LIST[0], "complete", (1.0,), number=0))
    proposer.observe(Observation(LIST[1], "failed", None, {"failed": 1.0}, number=1))
    proposer.observe(Observation(LIST[2], "killed", number=2))
    assert proposed(proposer) == [3]


def test_a_second_measurement_follows_when_all_have_their_first() -> None:
    proposer = ListedProposer("list", LIST, times=2)
    order = []
    while (proposal := proposer.propose()) is not None:
        order.append(proposal.configuration["n"])
        proposer.observe(Observation(proposal.configuration, "complete", (1.0,), number=len(order)))
    assert order == [1, 2, 3, 1, 2, 3]


def test_one_measurement_more_repeats_a_part_of_what_is_there() -> None:
    proposer = ListedProposer("again", LIST[1:], times=2)
    for number, configuration in enumerate(LIST):
        proposer.observe(Observation(configuration, "complete", (1.0,), number=number))
    assert proposed(proposer) == [2, 3]


def test_what_another_worker_runs_is_not_proposed() -> None:
    proposer = ListedProposer("list", LIST)
    proposer.observe(Observation(LIST[1], "running", number=0))
    assert proposed(proposer) == [1, 3]


def test_no_measurement_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        ListedProposer("list", LIST, times=0)


def test_a_seed_draws_the_order_and_keeps_the_set() -> None:
    space = parse("parameters: {a: {values: [1, 2, 3, 4]}, b: {values: [1, 2, 3]}}")
    design = everything(propose.make("grid", space, seed=0))
    assert len(design) == 12
    assert shuffled(design, 1) == shuffled(design, 1) != shuffled(design, 2)
    assert sorted(map(str, shuffled(design, 1))) == sorted(map(str, design))
