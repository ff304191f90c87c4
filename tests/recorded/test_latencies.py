"""Every latency of a recording, kept small beside its database."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.study.conftest import measured
from tuner import store
from tuner.cli import _recorded, main
from tuner.errors import StudyError
from tuner.measurement import Failure, to_json
from tuner.space_file import parse
from tuner.store import Store, latencies
from tuner.store.pack import pack

SPACE = parse("parameters: {size: {values: [1, 2, 3, 4]}}")
DUE_S = np.cumsum(np.random.default_rng(5).exponential(0.003, 2000))
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a stage's samples, as the load does, of so many requests of the one arrival sequence."""

    def write(name: str, n: int = 2000, seed: int = 0, failed: tuple[int, ...] = ()) -> Path:
        latency = np.random.default_rng(seed).lognormal(1.0, 0.6, n).astype(np.float32)
        status = np.zeros(n, np.int32)
        status[list(failed)] = 14
        latency[3] = np.nan
        # Each window opens at another moment of the clock: its due times differ in the last bits.
        due = DUE_S[:n] + 1e-9 * seed
        path = tmp_path / "a.artifacts" / name / "samples.npz"
        path.parent.mkdir(parents=True)
        np.savez_compressed(path, due_s=due, latency_ms=latency, status=status)
        return path

    return write


def test_what_is_kept_is_what_was_measured(tmp_path: Path, write: Write) -> None:
    file, path = tmp_path / "latencies-a.npz", write("0", failed=(7, 9))
    assert latencies.keep(file, [(0, path)]) == [0]
    kept, was = latencies.read(file, 0), np.load(path)
    np.testing.assert_allclose(kept.latency_ms, was["latency_ms"], rtol=2.5e-4)
    np.testing.assert_allclose(kept.due_s, was["due_s"], atol=2e-6)
    assert np.isnan(kept.latency_ms[3])
    assert np.flatnonzero(kept.failed).tolist() == [7, 9]


def test_a_request_takes_less_than_three_bytes(tmp_path: Path, write: Write) -> None:
    """Trials share their arrivals, whose times are kept once."""
    file = tmp_path / "latencies-a.npz"
    latencies.keep(file, [(i, write(str(i), seed=i)) for i in range(20)])
    assert file.stat().st_size < 3 * 20 * 2000
    assert latencies.read(file, 19).due_s == pytest.approx(DUE_S, abs=2e-6)


def test_a_longer_window_keeps_its_own_due_times(tmp_path: Path, write: Write) -> None:
    file = tmp_path / "latencies-a.npz"
    latencies.keep(file, [(0, write("0", n=500)), (1, write("1", n=2000, seed=1))])
    assert len(latencies.read(file, 0).due_s) == 500
    assert latencies.read(file, 1).due_s == pytest.approx(DUE_S, abs=2e-6)


def test_a_later_sitting_adds_to_what_is_kept(tmp_path: Path, write: Write) -> None:
    file, first = tmp_path / "latencies-a.npz", write("0")
    latencies.keep(file, [(0, first)])
    before = latencies.read(file, 0)
    first.unlink()
    cut = tmp_path / "cut.npz"
    cut.write_bytes(b"PK\x03\x04 cut short")
    assert latencies.keep(file, [(0, first), (1, write("1")), (2, cut)]) == [0, 1]
    np.testing.assert_array_equal(latencies.read(file, 0).latency_ms, before.latency_ms)
    assert not list(tmp_path.glob("*.partial"))


def test_what_is_not_kept_is_said(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no latencies of trial 4"):
        latencies.read(tmp_path / "latencies-a.npz", 4)


@pytest.fixture
def recording(tmp_path: Path, write: Write) -> Path:
    """A measured trial and one that overloaded, each with samples, and one without."""
    kept = Store.create(f"sqlite:///{tmp_path}/a.db", "a", SPACE, {"model": "m"})
    whole = [
        replace(measured(10.0, 0.5).stage, samples_file=str(write(str(i), seed=i))) for i in (0, 1)
    ]
    outcomes = [
        replace(measured(10.0, 0.5), stage=whole[0]),
        Failure("overloaded", "the queue grew", "", {"stage": to_json(whole[1])}),
        measured(10.0, 0.5),
    ]
    for size, outcome in enumerate(outcomes, start=1):
        kept.finish(kept.start({"size": size}, SPACE, {}, {}), outcome, SPACE)
    return tmp_path / "a.db"


def test_a_packed_recording_keeps_every_latency_and_each_record_says_where(recording: Path) -> None:
    pack(recording)
    told = [r.measurement["stage"]["samples_file"] for r in store.load_records(str(recording))]
    assert told == ["latencies-a.npz#0", "latencies-a.npz#1", None]
    assert latencies.numbers(recording.with_name("latencies-a.npz")) == [0, 1]


def test_packing_again_keeps_the_latencies_as_they_are(recording: Path) -> None:
    pack(recording)
    file = recording.with_name("latencies-a.npz")
    before, records = file.read_bytes(), store.load_records(str(recording))
    pack(recording)
    assert file.read_bytes() == before and store.load_records(str(recording)) == records


def test_a_recording_stopped_before_it_was_packed_loses_no_latency(recording: Path) -> None:
    """As after a kill: the file of latencies is written, the database says nothing of it yet."""
    samples = recording.with_name("a.artifacts") / "0" / "samples.npz"
    file = recording.with_name("latencies-a.npz")
    latencies.keep(file, [(0, samples)])
    pack(recording)
    assert latencies.numbers(file) == [0, 1]


def test_the_list_of_studies_tells_how_many_trials_keep_their_latencies(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(recording)
    assert main(["studies", str(recording), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["latencies_kept"] == 2


def stage(requests: int, **details: str) -> dict:
    return {"requests": requests, "errors": {}, "latency_p95_ms": 10.0, "latency_p99_ms": 20.0,
            "details": details}


@pytest.mark.parametrize(
    ("requests", "ranks"), [(60, 1), (100, 0), (140, 0), (170, 1), (360, 1), (1000, 0), (1030, 0)]
)
def test_a_p99_of_the_former_rule_is_one_rank_low_where_both_rules_differ(
    requests: int, ranks: int
) -> None:
    former, right = int(0.99 * requests + 0.5), int(np.ceil(round(0.99 * requests, 6)))
    assert right - former == ranks
    assert (_recorded.rank_low(stage(requests)) or 0.0) > 0 if ranks else (
        _recorded.rank_low(stage(requests)) == 0)


def test_how_far_a_p99_is_low_is_the_gap_of_an_exponential_tail() -> None:
    """Of 60 requests the 59th instead of the 60th was taken: 10 / ln 5 ms below it."""
    gap_ms = 10 / np.log(5)
    assert _recorded.rank_low(stage(60)) == pytest.approx(gap_ms / (20 + gap_ms))
    assert _recorded.rank_low(stage(360)) == pytest.approx(gap_ms / 4 / (20 + gap_ms / 4))


def test_a_p99_by_the_ceilings_rank_is_not_low() -> None:
    assert _recorded.rank_low(stage(60, percentile_rule="ceiling")) is None


def test_the_estimate_of_how_far_a_p99_is_low_agrees_with_drawn_latencies() -> None:
    rng = np.random.default_rng(1)
    drawn = np.sort(rng.exponential(10.0, (4000, 360)), axis=1)
    truth = np.mean((drawn[:, 356] - drawn[:, 355]) / drawn[:, 356])
    told = np.mean([
        _recorded.rank_low({**stage(360), "latency_p95_ms": row[341], "latency_p99_ms": row[355]})
        for row in drawn
    ])
    assert told == pytest.approx(truth, rel=0.1)
