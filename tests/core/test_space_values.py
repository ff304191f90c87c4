"""The numbers of a space: what a parameter may take, its levels, bounds of constraints, counts."""

from __future__ import annotations

import hashlib
import json
import math

import pytest

from tuner import space as spaces
from tuner.errors import SpaceError
from tuner.measurement import Scalar
from tuner.space import Constraint, Objective, Parameter, Settings, Space, Where
from tuner.space_file import parse


def parameter(text: str) -> Parameter:
    return parse(f"parameters:\n  x: {text}", file="s.yaml").parameters[0]


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("{low: 10, high: 50, step: 20}", (10, 30, 50, 30.0), (20, 31, 29, 70, -10, 30.5)),
        ("{low: 2, high: 14, step: 5}", (2, 7, 12), (1, 3, 5, 8, 10, 14)),
        ("{low: 0.5, high: 2.0, step: 0.5}", (0.5, 1, 1.5, 2.0), (0.75, 0.0, 2.5, 1.0001)),
        ("{low: 0.0, high: 1.0, step: 0.1}", (0.3, 0.1 + 0.2, 0.7, 0.30000005), (0.35, 0.3000002)),
        ("{low: 0, high: 3}", (0, 1, 2, 3, 3.0), (-1, 4, 1.5, True, "1")),
        ("{low: 0.25, high: 0.75}",
         (0.25, 0.75, 0.5, 0.25 - 5e-13, 0.75 + 5e-13), (0.25 - 2e-12, 0.75 + 2e-12, math.nan)),
        ("{low: 1, high: 64, log: true}", (1, 3, 64), (0, 65, math.inf, -math.inf)),
        ("[1, 4, 16]", (1, 4.0, 16), (2, True, "4")),
        ("[false, true]", (True, False), (0, 1)),
        ("[a, b]", ("a",), ("c", 1)),
        # Forgiven is a billionth of a thousandth, at both ends.
        ("{low: -1.0, high: 0.0}", (1e-12,), (2e-12,)),
        ("{low: 0.0, high: 1.0}", (-1e-12,), (-2e-12,)),
    ],
)
def test_a_parameter_takes_its_steps_and_nothing_between_or_beyond(
    text: str, inside: tuple[Scalar, ...], outside: tuple[Scalar, ...]
) -> None:
    it = parameter(text)
    assert [v for v in inside if not it.contains(v)] == []
    assert [v for v in outside if it.contains(v)] == []


def test_a_configuration_between_two_steps_is_not_valid() -> None:
    space = parse("parameters: {x: {low: 10, high: 50, step: 20}}")
    assert space.is_valid({"x": 30}) and not space.is_valid({"x": 31})


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("{low: 2, high: 5}", [2, 3, 4, 5]),
        ("{low: 3, high: 20, log: true}", [3, 4, 8, 16, 20]),
        ("{low: 4, high: 16, log: true}", [4, 8, 16]),
        ("{low: 1, high: 1, log: true}", [1]),
        ("{low: 10, high: 55, step: 20}", [10, 30, 50]),
        ("{low: 0.0, high: 0.3, step: 0.1}", [0.0, 0.1, 0.2, 0.1 * 3]),
        ("{low: 1, high: 10, levels: 4}", [1, 4, 7, 10]),
        ("{low: 1, high: 10, levels: 3}", [1, 6, 10]),
        ("{low: 1.0, high: 9.0, levels: 1}", [1.0]),
        ("{low: 1, high: 1000, levels: 4, log: true}", [1, 10, 100, 1000]),
        ("{low: 2.0, high: 32.0, levels: 5, log: true}", [2.0, 4.0, 8.0, 16.0, 32.0]),
        ("{low: 0.0, high: 0.29, step: 0.1}", [0.0, 0.1, 0.2]),
        ("{low: -1, high: 2}", [-1, 0, 1, 2]),
        ("[3, 1, 2]", [3, 1, 2]),
    ],
)
def test_levels_are_these_numbers(text: str, levels: list[float]) -> None:
    found = parameter(text).levels()
    assert list(found) == pytest.approx(levels, rel=1e-12)
    assert [type(v) for v in found] == [type(v) for v in levels]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("{low: 1, high: 1024}", 1024), ("{low: 0, high: 1023, step: 1}", 1024),
        ("{low: 0.0, high: 1.0, levels: 1024}", 1024),
    ],
)
def test_as_many_as_1024_levels_are_enumerated(text: str, count: int) -> None:
    assert len(parameter(text).levels()) == count == spaces.MAX_LEVELS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{low: 1, high: 1025}", "1025 values are too many to enumerate; say step: or levels:"),
        ("{low: 0.0, high: 1024.0, step: 1}", "1025 steps are too many; say levels: N"),
        ("{low: 0.0, high: 1.0}", "a continuous range cannot be enumerated; say levels: N"),
    ],
)
def test_more_levels_are_refused_with_their_number(text: str, words: str) -> None:
    with pytest.raises(SpaceError, match=r"s\.yaml:2: parameters\.x: ") as caught:
        parameter(text).levels()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "is_discrete"),
    [
        ("[1, 2]", True), ("{low: 1, high: 9}", True), ("{low: 1, high: 9, log: true}", False),
        ("{low: 1, high: 9, levels: 3}", False), ("{low: 0.0, high: 1.0, step: 0.5}", True),
        ("{low: 0.0, high: 1.0}", False), ("{low: 0.0, high: 1.0, levels: 3}", False),
    ],
)
def test_levels_hold_every_value_of_a_list_steps_and_whole_numbers(
    text: str, is_discrete: bool
) -> None:
    assert parameter(text).is_discrete is is_discrete


def test_a_range_has_bounds_and_a_list_has_none() -> None:
    assert parameter("{low: 2, high: 7}").bounds == (2, 7)
    with pytest.raises(ValueError, match="x has choices, not a range"):
        _ = parameter("[1, 2]").bounds
    for half in (Parameter("x", "float", low=1.0), Parameter("x", "float", high=1.0)):
        with pytest.raises(ValueError):
            _ = half.bounds


@pytest.mark.parametrize(
    ("constraint", "value", "violation", "key"),
    [
        (Constraint("m", maximum=50), 75.0, 0.5, "m <= 50"),
        (Constraint("m", maximum=50), 25.0, -0.5, "m <= 50"),
        (Constraint("m", minimum=200), 50.0, 0.75, "m >= 200"),
        (Constraint("m", minimum=200), 300.0, -0.5, "m >= 200"),
        (Constraint("m", maximum=0.0), 0.25, 0.25, "m <= 0"),
        (Constraint("m", minimum=0.0), -0.25, 0.25, "m >= 0"),
        (Constraint("m", maximum=-4.0), -2.0, 0.5, "m <= -4"),
        (Constraint("m", minimum=-4.0), -8.0, 1.0, "m >= -4"),
    ],
)
def test_a_violation_is_relative_to_its_bound(
    constraint: Constraint, value: float, violation: float, key: str
) -> None:
    assert constraint.violation(value) == violation and constraint.key == key


def test_every_constraint_has_its_violation_and_what_was_not_measured_breaks_it_once() -> None:
    space = parse(
        "parameters: {x: [1]}\nconstraints: {latency_p99_ms: {max: 20}, throughput_rps: {min: 10}}"
    )
    assert space.violations({"latency_p99_ms": 30.0, "throughput_rps": None, "error_rate": 0.0}) == {
        "latency_p99_ms <= 20": 0.5, "throughput_rps >= 10": 1.0, "error_rate <= 0.01": -1.0,
    }
    assert list(space.violations({})) == [c.key for c in space.constraints]


def test_maximising_is_minimising_the_negative() -> None:
    assert Objective("a", "maximize").to_minimise(3.0) == -3.0
    assert Objective("a", "minimize").to_minimise(3.0) == 3.0


def test_what_a_space_says_of_nothing() -> None:
    assert Settings() == Settings(
        model="mobilenet_v2", requests="default", deployer="embedded", load="medium",
        pattern="poisson", clients=1, popularity="each_once", rows=1, min_duration_s=4.0,
        max_duration_s=10.0, precision=0.10, energy="auto", repeats=1, start_timeout_s=60.0,
    )
    space = parse("parameters: {x: [1]}")
    assert [(o.name, o.direction) for o in space.objectives] == [
        ("latency_p99_ms", "minimize"), ("energy_per_request_j", "minimize")
    ]
    assert [(c.metric, c.maximum, c.minimum) for c in space.constraints] == [
        ("error_rate", 0.01, None)
    ]


def test_levels_never_leave_the_range_by_rounding() -> None:
    for high in (3.0, 7.0, 10.0, 700.0):
        it = Parameter("x", "float", low=0.1, high=high, n_levels=7, log=True)
        assert all(0.1 <= level <= high for level in it.levels())


def grid(a: int, b: int, more: str = "") -> Space:
    return parse(f"parameters: {{a: {list(range(a))}, b: {list(range(b))}, c: [0]}}\n{more}")


def test_the_largest_space_that_is_counted_is_still_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (spaces.MAX_ENUMERATED, spaces.MAX_STEPS) == (200_000, 400_000)
    monkeypatch.setattr(spaces, "MAX_ENUMERATED", 200)
    assert grid(10, 20).size == 200 and grid(10, 20).is_finite
    assert grid(3, 67).size == 201 and not grid(3, 67).is_finite
    assert not parse("parameters: {x: {low: 1, high: 5000}}").is_finite


def test_so_many_ways_into_excluded_configurations_end_the_counting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spaces, "MAX_STEPS", 40)
    # Counted from nothing, the 41st way is the last that is gone.
    assert grid(41, 1, "exclude: [{c: 0}]").size == 0
    assert grid(42, 1, "exclude: [{c: 0}]").size == 200_001


def test_what_is_excluded_is_neither_valid_nor_enumerated() -> None:
    space = parse(
        "parameters: {a: [1, 2], b: [1, 2], c: {choices: [1, 2], when: {a: 2}}}\n"
        "exclude: [{b: 1, a: [1, 2], c: 2}, {b: 2, a: 1}]"
    )
    found = list(space.configurations())
    assert found == [
        {"a": 1, "b": 1}, {"a": 2, "b": 1, "c": 1}, {"a": 2, "b": 2, "c": 1},
        {"a": 2, "b": 2, "c": 2},
    ]
    assert space.size == 4
    assert not space.is_valid({"a": 1, "b": 2}) and not space.is_valid({"a": 2, "b": 1, "c": 2})
    assert not space.is_valid({"a": 1, "b": 1, "c": 1}) and not space.is_valid({"a": 2, "b": 1})


def test_a_fingerprint_is_the_first_16_digits_of_the_descriptions_hash() -> None:
    space = parse(
        "parameters:\n  a: [1, 2]\n  b: {low: 1, high: 9, step: 2, when: {a: 2}}\n"
        "  c: {low: 1.0, high: 8.0, log: true, levels: 4}\n"
        "fixed: {d: 1}\nfactors: {load: [light]}\nexclude: [{a: 1}]"
    )
    assert space.describe() == {
        "parameters": [
            {"name": "a", "kind": "categorical", "choices": [1, 2], "low": None, "high": None,
             "step": None, "log": False, "levels": None, "ordered": True, "when": {}},
            {"name": "b", "kind": "int", "choices": [], "low": 1, "high": 9, "step": 2.0,
             "log": False, "levels": None, "ordered": True, "when": {"a": [2]}},
            {"name": "c", "kind": "float", "choices": [], "low": 1.0, "high": 8.0, "step": None,
             "log": True, "levels": 4, "ordered": True, "when": {}},
        ],
        "objectives": [["latency_p99_ms", "minimize"], ["energy_per_request_j", "minimize"]],
        "constraints": ["error_rate <= 0.01"],
        "fixed": {"d": 1}, "factors": {"load": ["light"]}, "exclude": [{"a": [1]}],
    }
    text = json.dumps(space.describe(), sort_keys=True)
    assert space.fingerprint() == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert len(space.fingerprint()) == 16


def test_only_knobs_of_two_values_make_branches() -> None:
    space = parse(
        "parameters: {a: [1, 2], b: [1, 2, 3], c: {choices: [1, 2], when: {a: 2, b: 1}}, d: [1, 2]}"
    )
    assert space.deciding == ("a",) and space.conditional == ("c",)


def test_a_place_is_the_files_or_only_the_key() -> None:
    space = parse("parameters: {x: [1]}\nload: 5", file="s.yaml")
    assert space.place("load") == Where("s.yaml", 2, "load")
    assert space.place("rows") == Where("s.yaml", None, "rows")


def test_true_equals_neither_one_nor_its_float() -> None:
    assert spaces.same(1, 1.0) and spaces.same(True, True) and spaces.same("a", "a")
    assert not spaces.same(True, 1) and not spaces.same(0.0, False) and not spaces.same(1, 2)


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


def test_spaces_are_equal_wherever_they_were_read() -> None:
    here, there = (parse("parameters: {x: {low: 1, high: 3}}", file=f) for f in ("a.yaml", "b.yaml"))
    assert here == there
    assert here.parameters[0].where == Where("a.yaml", 1, "parameters.x")


def test_a_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    one = Space("s", (), fixed={"a": 1, "b": 2})
    other = Space("s", (), fixed={"b": 2, "a": 1})
    assert one.fingerprint() == other.fingerprint()
