"""Commands on stored studies that are unlike any study one hopes for: one line, never a traceback."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.study.conftest import measured
from tuner import store
from tuner.cli import main
from tuner.cli.pareto import limit
from tuner.measurement import Configuration, Failure, Measurement, Outcome
from tuner.space_file import parse

SPACE = """
name: odd
{more}
parameters:
  threads: {{values: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]}}
  batching: {{choices: [false, true]}}
"""
Answer = Callable[[Configuration, int], Outcome]


def source(outcome: Measurement, name: str) -> Measurement:
    assert outcome.energy is not None
    return dataclasses.replace(outcome, energy=dataclasses.replace(outcome.energy, source=name))


def failed(configuration: Configuration, number: int) -> Outcome:
    return Failure("crash", "the server ended", "log")


def ordinary(configuration: Configuration, number: int) -> Outcome:
    threads = int(configuration["threads"])
    return measured(100 / threads, threads * (0.2 if configuration["batching"] else 0.1))


def closed(configuration: Configuration, number: int) -> Outcome:
    """The same of clients that wait for their answers, without a rate."""
    told = ordinary(configuration, number)
    assert isinstance(told, Measurement)
    stage = dataclasses.replace(told.stage, pattern="closed", target_rate_rps=None)
    return dataclasses.replace(told, stage=stage)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., str]:
    def build(answer: Answer, count: int, more: str = "", name: str = "odd") -> str:
        space = parse(SPACE.format(more=more))
        file = tmp_path / f"{name}.db"
        study = store.Store.create(f"sqlite:///{file}", name, space, {"energy_method": "estimate"})
        for configuration in list(space.configurations())[:count]:
            number = study.start(configuration, space, {}, {})
            study.finish(number, answer(configuration, number), space)
        return str(file)

    return build


Printed = tuple[int, str, str]


@pytest.fixture
def tuner(capsys: pytest.CaptureFixture[str]) -> Callable[..., Printed]:
    def run(*arguments: str) -> Printed:
        code = main(list(arguments))
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err and (code == 0 or printed.err.count("\n") == 1)
        return code, printed.out, printed.err

    return run


THREE_OBJECTIVES = (
    "pattern: closed\nobjectives: [latency_p99_ms, energy_per_request_j, throughput_rps]"
)
COMMANDS = (
    ["pareto", "STUDY", "--json"], ["pareto", "STUDY"], ["importance", "STUDY"],
    ["model", "STUDY", "--repeats", "1", "--models", "tree"],
    ["transfer", "--source", "STUDY", "--target", "STUDY"], ["borrow", "STUDY", "STUDY"],
)


@pytest.mark.parametrize(
    ("answer", "count", "more"),
    [
        (failed, 3, ""),
        (ordinary, 0, ""),
        (ordinary, 1, ""),
        (lambda c, n: measured(10.0, 1.0), 11, ""),
        (lambda c, n: failed(c, n) if n % 2 else ordinary(c, n), 12, ""),
        (ordinary, 6, THREE_OBJECTIVES),
        (ordinary, 6, "objectives: [latency_p99_ms]\nconstraints:\n  energy_per_request_j: {max: 0.5}"),
        (ordinary, 6, "objectives: [latency_p99_ms]\nconstraints:\n  latency_p99_ms: {max: 1}"),
        (ordinary, 3, "objectives: [latency_p99_ms, energy_net_per_request_j]"),
    ],
    ids=["all failed", "no trial", "one trial", "constant", "half failed", "three objectives",
         "one objective", "none feasible", "objective not measured"],
)
def test_every_command_answers_an_odd_study_in_words(
    make: Callable[..., str], tuner: Callable[..., Printed], answer: Answer, count: int, more: str
) -> None:
    study = make(answer, count, more)
    for command in COMMANDS:
        code, out, err = tuner(*(study if word == "STUDY" else word for word in command))
        assert code in (0, 1, 2) and (err if code else out)
        if code == 1:  # nothing to choose from
            assert command[0] == "pareto" and "nothing feasible in odd" in err
        if "--json" in command and code < 2:
            assert "front" in json.loads(out)


def test_a_plot_of_three_objectives_or_into_nowhere_is_refused_in_one_line(
    make: Callable[..., str], tuner: Callable[..., Printed], tmp_path: Path
) -> None:
    three = make(ordinary, 4, THREE_OBJECTIVES)
    assert "two objectives" in tuner("pareto", three, "--plot", str(tmp_path / "p.png"))[2]
    two = make(ordinary, 4, name="two")
    assert tuner("pareto", two, "--plot", str(tmp_path / "no" / "p.png"))[0] == 2
    assert tuner("borrow", two, two, "--plot", str(tmp_path / "no" / "p.png"))[0] == 2


def test_pareto_refuses_trials_of_two_energy_sources_but_not_their_latencies(
    make: Callable[..., str], tuner: Callable[..., Printed]
) -> None:
    def mixed(configuration: Configuration, number: int) -> Outcome:
        told = ordinary(configuration, number)
        assert isinstance(told, Measurement)
        return source(told, "rapl") if number >= 2 else told

    code, _, error = tuner("pareto", make(mixed, 4))
    assert code == 2 and "source fake and rapl (trials 0-1 and 2-3)" in error
    latency = make(mixed, 4, "objectives: [latency_p99_ms]", name="latency")
    assert tuner("pareto", latency)[0] == 0
    for command in ("importance", "model"):
        code, _, error = tuner(command, f"{latency}:energy_per_request_j")
        assert code == 2 and "measured in different ways" in error


def test_transfer_and_borrow_refuse_studies_of_two_energy_sources(
    make: Callable[..., str], tuner: Callable[..., Printed]
) -> None:
    one = make(ordinary, 4)
    other = make(lambda c, n: source(ordinary(c, n), "rapl"), 4, name="other")  # type: ignore[arg-type]
    energy = "energy_per_request_j"
    for command in (["transfer", "--source", f"{one}:{energy}", "--target", f"{other}:{energy}"],
                    ["transfer", "--all", f"{one}:{energy}", f"{other}:{energy}"],
                    ["borrow", one, other]):
        code, _, error = tuner(*command)
        assert code == 2 and "different ways: source fake and rapl" in error
    assert tuner("transfer", "--source", one, "--target", other)[0] == 0
    assert tuner("borrow", one, other, "--objectives", "latency_p99_ms")[0] == 0


def test_pareto_and_export_use_repeats_and_the_longer_measurement(
    make: Callable[..., str], tuner: Callable[..., Printed]
) -> None:
    file = make(ordinary, 2)  # one thread, without and with batching: the first is better
    space = parse(SPACE.format(more=""))
    study = store.open_study(file)
    for _ in range(2):
        number = study.start({"threads": 1, "batching": False}, space, {}, {})
        study.finish(number, measured(70.0, 0.1), space)
    found = json.loads(tuner("pareto", file, "--json")[1])
    (member,) = found["front"]
    assert (member["trial"], member["trials"], member["repeats"]) == (0, [0, 2, 3], 3)
    assert member["metrics"]["latency_p99_ms"] == pytest.approx(80)
    assert found["trials"] | {"finished": 4, "configurations": 2} == found["trials"]
    metrics: dict[str, Any] = {**member["metrics"], "latency_p99_ms": 90.0}
    study.put("measured_again", [{
        "trial": 2, "window_s": 60.0, "metrics": metrics, "violations": {"error_rate <= 0.01": -1},
        "intervals": {"latency_p99_ms": [88.0, 92.0]},
    }])
    (member,) = json.loads(tuner("pareto", file, "--json")[1])["front"]
    assert (member["trial"], member["measured_again_s"]) == (2, 60.0)
    assert member["metrics"]["latency_p99_ms"] == 90
    assert "trial 2: values of its longer measurement (1 min" in tuner("pareto", file)[1]


def test_a_net_energy_that_cannot_be_told_from_nothing_fails_with_its_reason(
    make: Callable[..., str], tuner: Callable[..., Printed]
) -> None:
    def quiet(configuration: Configuration, number: int) -> Outcome:
        told = ordinary(configuration, number)
        assert isinstance(told, Measurement) and told.energy is not None
        energy = dataclasses.replace(told.energy, idle_w=9.0, net_j=-0.2 if number else 12.0)
        return dataclasses.replace(told, energy=energy)

    file = make(quiet, 3, "objectives: [latency_p99_ms, energy_net_per_request_j]")
    found = json.loads(tuner("pareto", file, "--json")[1])
    assert found["trials"]["failed"] == {"energy_unresolved": 2}
    assert [m["trial"] for m in found["front"]] == [0]
    assert "-0.2 J above idle" in store.load_records(file)[1].message


def test_pareto_takes_other_objectives_limits_and_a_reference(
    make: Callable[..., str], tuner: Callable[..., Printed], tmp_path: Path
) -> None:
    """Threads 1, 2, 3 without and with batching: p99 100, 50, 33 ms, 0.1 or 0.2 J a thread."""
    file = make(closed, 6, "pattern: closed")
    own = json.loads(tuner("pareto", file, "--json")[1])
    assert own["hypervolume"]["reference"] == pytest.approx(
        {"latency_p99_ms": 100, "energy_per_request_j": 0.6}
    )
    assert own["hypervolume"]["value"] == pytest.approx(50 / 3 * 0.3 + 50 * 0.4)
    told = ["pareto", file, "--objectives", "energy_per_request_j,latency_p99_ms,throughput_rps",
            "--limit", "latency_p99_ms<=60", "--limit", "throughput_rps >= 10"]
    found = json.loads(tuner(*told, "--json", "--reference", "1,100,0")[1])
    assert [m["trial"] for m in found["front"]] == [2, 4]
    assert [(o["name"], o["direction"]) for o in found["objectives"]] == [
        ("energy_per_request_j", "minimize"), ("latency_p99_ms", "minimize"),
        ("throughput_rps", "maximize"),
    ]
    assert found["limits"] == ["latency_p99_ms <= 60", "throughput_rps >= 10"]
    assert found["hypervolume"]["value"] == pytest.approx(25 * (0.8 * 50 + 0.7 * 50 / 3))
    printed = tuner(*told)[1]
    assert "within latency_p99_ms <= 60, throughput_rps >= 10" in printed
    assert "hypervolume: " in printed and "reference point energy_per_request_j 0.6" in printed
    none = tuner("pareto", file, "--limit", "latency_p99_ms<=1")[1]
    assert "No trial is within latency_p99_ms <= 1" in none
    empty = json.loads(tuner("pareto", file, "--limit", "latency_p99_ms<=1", "--json")[1])
    assert empty["hypervolume"] == {"value": None, "reference": None}
    plot = tmp_path / "two.png"
    two = ["--objectives", "latency_p99_ms,throughput_rps", "--plot", str(plot)]
    assert tuner("pareto", file, *two)[0] == 0 and plot.stat().st_size > 5_000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--objectives", "latency_p42_ms"], "'latency_p42_ms'"),
        (["--limit", "latency_p42_ms<=1"], "'latency_p42_ms'"),
        (["--limit", "foo<=3"], "a study holds latency_p50_ms (p50 latency, ms), "),
        (["--limit", "latency_p99_low_ms<=3"], "there is no metric 'latency_p99_low_ms'"),
        (["--limit", "feasible>=1"], "error_rate (share of requests in error), "),
        (["--reference", "1"], "1 numbers, there are 2 objectives"),
        (["--limit", "latency_p99_ms>=20"],
         "refuses the best values: a lower latency_p99_ms is better; say latency_p99_ms <= …"),
        (["--limit", "throughput_rps<=20"], "say throughput_rps >= …"),
        (["--limit", "throughput_rps>=25.1"], "25.1 requests/s where the open loop offers 25"),
        (["--objectives", "latency_p99_ms,throughput_rps"],
         "the throughput of an open loop (25 requests/s in odd) is its rate"),
    ],
)
def test_wrong_use_of_pareto_ends_in_one_line(
    make: Callable[..., str], tuner: Callable[..., Printed], arguments: list[str], says: str
) -> None:
    code, _, error = tuner("pareto", make(ordinary, 2), *arguments)
    assert code == 2 and says in error


@pytest.mark.parametrize("text", ["latency_p99_ms=5", "latency_p99_ms<=nan", "<=5", "a<=b"])
def test_a_limit_that_is_none_says_what_one_looks_like(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="like 'latency_p99_ms<=50'"):
        limit(text)


@pytest.mark.parametrize(("count", "told"), [(9, False), (10, True)])
def test_borrow_says_on_how_many_configurations_it_rests_and_tells_from_ten_on(
    make: Callable[..., str], tuner: Callable[..., Printed], count: int, told: bool
) -> None:
    one, other = make(ordinary, count, name="one"), make(ordinary, count, name="other")
    code, out, _ = tuner("borrow", one, other, "--json")
    assert code == 0
    document = json.loads(out)
    for pair in document["pairs"]:
        assert pair["common"] == count
        assert bool(pair["front"]) is (pair["on_front_share"] is not None) is told
        for price in pair["price"].values():
            assert (price["regret_pct"] is not None) is told
            assert price["configurations"] == count
    for rows in document["correlation"].values():
        assert [(row["configurations"], row["pearson"] is not None) for row in rows] == [
            (count, told)
        ]
    code, out, _ = tuner("borrow", one, other)
    assert code == 0
    assert ("fewer than 10 configurations are valid in both" in out) is not told
