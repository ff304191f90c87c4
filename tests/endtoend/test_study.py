"""A study tunes a real server on real input, from the command to the front."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.endtoend.conftest import Tuner, wait_until
from tuner import store
from tuner.measurement import configuration_key


def finished(file: Path, *states: str) -> int:
    """Trials of a study database in one of the states, by default those that ended, failed ones
    too; read without disturbing it."""
    wanted = states or ("COMPLETE", "FAIL")
    if not file.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT state FROM trials")
            return sum(state in wanted for (state,) in rows)
    except sqlite3.OperationalError:
        return 0


def running(file: Path) -> bool:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT count(*) FROM trials WHERE state = 'RUNNING'")
        return bool(rows.fetchone()[0])


def test_mobilenet_is_tuned_on_real_photographs(tuner: Tuner) -> None:
    done = tuner.run(
        "study", "--space", "batching.yaml", "--trials", "3", "--duration", "2", "--load", "light"
    )
    assert done.returncode == 0, done.stderr
    table = store.load_table(f"{tuner.folder}/studies/batching.db")
    environment = table.attrs["environment"]
    assert environment["model"] == "mobilenet_v2"
    assert "imagenet" in environment["weights"] or "seeded" in environment["weights"]
    assert table.attrs["energy_source"] and environment["energy_method"] in ("estimate", "counter")
    measured = table[table["valid"]]
    # On a disturbed machine the load generator may refuse its own stage; a trial stays a trial.
    assert len(table) == 3
    assert set(table[~table["valid"]]["reason"]) <= {"client_limited", "overloaded"}
    for column in ("latency_p99_ms", "energy_per_request_j", "throughput_rps"):
        assert (measured[column] > 0).all() and np.isfinite(measured[column].astype(float)).all()
    assert "optuna-dashboard sqlite:///studies/batching.db" in done.stdout


def test_a_small_study_ends_with_its_front_a_plot_and_provenance(tuner: Tuner) -> None:
    done = tuner.run("study", "--space", "small.yaml", "--trials", "4", "--load", "100")
    assert done.returncode == 0, done.stderr
    shown = tuner.run("pareto", "small", "--json", "--plot", "front.png")
    found = json.loads(shown.stdout)
    assert found["trials"]["finished"] == 4
    assert {o["name"]: o["unit"] for o in found["objectives"]} == {
        "latency_p99_ms": "ms", "energy_per_request_j": "J"
    }
    assert (tuner.folder / "front.png").read_bytes().startswith(b"\x89PNG")
    record = store.load_records(f"{tuner.folder}/studies/small.db")[0]
    assert {"seed", "versions", "machine_load", "owner"} <= set(record.attributes)
    assert "--model_name=cnn1d" in " ".join(map(str, _command_line(record)))
    assert record.measurement["deployment"]["embedded_server"] == 2
    stage = record.measurement["stage"]
    assert stage["requests"] > 50 and stage["client_lag_p99_ms"] is not None
    folder = tuner.folder / "studies" / "small.artifacts" / "00000"
    assert (folder / "server.log").exists() and (folder / "samples.npz").exists()
    assert tuner.processes() == []


def _command_line(record: store.TrialRecord) -> list[str]:
    return record.measurement["deployment"]["command_line"]


def test_killed_in_the_middle_of_a_trial_it_leaves_no_server_and_resumes(tuner: Tuner) -> None:
    command = ("study", "--space", "small.yaml", "--trials", "5", "--load", "100", "--duration", "2")
    study = tuner.start(*command)
    file = tuner.folder / "studies" / "small.db"
    wait_until(lambda: finished(file) >= 2, 120, "two trials finished")
    wait_until(lambda: running(file), 20, "the next trial runs")
    before = [r for r in store.load_records(str(file)) if r.is_finished]
    study.send_signal(signal.SIGKILL)
    study.wait()
    wait_until(lambda: not tuner.processes(), 10, f"processes are left: {tuner.processes()}")
    done = tuner.run(*command)
    assert done.returncode == 0, done.stderr
    after = [r for r in store.load_records(str(file)) if r.is_finished]
    assert len(after) == 5
    assert [(r.number, r.values) for r in after[: len(before)]] == [
        (r.number, r.values) for r in before
    ]


def test_ctrl_c_saves_and_tells_the_front(tuner: Tuner) -> None:
    study = tuner.start("study", "--space", "small.yaml", "--trials", "50", "--load", "100")
    file = tuner.folder / "studies" / "small.db"
    # Without one that was measured there is no front to tell.
    wait_until(lambda: finished(file, "COMPLETE") >= 1, 120, "a trial was measured")
    os.killpg(study.pid, signal.SIGINT)
    out, err = study.communicate(timeout=30)
    assert study.returncode == 130, err
    assert "Traceback" not in err
    assert "saved" in out and "Pareto set" in out
    assert not running(file)
    assert tuner.processes() == []


def test_the_grid_measures_every_configuration_exactly_once(tuner: Tuner) -> None:
    done = tuner.run(
        "study", "--space", "small.yaml", "--sampler", "grid", "--load", "100", "--duration", "1"
    )
    assert done.returncode == 0, done.stderr
    records = store.load_records(f"{tuner.folder}/studies/small.db")
    keys = [configuration_key(r.configuration) for r in records]
    assert len(keys) == len(set(keys)) == 7


def test_a_saved_model_of_the_users_own_is_tuned(tuner: Tuner) -> None:
    from tuner import models

    own = models.build("cnn1d").path
    rows = np.random.default_rng(0).normal(size=(8, 29, 12)).astype(np.float32)
    np.savez(tuner.folder / "rows.npz", series=rows)
    done = tuner.run(
        "study", "--space", "small.yaml", "--model", str(own), "--requests", "rows.npz",
        "--name", "own", "--trials", "1", "--load", "50",
    )
    assert done.returncode == 0, done.stderr
    table = store.load_table(f"{tuner.folder}/studies/own.db")
    assert table.attrs["environment"]["workload"] == "rows.npz"


def test_optunas_dashboard_shows_the_study_and_its_values(tuner: Tuner) -> None:
    pytest.importorskip("optuna_dashboard", reason="skipped: needs tuner[dashboard]")
    tuner.run("study", "--space", "small.yaml", "--trials", "2", "--load", "100")
    port = _free_port()
    dashboard = subprocess.Popen(
        [str(Path(sys.executable).with_name("optuna-dashboard")), "--port", str(port),
         "sqlite:///studies/small.db"],
        cwd=tuner.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until(lambda: _get(f"{address}/dashboard"), 60, "the dashboard answers")
        studies = json.loads(_get(f"{address}/api/studies"))["study_summaries"]
        assert [s["study_name"] for s in studies] == ["small"]
        detail = json.loads(_get(f"{address}/api/studies/{studies[0]['study_id']}"))
        assert detail["objective_names"] == ["latency_p99_ms", "energy_per_request_j"]
        assert detail["directions"] == ["minimize", "minimize"]
        stored = store.load_records(f"{tuner.folder}/studies/small.db")
        shown = {t["number"]: t.get("values") for t in detail["trials"]}
        for record in stored:
            if record.values is not None:
                assert shown[record.number] == pytest.approx(record.values)
        limits = {t["number"]: t["constraints"] for t in detail["trials"]}
        for record in stored:
            assert limits[record.number] == pytest.approx(list(record.violations.values()))
        kinds = {p["name"]: p["distribution"]["type"] for t in detail["trials"] for p in t["params"]}
        assert kinds["enable_batching"] == "CategoricalDistribution"
        assert kinds.get("max_batch_size", "IntDistribution") == "IntDistribution"
        front = json.loads(tuner.run("pareto", "small", "--json").stdout)["front"]
        feasible = {r.number for r in stored if r.feasible}
        best = {t["number"] for t in detail["best_trials"]} & feasible
        assert best == {m["trial"] for m in front}
    finally:
        psutil.Process(dashboard.pid).terminate()
        dashboard.wait(10)


def _get(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.read()
    except OSError:
        return b""


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
