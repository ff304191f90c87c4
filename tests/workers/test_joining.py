"""A worker joins only what it may: the same hardware, and programs that its own user named."""

from __future__ import annotations

import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.endtoend.conftest import Tuner, wait_until
from tests.workers import quick
from tests.workers.conftest import QUICK
from tuner import cli, store
from tuner.cli import _arms

SPACE = "name: s\nparameters: {threads: {low: 1, high: 100000}}\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a study of two finished trials."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "s.yaml").write_text(SPACE)
    url = f"sqlite:///{folder}/s.db"
    command = ["study", "--space", f"{folder}/s.yaml", "--storage", url, "--objective", QUICK]
    assert cli.main([*command, "--quiet", "--trials", "2"]) == 0
    return folder / "s.db"


@pytest.fixture
def url(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A copy of it, of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNER_STORAGE", raising=False)
    with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect("s.db")) as copy:
        source.backup(copy)
    return f"sqlite:///{tmp_path}/s.db"


def worker(url: str, *more: str) -> int:
    return cli.main(["worker", "--study", "s", "--storage", url, "--quiet", *more])


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.machine.identity", lambda machine: "Abacus Mk 2, 7 cores, 1 GiB")
    monkeypatch.setattr(
        quick.Quick, "environment", {"machine": "Abacus Mk 2, 7 cores, 1 GiB", "deployer": "fake"}
    )


def test_a_worker_does_what_is_left_of_the_trials(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_HOST", "node-7")
    kept = store.Store.open(url, "s")
    kept.put(_arms.FACT, {**kept.get(_arms.FACT), "trials": 5})
    assert worker(url, "--objective", QUICK) == 0
    assert sum(r.is_finished for r in kept.records()) == 5
    hosts = [(r.attributes["machine"]["host"], r.attributes["owner"]["host"]) for r in kept.records()]
    assert hosts[2:] == [("node-7", "node-7")] * 3


def test_other_hardware_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere(monkeypatch)
    assert worker(url, "--objective", QUICK) == 2
    assert "Abacus Mk 2" in (said := capsys.readouterr().err) and "--allow-mixed" in said


def test_other_hardware_gets_trials_of_its_own_where_that_is_allowed(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(monkeypatch)
    assert worker(url, "--objective", QUICK, "--allow-mixed") == 0
    _, names = store.locate("s", url)
    assert names == ["s", "s@machine=abacus-mk-2-7-cores-1-gib"]
    own = store.Store.open(url, names[1])
    assert own.environment["machine"] == "Abacus Mk 2, 7 cores, 1 GiB"
    assert [r.state for r in own.records()] == ["complete"] * 2
    assert len(store.Store.open(url, "s").records()) == 2
    # Their trials have the same numbers, and so had they one folder, the same files.
    assert Path(f"{names[1]}.artifacts").is_dir()


def test_a_module_that_only_the_database_names_is_not_run(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert worker(url) == 2
    assert f"--objective {QUICK}" in capsys.readouterr().err


@pytest.mark.parametrize(("named", "told"), [
    ({"server_binary": "/tmp/evil"}, "--server-binary /tmp/evil"),
    ({"image": "evil/image"}, "--image evil/image"),
])
def test_a_program_that_only_the_database_names_is_not_run(
    url: str, capsys: pytest.CaptureFixture[str], named: dict[str, str], told: str
) -> None:
    kept = store.Store.open(url, "s")
    kept.put("options", {**kept.get("options"), "deployer": named})
    assert worker(url, "--objective", QUICK) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(("deployer", "program"), [
    ("docker", ("--image", "tensorflow/serving")),
    ("binary", ("--server-binary", "tensorflow_model_server")),
])
def test_a_deployers_default_program_is_not_run_unnamed(
    url: str, capsys: pytest.CaptureFixture[str], deployer: str, program: tuple[str, str]
) -> None:
    kept = store.Store.open(url, "s")
    kept.put("settings", {**kept.get("settings"), "deployer": deployer})
    assert worker(url, "--objective", QUICK) == 2
    assert " ".join(program) in capsys.readouterr().err
    assert worker(url, "--objective", QUICK, *program) == 0


def test_a_url_for_the_studys_name_is_refused_unseen(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = "postgresql://u:s3cret@h/d"
    assert cli.main(["worker", "--study", wrong, "--storage", url]) == 2
    assert "s3cret" not in (said := capsys.readouterr().err) and "--storage" in said


def test_a_study_that_is_not_there_is_named(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["worker", "--study", "t", "--storage", url]) == 2
    assert "it holds: s" in capsys.readouterr().err


def test_a_study_that_is_not_calibrated_yet_is_waited_for(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = store.Store.open(url, "s")
    kept.put(_arms.FACT, None)
    assert worker(url, "--objective", QUICK, "--wait", "100ms") == 2
    assert "not calibrated yet" in capsys.readouterr().err


def test_the_storage_may_come_from_the_environment(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_STORAGE", url)
    assert cli.main(["worker", "--study", "s", "--quiet", "--objective", QUICK]) == 0
    assert store.open_study("s").name == "s"


def test_a_study_goes_through_a_proxy(tuner: Tuner) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    proxy = tuner.start("proxy", "--storage", "sqlite:///s.db", "--port", str(port))
    wait_until(lambda: _listens(port), 60, "the proxy listens")
    (tuner.folder / "s.yaml").write_text(SPACE)
    done = tuner.run(
        "study", "--space", "s.yaml", "--storage", f"grpc://127.0.0.1:{port}", "--objective", QUICK,
        "--quiet", "--trials", "3", "--sampler", "random",
    )
    assert done.returncode == 0, done.stderr
    records = store.load_records("s", f"sqlite:///{tuner.folder}/s.db")
    assert [r.state for r in records] == ["complete"] * 3
    assert all(r.values and r.violations for r in records)
    through = store.load_records("s", f"grpc://127.0.0.1:{port}")
    assert [r.measurement for r in through] == [r.measurement for r in records]
    assert all(r.measurement for r in through)
    proxy.terminate()
    _, said = proxy.communicate(timeout=20)
    assert "Traceback" not in said


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
