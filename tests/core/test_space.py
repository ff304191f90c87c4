"""A space enumerates, discretises and judges configurations."""

from __future__ import annotations

import pytest

from tuner.errors import SpaceError
from tuner.space import Constraint, load
from tuner.space_file import parse

BATCHING = """
parameters:
  enable_batching: {choices: [false, true]}
  max_batch_size: {values: [1, 4, 16], when: {enable_batching: true}}
  threads: {low: 1, high: 3}
exclude:
  - {max_batch_size: 16, threads: [1, 2]}
"""


def test_every_valid_configuration_is_enumerated_once() -> None:
    space = parse(BATCHING)
    found = list(space.configurations())
    # Off: 3 choices of threads; on: 3 sizes x 3 threads, less the two excluded ones.
    assert len(found) == 3 + 9 - 2 == space.size
    assert len({tuple(sorted(c.items())) for c in found}) == len(found)
    assert all(space.is_valid(c) for c in found)


def test_a_space_tells_its_conditional_knobs_and_those_that_decide() -> None:
    space = parse(BATCHING)
    assert space.conditional == ("max_batch_size",)
    assert space.deciding == ("enable_batching",)


def test_a_child_without_its_parent_is_not_valid() -> None:
    space = parse(BATCHING)
    assert not space.is_valid({"enable_batching": False, "max_batch_size": 4, "threads": 1})
    assert not space.is_valid({"enable_batching": True, "threads": 1})


def test_an_excluded_combination_is_not_valid() -> None:
    space = parse(BATCHING)
    assert not space.is_valid({"enable_batching": True, "max_batch_size": 16, "threads": 2})
    assert space.is_valid({"enable_batching": True, "max_batch_size": 16, "threads": 3})


def test_true_is_not_one() -> None:
    space = parse("parameters: {x: {choices: [0, 1]}}")
    assert not space.is_valid({"x": True})


def test_parents_come_before_children_whatever_the_order_in_the_file() -> None:
    space = parse("parameters: {b: {choices: [1, 2], when: {a: true}}, a: {choices: [false, true]}}")
    assert [p.name for p in space.parameters] == ["a", "b"]
    assert space.size == 3


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("{low: 1, high: 4}", (1, 2, 3, 4)),
        ("{low: 1, high: 20, log: true}", (1, 2, 4, 8, 16, 20)),
        ("{low: 0, high: 10, step: 5}", (0, 5, 10)),
        ("{low: 0.0, high: 1.0, levels: 3}", (0.0, 0.5, 1.0)),
        ("{low: 1.0, high: 100.0, levels: 3, log: true}", (1.0, 10.0, 100.0)),
        ("{low: 5, high: 5}", (5,)),
    ],
)
def test_ranges_are_cut_into_levels(text: str, levels: tuple[float, ...]) -> None:
    assert parse(f"parameters: {{x: {text}}}").parameters[0].levels() == pytest.approx(levels)


def test_a_continuous_range_cannot_be_enumerated_and_the_error_says_where() -> None:
    space = parse("parameters:\n  x: {low: 0.0, high: 1.0}", file="s.yaml")
    assert not space.is_finite
    with pytest.raises(SpaceError, match=r"s\.yaml:2: parameters\.x: .*levels"):
        _ = space.size


def test_a_huge_space_is_counted_only_so_far() -> None:
    ranges = ", ".join(f"p{i}: {{low: 0, high: 1000}}" for i in range(8))
    assert parse(f"parameters: {{{ranges}}}").is_finite is False


def test_the_fingerprint_changes_with_the_space_and_not_with_its_comments() -> None:
    again = parse(BATCHING + "# a comment\n")
    wider = parse(BATCHING.replace("[1, 4, 16]", "[1, 4, 16, 32]"))
    assert parse(BATCHING).fingerprint() == again.fingerprint() != wider.fingerprint()


def test_constraints_measure_how_far_beyond_the_bound() -> None:
    at_most = Constraint("latency_p99_ms", maximum=50)
    at_least = Constraint("throughput_rps", minimum=100)
    assert at_most.violation(75) == pytest.approx(0.5)
    assert at_most.violation(50) == 0
    assert at_least.violation(50) == pytest.approx(0.5)
    assert at_least.violation(200) < 0


def test_a_service_level_keeps_the_default_error_rate() -> None:
    space = parse("parameters: {x: [1, 2]}\nconstraints: {latency_p99_ms: {max: 50}}")
    assert {c.key for c in space.constraints} == {"latency_p99_ms <= 50", "error_rate <= 0.01"}


def test_a_metric_not_measured_breaks_its_constraint() -> None:
    space = parse("parameters: {x: [1, 2]}")
    assert space.violations({"error_rate": None}) == {"error_rate <= 0.01": 1.0}


def test_the_shipped_batching_space_has_at_least_a_hundred_configurations() -> None:
    assert load("batching").size >= 100
