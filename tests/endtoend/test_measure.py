"""A trial of a study is deployed again and measured longer, where it was measured and only there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.endtoend.conftest import SMALL, Tuner
from tests.metronome import in_time
from tuner import store
from tuner.cli import _evaluator, main, pareto
from tuner.measurement import Failure

FACTORS = SMALL + "factors: {load: [60, 250]}\n"
LEVEL = "small@load=250"


@pytest.fixture(scope="module")
def tuner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuner]:
    """A folder with a study of one configuration at two loads."""
    folder = tmp_path_factory.mktemp("measure")
    (folder / "small.yaml").write_text(FACTORS)
    runner = Tuner(folder)
    done = runner.run(
        "study", "--space", "small.yaml", "--trials", "1", "--seed", "3", "--sampler", "random"
    )
    assert done.returncode == 0, done.stderr
    # The study must stand on its own: what it was made from may change.
    (folder / "small.yaml").unlink()
    yield runner
    runner.end()


@pytest.fixture
def file(tuner: Tuner) -> Path:
    return tuner.folder / "studies" / "small.db"


@contextmanager
def changed(file: Path, key: str, change: Callable[[Any], Any]) -> Iterator[None]:
    """The level's study with one of its attributes changed for a while."""
    study = optuna.load_study(study_name=LEVEL, storage=f"sqlite:///{file}")
    before = study.user_attrs[key]
    study.set_user_attr(key, change(before))
    try:
        yield
    finally:
        study.set_user_attr(key, before)


def measure(tuner: Tuner, *arguments: str) -> Any:
    command = ("measure", LEVEL, "--storage", "sqlite:///studies/small.db", "--trial", "0")
    return in_time(
        lambda: tuner.run(*command, *arguments), lambda done: "client_limited" in done.stderr
    )


def assert_refused(tuner: Tuner, *words: str) -> None:
    done = measure(tuner, "--max-duration", "1s")
    assert done.returncode == 2, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("tuner: ")]
    assert len(told) == 1 and "Traceback" not in done.stderr
    for word in words:
        assert word in told[0]


def test_it_measures_the_trials_configuration_at_its_level_and_keeps_it_beside_the_trial(
    tuner: Tuner, file: Path
) -> None:
    before = store.open_study(f"{file}:{LEVEL}")
    trial, folder = before.records()[0], tuner.folder / "studies" / "small.artifacts"
    samples = (folder / "00000-250.0" / "samples.npz").read_bytes()
    done = measure(tuner, "--max-duration", "2s", "--precision", "0.001", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["trial"], found["target_rate_rps"], found["seed"]) == (0, 250.0, 3)
    assert found["window_s"] == pytest.approx(2.0, abs=0.3) and not found["precise"]
    low, high = found["latency_p99_interval_ms"]
    p99 = found["metrics"]["latency_p99_ms"]
    assert 0 < low <= p99 and (high is None or p99 <= high)
    assert found["metrics"]["throughput_rps"] == pytest.approx(250, rel=0.25)
    assert found["metrics"]["energy_per_request_j"] > 0 and found["energy_source"]

    after = store.open_study(f"{file}:{LEVEL}")
    (kept,) = after.get("measured_again")
    assert kept == {k: v for k, v in found.items() if k != "study"}
    assert after.records() == [trial]
    assert (folder / "00000-250.0" / "samples.npz").read_bytes() == samples
    assert (tuner.folder / kept["samples_file"]).exists()
    assert store.open_study(f"{file}:small@load=60").get("measured_again") is None
    assert tuner.processes() == []


def test_it_ends_once_the_interval_is_as_narrow_as_asked_and_tells_it(
    tuner: Tuner, file: Path
) -> None:
    def precise(done: Any) -> bool:
        again = store.open_study(f"{file}:{LEVEL}").get("measured_again")
        return "as precise as asked" in done.stdout and again[-1]["window_s"] <= 30

    # A thousand requests hold an upper bound of their p99 only where slow ones don't cluster, and an
    # interval without one is not narrow; the last requests may also take it away again.
    earlier: list[Any] = []

    def once() -> Any:
        earlier[:] = store.open_study(f"{file}:{LEVEL}").get("measured_again") or []
        return measure(tuner, "--precision", "1000")

    done = in_time(once, lambda done: not precise(done))
    assert done.returncode == 0, done.stderr
    for word in ("p50", "p95", "p99", "requests/s", "J a request", "in study"):
        assert word in done.stdout
    kept = store.open_study(f"{file}:{LEVEL}").get("measured_again")
    assert kept[:-1] == earlier
    assert "as precise as asked" in done.stdout
    assert 3.9 <= kept[-1]["window_s"] <= 30


def test_a_measurement_that_fails_is_kept_and_counts_against_the_configuration(
    tuner: Tuner, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{file}:{LEVEL}"
    before = pareto.front(store.open_study(name)).iloc[0]

    class Failing:
        environment: Mapping[str, Any] = {}
        calibrate = staticmethod(lambda facts, note: None)
        attributes = staticmethod(lambda: {"seed": 3})
        outcomes = iter([
            Failure("overloaded", "300 of 500 requests unanswered", "", {"stage": {"window_s": 1.5}}),
            Failure("client_limited", "the load generator sent late"),
            Failure("disturbed", "other work took the machine, twice"),
        ])

        def evaluate(self, *_: Any) -> tuple[Failure]:
            return (next(self.outcomes),)

    monkeypatch.setattr(_evaluator, "open_evaluator", lambda *_: nullcontext(Failing()))
    kept = store.open_study(name).get("measured_again") or []
    for reason in ("overloaded", "client_limited", "disturbed"):
        assert main(["measure", name, "--trial", "0"]) == 1
        assert reason in capsys.readouterr().err
    failed, late = store.open_study(name).get("measured_again")[len(kept):]
    assert (failed["trial"], failed["reason"], failed["metrics"]) == (0, "overloaded", {})
    assert failed["message"] == "300 of 500 requests unanswered" and failed["window_s"] == 1.5
    assert late["reason"] == "client_limited"

    after = pareto.front(store.open_study(name)).iloc[0]
    # What the load generator did is no failure of the server.
    assert after["failures"] == before["failures"] + 1 and after["again"] == before["again"]
    measured = after["repeats"] + after["again"]
    assert after["measured_share"] == pytest.approx((measured + 0.5) / (measured + 2))
    main(["pareto", name, "--all", "--json"])
    rows = json.loads(capsys.readouterr().out)["all_trials"]
    assert [r["reason"] for r in rows if r["measured_again"]][-2:] == ["overloaded", "client_limited"]


def test_a_trial_that_does_not_exist_is_refused(tuner: Tuner) -> None:
    done = tuner.run("measure", f"studies/small.db:{LEVEL}", "--trial", "7")
    assert done.returncode == 2 and "no trial 7" in done.stderr


def test_another_machine_is_refused(tuner: Tuner, file: Path) -> None:
    with changed(file, "environment", lambda e: {**e, "machine": "Other CPU, 64 cores"}):
        assert_refused(tuner, "machine", "Other CPU, 64 cores", "where it was measured")


def test_another_model_of_the_same_name_is_refused(tuner: Tuner, file: Path) -> None:
    with changed(file, "environment", lambda e: {**e, "model_checksum": "0" * 64}):
        assert_refused(tuner, "model_checksum", "0" * 64)


@pytest.mark.parametrize("fact", ["space_text", "settings", "options"])
def test_a_study_that_does_not_hold_how_it_was_measured_is_refused(
    tuner: Tuner, file: Path, fact: str
) -> None:
    with changed(file, f"fact:{fact}", lambda _: None):
        assert_refused(tuner, "does not hold how it was measured")


def test_a_study_that_holds_another_space_is_refused(tuner: Tuner, file: Path) -> None:
    with changed(file, "fact:space_text", lambda text: text.replace("[2, 4, 8]", "[2, 4]")):
        assert_refused(tuner, "another space")
