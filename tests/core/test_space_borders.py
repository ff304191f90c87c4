"""The borders of what a space takes, counts and judges: the value at each, and the one beyond it."""

from __future__ import annotations

import math

import pytest

from tuner import space as space_module
from tuner.errors import SpaceError
from tuner.space import (
    MAX_ENUMERATED,
    MAX_LEVELS,
    Constraint,
    Objective,
    Parameter,
    Settings,
    Space,
    Where,
)
from tuner.space_file import parse


def ranged(kind: str = "float", low: float = 2.0, high: float = 10.0, **more: object) -> Parameter:
    return Parameter("x", kind, low=low, high=high, **more)  # type: ignore[arg-type]


def test_a_range_takes_both_its_ends_and_nothing_beyond() -> None:
    parameter = ranged()
    assert all(parameter.contains(v) for v in (2.0, 3.7, 10.0, 2, 10))
    assert not any(parameter.contains(v) for v in (1.999, 10.001, 1.5, 10.5, -math.inf, math.nan))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1.0, 3.0)])
def test_rounding_at_the_ends_of_a_range_is_forgiven_and_no_more(low: float, high: float) -> None:
    parameter = ranged(low=low, high=high)
    assert parameter.contains(low - 1e-13) and parameter.contains(high + 1e-13)
    assert not parameter.contains(low - 1e-9) and not parameter.contains(high + 1e-9)


def test_the_forgiven_rounding_is_a_billionth_of_a_thousandth_with_both_its_ends() -> None:
    assert ranged(low=0.0, high=1.0).contains(-1e-12)
    assert ranged(low=-1.0, high=0.0).contains(1e-12)


def test_a_space_with_a_range_too_wide_to_enumerate_is_not_finite() -> None:
    assert not Space("s", (ranged("int", 1, 5000),)).is_finite


def test_texts_and_truth_values_are_in_no_range() -> None:
    assert not ranged(low=0.0, high=10.0).contains("5")
    assert not ranged(low=0.0, high=10.0).contains(True)
    assert not ranged("int", low=0, high=10).contains(False)


def test_an_integer_range_takes_whole_numbers_alone() -> None:
    parameter = ranged("int", low=1, high=8)
    assert parameter.contains(4) and parameter.contains(4.0)
    assert not parameter.contains(4.5)


@pytest.mark.parametrize("kind", ["int", "float"])
def test_steps_are_counted_from_the_low_end(kind: str) -> None:
    parameter = ranged(kind, low=2, high=14, step=5)
    assert [v for v in range(1, 15) if parameter.contains(v)] == [2, 7, 12]


def test_a_step_is_met_within_its_millionth() -> None:
    parameter = ranged(low=0.0, high=1.0, step=0.1)
    assert parameter.contains(0.1 + 0.2) and parameter.contains(0.3)
    assert not parameter.contains(0.35) and not parameter.contains(0.3001)
    assert parameter.contains(0.3 + 0.5e-7) and not parameter.contains(0.3 + 2e-7)


def test_only_one_of_the_choices_is_contained() -> None:
    parameter = Parameter("x", "categorical", choices=(1, 4, "auto"))
    assert parameter.contains(4.0) and parameter.contains("auto")
    assert not parameter.contains(2) and not parameter.contains(True)


@pytest.mark.parametrize(
    ("parameter", "discrete"),
    [
        (Parameter("x", "categorical", choices=(1, 2)), True),
        (ranged(step=1.0), True),
        (ranged("int", 1, 9), True),
        (ranged("int", 1, 9, log=True), False),
        (ranged("int", 1, 9, n_levels=3), False),
        (ranged(n_levels=3), False),
        (ranged(), False),
    ],
)
def test_levels_hold_every_value_of_choices_steps_and_plain_integers(
    parameter: Parameter, discrete: bool
) -> None:
    assert parameter.is_discrete is discrete


def test_bounds_are_those_of_a_range_and_choices_have_none() -> None:
    assert ranged().bounds == (2.0, 10.0)
    for half in (Parameter("x", "int", low=1), Parameter("x", "int", high=1),
                 Parameter("x", "categorical", choices=(1, 2))):
        with pytest.raises(ValueError, match="choices, not a range"):
            _ = half.bounds


@pytest.mark.parametrize(
    ("parameter", "levels"),
    [
        (ranged(low=0.0, high=8.0, n_levels=5), (0, 2, 4, 6, 8)),
        (ranged(low=3.0, high=8.0, n_levels=1), (3,)),
        (ranged(low=3.0, high=8.0, n_levels=2), (3, 8)),
        (ranged(low=2.0, high=32.0, n_levels=5, log=True), (2, 4, 8, 16, 32)),
        (ranged("int", 1, 100, n_levels=4), (1, 34, 67, 100)),
        (ranged(low=0.5, high=2.0, step=0.5), (0.5, 1.0, 1.5, 2.0)),
        (ranged(low=0.0, high=0.3, step=0.1), (0.0, 0.1, 0.2, 0.3)),  # 0.3 / 0.1 = 2.9999999999999996
        (ranged(low=0.0, high=0.29, step=0.1), (0.0, 0.1, 0.2)),
        (ranged("int", 1, 8, log=True), (1, 2, 4, 8)),
        (ranged("int", 3, 20, log=True), (3, 4, 8, 16, 20)),
        (ranged("int", -1, 2), (-1, 0, 1, 2)),
    ],
)
def test_levels_rise_from_the_low_end_to_the_high_one(
    parameter: Parameter, levels: tuple[float, ...]
) -> None:
    assert parameter.levels() == pytest.approx(levels, abs=1e-12)


def test_levels_never_leave_the_range_by_rounding() -> None:
    for high in (3.0, 7.0, 10.0, 700.0):
        parameter = ranged(low=0.1, high=high, n_levels=7, log=True)
        assert all(0.1 <= level <= high for level in parameter.levels())


def test_a_range_has_at_most_1024_levels() -> None:
    assert MAX_LEVELS == 1024
    assert len(ranged("int", 11, 10 + MAX_LEVELS).levels()) == MAX_LEVELS
    assert len(ranged(low=11, high=10 + MAX_LEVELS, step=1).levels()) == MAX_LEVELS
    with pytest.raises(SpaceError, match="1025 values are too many"):
        ranged("int", 11, 11 + MAX_LEVELS).levels()
    with pytest.raises(SpaceError, match="1025 steps are too many"):
        ranged(low=11, high=11 + MAX_LEVELS, step=1).levels()


def counting(*sizes: int, exclude: tuple[object, ...] = ()) -> Space:
    parameters = (ranged("int", 1, size) for size in sizes)
    named = tuple(
        Parameter(f"p{i}", "int", low=p.low, high=p.high) for i, p in enumerate(parameters)
    )
    return Space("s", named, exclude=exclude)  # type: ignore[arg-type]


def test_a_space_is_counted_up_to_200_000_configurations() -> None:
    assert MAX_ENUMERATED == 200_000
    full, over = counting(400, 500), counting(401, 500)
    assert full.size == 200_000 and full.is_finite
    assert over.size == 200_001 and not over.is_finite


@pytest.mark.parametrize(("levels", "size"), [(41, 0), (42, 21)])
def test_counting_ends_after_twice_as_many_steps_where_most_is_excluded(
    monkeypatch: pytest.MonkeyPatch, levels: int, size: int
) -> None:
    assert space_module.MAX_STEPS == 2 * MAX_ENUMERATED
    monkeypatch.setattr(space_module, "MAX_ENUMERATED", 20)
    monkeypatch.setattr(space_module, "MAX_STEPS", 40)
    assert counting(levels, exclude=({"p0": tuple(range(1, levels + 1))},)).size == size


def test_a_parameter_is_found_by_its_name() -> None:
    space = parse("parameters: {a: [1, 2], b: [3, 4], c: [5, 6]}")
    assert [space.parameter(n).choices for n in "abc"] == [(1, 2), (3, 4), (5, 6)]
    with pytest.raises(KeyError):
        space.parameter("d")


def test_all_conditions_of_a_parameter_have_to_hold() -> None:
    child = Parameter("x", "int", low=1, high=2, when={"a": (1, 2), "b": (True,)})
    space = Space("s", (child,))
    assert space.active({"a": 2, "b": True}, child)
    assert not space.active({"a": 3, "b": True}, child)
    assert not space.active({"a": 2, "b": False}, child)
    assert not space.active({"b": True}, child)


def test_only_knobs_of_two_values_that_others_depend_on_decide() -> None:
    space = parse(
        "parameters: {two: [1, 2], three: [1, 2, 3], lone: [1, 2],"
        " x: {values: [1, 2], when: {two: 1}}, y: {values: [1, 2], when: {three: 1}}}"
    )
    assert space.conditional == ("x", "y")
    assert space.deciding == ("two",)


@pytest.mark.parametrize(
    ("constraint", "value", "violation"),
    [
        (Constraint("m", maximum=50.0), 75.0, 0.5),
        (Constraint("m", maximum=50.0), 25.0, -0.5),
        (Constraint("m", maximum=-4.0), -3.0, 0.25),
        (Constraint("m", maximum=0.0), 3.0, 3.0),
        (Constraint("m", minimum=100.0), 50.0, 0.5),
        (Constraint("m", minimum=100.0), 150.0, -0.5),
        (Constraint("m", minimum=-4.0), -5.0, 0.25),
        (Constraint("m", minimum=0.0), -3.0, 3.0),
    ],
)
def test_a_violation_is_relative_to_the_size_of_the_bound_and_absolute_at_zero(
    constraint: Constraint, value: float, violation: float
) -> None:
    assert constraint.violation(value) == pytest.approx(violation)


def test_a_metric_to_be_maximised_is_minimised_with_the_other_sign() -> None:
    assert Objective("m", "maximize").to_minimise(3.0) == -3.0
    assert Objective("m", "minimize").to_minimise(3.0) == 3.0


def test_without_a_word_the_error_rate_may_be_one_percent_and_p99_and_energy_are_minimised() -> None:
    space = Space("s", ())
    assert space.violations({"error_rate": 0.01}) == {"error_rate <= 0.01": 0.0}
    assert [(o.name, o.direction) for o in space.objectives] == [
        ("latency_p99_ms", "minimize"), ("energy_per_request_j", "minimize"),
    ]


def test_a_stage_without_a_word_lasts_4_to_10_seconds_of_single_rows_once() -> None:
    stage = Settings()
    assert (stage.min_duration_s, stage.max_duration_s) == (4.0, 10.0)
    assert (stage.precision, stage.start_timeout_s) == (0.10, 60.0)
    assert (stage.rows, stage.repeats) == (1, 1)


def test_spaces_are_equal_wherever_they_were_read() -> None:
    here, there = (parse("parameters: {x: {low: 1, high: 3}}", file=f) for f in ("a.yaml", "b.yaml"))
    assert here == there
    assert here.parameters[0].where == Where("a.yaml", 1, "parameters.x")


def test_a_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    one = Space("s", (), fixed={"a": 1, "b": 2})
    other = Space("s", (), fixed={"b": 2, "a": 1})
    assert one.fingerprint() == other.fingerprint()
    assert len(one.fingerprint()) == 16
