"""A wrong space file ends in one line that names file, line and key, and what would be right."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.errors import SpaceError
from tuner.measurement import METRICS
from tuner.space_file import find, parse, read

BAD = [
    # text, line, key, a word of the advice
    ("parameters: {x: [1]}\nparamters: {}", 2, "paramters", "parameters"),
    ("parameters:\n  x: {lo: 1, high: 2}", 2, "parameters.x.lo", "low"),
    ("parameters:\n  x: {low: one, high: 2}", 2, "parameters.x.low", "number"),
    ("parameters:\n  x: {low: 9, high: 2}", 2, "parameters.x.low", "swap"),
    ("parameters:\n  x: {low: 0, high: 2, log: true}", 2, "parameters.x.low", "above 0"),
    ("parameters:\n  x: {low: 1}", 2, "parameters.x", "high"),
    ("parameters:\n  x: {choices: []}", 2, "parameters.x.choices", "empty"),
    ("parameters:\n  x: {choices: [1, 1]}", 2, "parameters.x.choices[1]", "twice"),
    ("parameters:\n  x: {choices: [1], low: 1}", 2, "parameters.x.low", "choices"),
    ("parameters:\n  x: {values: [2, 1]}", 2, "parameters.x.values", "rise"),
    ("parameters:\n  x: {values: [a]}", 2, "parameters.x.values", "choices"),
    ("parameters:\n  x: [1]\n  x: [2]", 3, "parameters.x", "twice"),
    ("parameters:\n  x:\n    choices: [1]\n    when: {y: 1}", 4, "parameters.x.when.y", "parameter"),
    ("parameters:\n  y: [1]\n  x:\n    choices: [1]\n    when: {y: 2}", 5, "parameters.x.when.y", "2"),
    ("parameters:\n  x: {choices: [1], when: {x: 1}}", 2, "parameters.x.when.x", "itself"),
    ("parameters: {x: [1]}\nload: hard", 2, "load", "light"),
    ("parameters: {x: [1]}\nload: -3", 2, "load", "above 0"),
    ("parameters: {x: [1]}\nobjectives: [speed]", 2, "objectives[0]", "latency_p99_ms"),
    ("parameters: {x: [1]}\nconstraints:\n  error_rate: {most: 1}", 3,
     "constraints.error_rate.most", "max"),
    ("parameters: {x: [1]}\nfixed: {x: 1}", 2, "fixed.x", "parameter"),
    ("parameters: {x: [1]}\nfactors: {x: [1]}", 2, "factors.x", "load"),
    ("parameters: {x: [1]}\nexclude: [{x: 7}]", 2, "exclude[0].x", "7"),
    ("parameters: {x: [1]}\nrepeats: 0", 2, "repeats", "at least 1"),
    ("parameters: {x: [.nan]}", 1, "parameters.x[0]", "finite"),
    ("parameters: {x: [2024-01-01]}", 1, "parameters.x[0]", "number"),
    ("parameters: {x: [1]}\nmin_duration_s: 9\nmax_duration_s: 3", 2, "min_duration_s", "above"),
    ("parameters: {x: [1]}\nconstraints:\n  error_rate: {max: 5}", 3,
     "constraints.error_rate.max", "share"),
    ("parameters: {x: [1]}\nconstraints:\n  latency_p99_ms: {max: -5}", 3,
     "constraints.latency_p99_ms.max", "above 0"),
    ("parameters: {x: [1]}\nconstraints:\n  throughput_rps: {min: 9, max: 5}", 3,
     "constraints.throughput_rps.min", "both"),
    ("parameters:\n  x: {low: 1, high: 8, step: 100}", 2, "parameters.x.step", "larger"),
    (("parameters:\n  a: [1, 2]\n  b: {choices: [1], when: {a: 1}}\n"
     "  c: {choices: [1], when: {b: 1, a: 2}}"), 4, "parameters.c.when", "never hold"),
    ("parameters: {'../x': [1]}", 1, "parameters.../x", "letters"),
    ("parameters: {x: [1]}\nname: ../../etc", 2, "name", "letters"),
    ("parameters: {x: [!!bool maybe]}", 1, "parameters.x[0]", "bool"),
    ("parameters: {x: [!!int '']}", 1, "parameters.x[0]", "int"),
    ("parameters: {x: [!!float '']}", 1, "parameters.x[0]", "float"),
    ('parameters: {x: ["\\UFFFFFFFF"]}', None, None, "escape"),
    ('parameters: {x: ["\\U00110000"]}', None, None, "escape"),
    ('parameters: {x: ["\\uD800"]}', 1, "parameters.x[0]", "printable"),
    ('parameters: {x: [1]}\nmodel: "a\\0b"', 2, "model", "printable"),
    ('parameters: {x: [1]}\nrequests: "a\\nb"', 2, "requests", "printable"),
    ("parameters:\n  x: {low: 0, high: 1.0e+300, step: 1.0e-300}", 2, "parameters.x.step", "small"),
    ("parameters:\n  x: {low: -1.0e+308, high: 1.0e+308}", 2, "parameters.x.low", "wide"),
    ("parameters: {x: [1]}\nobjectives: [latency_p99_ms, throughput_rps]", 2, "objectives[1]",
     "pattern: closed and clients"),
    ("parameters: {x: [1]}\npattern: burst\nobjectives: [throughput_rps: maximize]", 3,
     "objectives[0]", "open loop (burst)"),
    ("parameters: {x: [1]}\nobjectives: [latency_p99_ms: maximize]", 2,
     "objectives[0].latency_p99_ms", "say minimize"),
    ("parameters: {x: [1]}\npattern: closed\nobjectives: [throughput_rps: minimize]", 3,
     "objectives[0].throughput_rps", "say maximize"),
    ("parameters: {x: [1]}\npattern: closed\nload: 50", 3, "load", "clients: N instead"),
    ("parameters: {x: [1]}\nload: medium\npattern: closed", 2, "load", "clients: N instead"),
    ("parameters: {x: [1]}\npattern: closed\nfactors: {load: [1, 2]}", 3, "factors.load",
     "clients: N instead"),
    ("parameters: {x: [1]}\nclients: 4", 2, "clients", "pattern: closed only"),
    ("parameters: {x: [1]}\npattern: closed\nclients: 0", 3, "clients", "at least 1"),
    ("parameters: {x: [1]}\nconstraints:\n  latency_p99_ms: {min: 20}", 3,
     "constraints.latency_p99_ms.min", "say max:"),
    ("parameters: {x: [1]}\nconstraints:\n  power_average_w: {max: 9, min: 2}", 3,
     "constraints.power_average_w.min", "say max:"),
    ("parameters: {x: [1]}\nconstraints:\n  error_rate: {min: 0.5}", 3,
     "constraints.error_rate.min", "say max:"),
    ("parameters: {x: [1]}\nconstraints:\n  throughput_rps: {max: 100}", 3,
     "constraints.throughput_rps.max", "say min:"),
    ("parameters: {x: [1]}\nload: 20\nconstraints:\n  throughput_rps: {min: 21}", 4,
     "constraints.throughput_rps", "21 requests/s where the open loop offers 20"),
    ("parameters: {x: [1]}\nfactors: {load: [9, 50]}\nconstraints:\n  throughput_rps: {min: 21}", 4,
     "constraints.throughput_rps", "offers 9"),
    ("- 1\n- 2", 1, None, "mapping"),
    ("a: &a [1]\nparameters: {x: *a}", 2, None, "alias"),
    ("parameters: {x: [1}", 1, None, "YAML"),
    ("", None, None, "empty"),
]


@pytest.mark.parametrize(("text", "line", "key", "advice"), BAD, ids=[b[0][:40] for b in BAD])
def test_a_mistake_is_named_with_its_place(
    text: str, line: int | None, key: str | None, advice: str
) -> None:
    with pytest.raises(SpaceError) as caught:
        parse(text, file="s.yaml")
    error = caught.value
    assert (error.file, error.line, error.key) == ("s.yaml", line, key)
    assert advice in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("more", ["load: 20\n", "load: high\n", "pattern: closed\n"])
def test_a_throughput_that_the_load_may_reach_is_a_limit(more: str) -> None:
    text = f"parameters: {{x: [1]}}\n{more}constraints: {{throughput_rps: {{min: 20}}}}"
    assert "throughput_rps >= 20" in [c.key for c in parse(text).constraints]


CLOSED = "parameters: {x: [1]}\npattern: closed\nobjectives: [throughput_rps]\n"


def test_the_most_throughput_of_a_closed_loop_is_a_question() -> None:
    space = parse(CLOSED + "clients: 8\nconstraints: {latency_p99_ms: {max: 50}}")
    assert space.settings.is_closed and space.settings.clients == 8
    assert [o.direction for o in space.objectives] == ["maximize"]
    assert parse(CLOSED).settings.clients == 1
    assert not parse("parameters: {x: [1]}").settings.is_closed


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_is_limited_on_one_side_only(metric: str) -> None:
    def limited(side: str) -> str:
        return f"parameters: {{x: [1]}}\nconstraints: {{{metric}: {{{side}: 0.5}}}}"

    right, wrong = ("max", "min") if METRICS[metric].direction == "minimize" else ("min", "max")
    assert metric in [c.metric for c in parse(limited(right)).constraints]
    with pytest.raises(SpaceError, match=f"say {right}:"):
        parse(limited(wrong))


def test_what_was_asked_before_it_was_refused_stays_readable() -> None:
    text = "parameters: {x: [1]}\nobjectives: [throughput_rps]\nconstraints: {latency_p99_ms: {min: 2}}"
    assert parse(text, stored=True).constraints[0].minimum == 2
    assert parse(CLOSED + "load: 50", stored=True).settings.load == 50


def test_conditions_that_lead_back_to_themselves_are_refused() -> None:
    with pytest.raises(SpaceError, match="leads back"):
        parse("parameters: {a: {choices: [1], when: {b: 1}}, b: {choices: [1], when: {a: 1}}}")


def test_a_missing_file_names_the_shipped_spaces() -> None:
    with pytest.raises(SpaceError, match=r"nope: no such file.*batching"):
        read("nope")


def test_a_shipped_space_is_found_by_name_with_or_without_its_ending() -> None:
    assert find("batching") == find("batching.yaml")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpaceError, match="UTF-8"):
        read(file)


def test_python_objects_are_not_built() -> None:
    with pytest.raises(SpaceError):
        parse("parameters: {x: [!!python/object/apply:os.system ['true']]}")


PIECES = [
    "!!bool", "!!int", "!!float", "!!str", "!!null", "!!binary", "!!timestamp", "!x", "maybe", "yes",
    "''", '""', "0x", "0b2", "-", "+", "1:2", "1_0", "_", ".inf", "1e999", "9" * 5000, "~", "=", "<<",
    '"\\UFFFFFFFF"', '"\\U00110000"', '"\\uD800"', '"\\0"', '"\\x"', "[", "]", "{", "}", ",", ":", "\n",
    "low: 0,", "high: 1.0e+300,", "step: 1.0e-300", "? ", "- ", "&a", "*a", "|", ">", "#", "%", "@", "`",
]


@settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.text(alphabet="parmetsx:{}[]-,&*!'\"|>#%\n 0123456789.e", max_size=120)
    # What reaches the values: tags, escapes, numbers that nearly are some.
    | st.lists(st.sampled_from(PIECES), max_size=6).map(lambda p: "parameters: {x: " + " ".join(p))
    | st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map(
        lambda p: "parameters: {x: [" + " ".join(p) + "]}"
    )
)
def test_any_text_is_read_or_refused_but_never_breaks(text: str) -> None:
    try:
        parse(text)
    except SpaceError as error:
        assert "\n" not in str(error)


NUMBERS = st.integers(-3, 12) | st.floats(-2, 9) | st.sampled_from([0, 1, 2**61, 1e300, 1e-300])
TEXTS = st.sampled_from([
    "a", "b", "", "'; DROP TABLE trials; --", "../x", "$(touch pwned)", "a\nb", "a\0b", "\ud800",
    "zipf:1.1", "zipf:1e999", "each_once", "poisson", "fake", "throughput_rps",
]) | st.text(max_size=8)
SCALARS = NUMBERS | st.booleans() | TEXTS
NAMES = st.sampled_from(["a", "b", "c", "d", "../../etc/passwd", "$(id)", "a b", "é", "x" * 65])
VALUES = st.lists(SCALARS, max_size=4)


@st.composite
def parameter(draw: st.DrawFn) -> object:
    """A parameter as users write them, right or wrong."""
    keys = {
        "choices": VALUES, "values": VALUES, "low": NUMBERS, "high": NUMBERS, "step": NUMBERS,
        "levels": st.integers(-1, 2000), "log": st.booleans(), "type": st.sampled_from(["int", "x"]),
        "when": st.dictionaries(NAMES, SCALARS | VALUES, max_size=2),
    }
    shape = draw(st.sampled_from([("choices",), ("values",), ("low", "high"), ("low", "high", "step"),
                                  ("low", "high", "log", "levels"), ("low", "choices"), ()]))
    more = draw(st.sampled_from([(), ("when",), ("type",), ("when", "step")]))
    return {key: draw(keys[key]) for key in (*shape, *more)}


SPACES = st.fixed_dictionaries(
    {"parameters": st.dictionaries(NAMES, parameter() | VALUES, max_size=4)},
    optional={
        "exclude": st.lists(st.dictionaries(NAMES, SCALARS | VALUES, max_size=2), max_size=2),
        "constraints": st.dictionaries(
            st.sampled_from(["error_rate", "latency_p99_ms", "x"]),
            st.dictionaries(st.sampled_from(["max", "min", "most"]), SCALARS, max_size=2), max_size=2,
        ),
        "factors": st.dictionaries(st.sampled_from(["load", "other_models", "a"]), VALUES, max_size=2),
        "fixed": st.dictionaries(NAMES, SCALARS, max_size=2),
        "objectives": st.lists(
            TEXTS | st.dictionaries(TEXTS, st.sampled_from(["minimize", "maximize", "x"]), max_size=2),
            max_size=3,
        ) | SCALARS,
        **{key: SCALARS | VALUES for key in (
            "name", "repeats", "duration_s", "load", "model", "requests", "energy", "deployer",
            "pattern", "popularity", "rows", "precision", "start_timeout_s", "min_duration_s",
        )},
    },
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SPACES)
def test_any_space_is_refused_in_one_line_or_usable(space: dict[str, object]) -> None:
    try:
        found = parse(yaml.safe_dump(space, sort_keys=False), file="s.yaml")
        list(itertools.islice(found.configurations(), 50))
    except SpaceError as error:
        assert "\n" not in str(error) and str(error).startswith("s.yaml")
        return
    assert found.size >= 0 and isinstance(found.is_finite, bool)
    json.dumps(found.describe(), allow_nan=False)
    assert json.dumps(dataclasses.asdict(found.settings), allow_nan=False).encode("utf-8")
    assert found.settings.model.isprintable() and found.settings.requests.isprintable()
    for configuration in itertools.islice(found.configurations(), 50):
        assert found.is_valid(configuration)
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", found.name) and not found.name.startswith(".")
    assert all(re.fullmatch(r"[A-Za-z0-9_]+", p.name) for p in found.parameters)


def test_a_space_that_excludes_everything_is_counted_at_once() -> None:
    many = "".join(f"  k{i}: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n" for i in range(20))
    text = f"parameters:\n{many}exclude: [{{k19: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}}]\n"
    begun = time.monotonic()
    assert not parse(text).is_finite
    assert time.monotonic() - begun < 20


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(SpaceError):
        parse("parameters: {x: " + "[" * 5000 + "]" * 5000 + "}")


def test_a_list_without_end_is_refused() -> None:
    with pytest.raises(SpaceError, match="too long"):
        parse("parameters: {x: [" + ", ".join(map(str, range(5000))) + "]}")
