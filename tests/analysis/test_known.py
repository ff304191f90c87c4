"""What is known of a configuration, as text and JSON: disturbed, refuted, missed, listed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tests.study.conftest import measured
from tuner import store
from tuner.cli import main
from tuner.space_file import parse

SPACE = """
name: known
constraints: {latency_p99_ms: {max: 20}}
parameters: {num_batch_threads: {values: [1, 2, 3, 4, 5]}}
"""
NUMBERS = [(5.29, 1.0), (9.0, 0.8), (9.3, 0.7), (18.0, 0.5), (40.0, 0.1)]
WORDS = "other work used 64 % of the machine in the measured window"

DRIFT = "latencies drifted inside the window: median 9 ms in its first half, 12 ms in its second"


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Five trials: the second disturbed, the third without an upper bound, the last beyond the limit."""
    space, path = parse(SPACE), tmp_path / "known.db"
    study = store.Store.create(f"sqlite:///{path}", "known", space, {"energy_method": "estimate"})
    for place, (configuration, numbers) in enumerate(zip(space.configurations(), NUMBERS)):
        told = measured(*numbers)
        changed = {1: {"details": {"disturbed": WORDS, "drift": DRIFT,
                               "percentile_rule": "ceiling"}},
                   2: {"latency_p99_interval_ms": (8.0, None)}}.get(place, {})
        told = dataclasses.replace(told, stage=dataclasses.replace(told.stage, **changed))  # type: ignore[arg-type]
        study.finish(study.start(configuration, space, {}, {}), told, space)
    return str(path)


def measure_again(file: str) -> None:
    store.open_study(file).put("measured_again", [{
        "trial": 0, "window_s": 60.0, "requests": 1500, "violations": {"latency_p99_ms <= 20": 4.1},
        "metrics": {"latency_p99_ms": 102.0, "energy_per_request_j": 1.1, "error_rate": 0.0},
        "intervals": {"latency_p99_ms": [65, 210]}, "target_rate_rps": 25.0, "drift": DRIFT,
        "memory_peak_mb": 700, "batch_rows_mean": 2.5, "percentile_rule": "ceiling",
    }])


def test_a_later_measurement_that_refutes_an_answer_is_told_and_chooses_anew(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pareto", file]) == 0
    assert "choice: trial 0, since" in capsys.readouterr().out
    measure_again(file)
    assert main(["pareto", file]) == 0
    printed = capsys.readouterr().out
    assert ("trial 0 left the front: latency_p99_ms 5.29 ms [4.76–5.82] in the study, 102 ms [65–210] "
            "measured again") in printed
    assert "beyond latency_p99_ms <= 20 now" in printed
    assert "choice: trial 2, since" in printed and "2 are within 5 % of the least" in printed
    assert main(["pareto", file, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["choice"]["trial"] == 2 and not found["choice"]["keeps_every_limit"]
    (told,) = found["measured_again"]
    assert told["left"] and told["metrics"]["latency_p99_ms"]["now"] == [102, 65, 210]


def test_a_shorter_measurement_is_told_by_its_own_value_and_then_what_is_known_of_all(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store.open_study(file).put("measured_again", [{
        "trial": 0, "window_s": 3.0, "requests": 75, "violations": {},
        "metrics": {"latency_p99_ms": 12.0, "energy_per_request_j": 1.0, "error_rate": 0.0},
        "intervals": {"latency_p99_ms": [11, None]},
    }])
    assert main(["pareto", file]) == 0
    told = "latency_p99_ms 5.29 ms [4.76–5.82] in the study, 12 ms [11–?] measured again, 8.64 ms ["
    assert told in (printed := capsys.readouterr().out) and "of all 2" in printed


def test_a_disturbed_measurement_leaves_what_is_known_undisturbed_and_is_told(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    measure_again(file)
    (entry,) = store.open_study(file).get("measured_again")
    store.open_study(file).put("measured_again", [{**entry, "disturbed": WORDS}])
    assert main(["pareto", file]) == 0
    printed = capsys.readouterr().out
    assert "choice: trial 0, since" in printed and "left the front" not in printed
    assert ("1 disturbed measurement left out beside undisturbed ones of the same configuration: trial 0"
            in printed)
    assert "trial 0 was measured again, disturbed by other work: left out" in printed
    assert main(["pareto", file, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    front = {member["trial"]: member for member in found["front"]}
    assert front[0]["metrics"]["latency_p99_ms"] == 5.29 and front[0]["disturbed_left_out"] == [WORDS]
    assert front[0]["measured_again"] == 0 and found["measured_again"] == []


def test_disturbed_trials_open_ends_and_limits_are_in_text_and_json(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pareto", file]) == 0
    printed = capsys.readouterr().out
    assert f"1 of 5 trials were disturbed by other work (marked !), as: {WORDS}" in printed
    assert "9.3 [8–?]" in printed and "P(latency_p99_ms <= 20)" in printed
    assert main(["pareto", file, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    front = {member["trial"]: member for member in found["front"]}
    assert f"trial 1: {DRIFT}" in printed and found["trials"]["drifted"] == {"1": DRIFT}
    assert found["trials"]["disturbed"] == 1 and front[1]["disturbed"] == [WORDS]
    assert front[2]["latency_p99_interval_ms"] == [8.0, None]
    limit, errors = front[0]["limits"]
    assert limit["limit"] == "latency_p99_ms <= 20" and limit["probability"] == pytest.approx(1)
    assert errors["probability"] == pytest.approx(0.84426, abs=1e-4) and not errors["assumed"]
    assert front[2]["limits"][0]["assumed"] and not front[2]["certain"]
    assert front[0]["p99_by_former_rank_rule"][0]["requests"] == 100
    assert front[1]["p99_by_former_rank_rule"] == []


def test_where_nothing_is_feasible_the_nearest_misses_are_shown_and_the_exit_code_is_one(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pareto", file, "--limit", "latency_p99_ms<=3"]) == 1
    printed = capsys.readouterr()
    assert "nothing feasible in known" in printed.err
    lines = printed.out.partition("Nearest misses:\n")[2].splitlines()
    assert [line.split(":")[0].strip() for line in lines[:5]] == [
        "trial 0", "trial 1!", "trial 2", "trial 3", "trial 4"]
    assert lines[5].startswith("P(latency_p99_ms <= 20) marked ?: no upper bound is known")
    assert "latency_p99_ms 5.29 [4.76–5.82] (limit <= 3, P <0.1%)" in lines[0]
    # The third has no upper bound, which says nothing of what lies below its value; at 9.8 it does.
    assert main(["pareto", file, "--limit", "latency_p99_ms<=9.8", "--limit",
                 "power_average_w<=2"]) == 1
    missed = capsys.readouterr().out.partition("Nearest misses:\n")[2]
    assert "9.3 [8–?] (limit <= 9.8, P 69%?); power_average_w 17.5 (limit <= 2, P ?)" in missed
    assert main(["pareto", file, "--limit", "latency_p99_ms<=3", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["front"] == [] and found["choice"] is None
    assert [miss["trial"] for miss in found["nearest_misses"]] == [0, 1, 2, 3, 4]


def test_every_trial_is_listed_with_what_was_offered_and_what_disturbed_it(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    measure_again(file)
    assert main(["pareto", file, "--all", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["all_trials"]
    assert [(r["trial"], r["measured_again"]) for r in rows] == [
        (0, False), (1, False), (2, False), (3, False), (4, False), (0, True)]
    assert (rows[1]["offered_rps"], rows[1]["requests"], rows[1]["window_s"]) == (25, 100, 4)
    assert rows[1]["drift"] == DRIFT and rows[0]["drift"] is None
    assert rows[1]["disturbed"] == WORDS and rows[1]["configuration"] == {"num_batch_threads": 2}
    assert rows[2]["intervals"]["latency_p99_ms"] == [8.0, None]
    assert [r["feasible"] for r in rows] == [True, True, True, True, False, False]
    again = rows[5]
    assert (again["offered_rps"], again["requests"], again["window_s"]) == (25, 1500, 60)
    assert (again["drift"], again["memory_peak_mb"], again["batch_rows_mean"]) == (DRIFT, 700, 2.5)
    assert again["percentile_rule"] == "ceiling"
    assert main(["pareto", file, "--all"]) == 0
    printed = capsys.readouterr().out
    (line,) = [one for one in printed.splitlines() if one.startswith("0 again")]
    assert all(part in line for part in (" 25 ", " 700 ", " 2.5 ", " drifted "))


def test_a_limit_of_whose_metric_no_error_is_known_is_never_called_sure(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["pareto", file, "--limit", "power_average_w<=30"]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert ("no configuration is known to keep every limit with 90 % (this one: power_average_w <= 30 "
            "unknown, the others 84%)") in printed
    assert "P(power_average_w <= 30) is ? where nothing is known of the error" in printed
    (line,) = [one for one in printed.splitlines() if one.startswith("P(power_average_w <= 30)  ")]
    assert set(line.split()[3:]) == {"?"}
    (line,) = [one for one in printed.splitlines() if one.startswith("P(front)")]
    assert all(told.endswith("?") for told in line.split()[1:])
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    limit = found["front"][0]["limits"][0]
    assert limit == {"limit": "power_average_w <= 30", "probability": None, "assumed": True}
    assert found["front"][0]["limits_probability"] is None
    assert found["choice"]["limits_probability"] is None and not found["choice"]["keeps_every_limit"]
