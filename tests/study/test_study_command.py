"""``tuner study`` names a mistake's place, and its programs for the long run hold in short."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from tests.study.conftest import measured
from tuner import cli, propose, store, study
from tuner.cli import _arms, _evaluator
from tuner.cli._progress import Progress
from tuner.errors import StudyError
from tuner.measurement import Failure
from tuner.space import Settings, Space
from tuner.space_file import parse
from tuner.store import Store, patience

SPACE = "name: s\nmodel: {model}\nparameters:\n  tensorflow_intra_op_parallelism: [1, 2]\n"


def test_a_model_that_the_file_names_wrongly_is_named_with_its_line(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.yaml").write_text(SPACE.replace("{model}", "nowhere/model"))
    assert cli.main(["study", "--space", "s.yaml", "--deployer", "fake"]) == 2
    assert "tuner: s.yaml:2: model: nowhere/model:" in capsys.readouterr().err


def test_a_model_that_the_command_line_names_wrongly_is_not_the_files_fault(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.yaml").write_text(SPACE.replace("{model}", "cnn1d"))
    assert cli.main(["study", "--space", "s.yaml", "--model", "no/where", "--deployer", "fake"]) == 2
    assert "s.yaml" not in capsys.readouterr().err


def test_requests_that_are_text_are_not_answered_with_advice_to_unpickle(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.yaml").write_text(SPACE.replace("{model}", "cnn1d"))
    Path("r.npz").write_text("1 2 3\n")
    command = ["study", "--space", "s.yaml", "--requests", "r.npz", "--deployer", "fake"]
    assert cli.main(command) == 2
    said = capsys.readouterr().err
    assert "r.npz: not an .npz file" in said and "pickle" not in said


def test_a_full_disk_is_one_line(
    in_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "studies/s.artifacts/00001")

    monkeypatch.setattr("tuner.store.locate", full)
    assert cli.main(["pareto", "s"]) == 2
    assert capsys.readouterr().err == "tuner: studies/s.artifacts/00001: No space left on device\n"


def test_a_proxy_that_is_gone_is_one_line(
    in_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: object) -> None:
        with grpc.insecure_channel("127.0.0.1:1") as channel:
            channel.unary_unary("/any/Call")(b"", timeout=5)

    monkeypatch.setattr("tuner.store.locate", gone)
    assert cli.main(["pareto", "s"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("tuner: the storage's proxy does not answer: ") and said.count("\n") == 1


def test_progress_reads_no_measurements(
    space: Space, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Store.create(url, "small", space, {})
    chosen = {"batching": False, "threads": 1}
    kept.finish(kept.start(chosen, space, {}, {}), measured(20.0, 0.5), space)
    read: list[object] = []
    plain = patience._Quick.read_whole
    monkeypatch.setattr(
        patience._PatientDatabase, "read_whole",
        lambda storage, *args: read.append(args) or plain(storage, *args),
    )
    with Progress(5) as progress:
        progress.begin([study.Arm({}, kept, propose.make("random", space, seed=0))], space)
        assert progress._best == [20.0, 0.5]
    assert not read and "going on after 1 finished trial" in capsys.readouterr().err


def test_a_line_of_the_progress_ends_between_words_and_says_that_the_best_are_of_several_trials(
    space: Space, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Store.create(url, "small", space, {})
    with Progress(5) as progress:
        progress.begin([study.Arm({}, kept, propose.make("random", space, seed=0))], space)
        for threads, outcome in (
            (1, measured(20.0, 0.9)), (2, measured(30.0, 0.5)),
            (1, Failure("crash", "ended: " + "a long word " * 40)),
        ):
            number = kept.start({"batching": False, "threads": threads}, space, {}, {})
            kept.finish(number, outcome, space)
            progress.finished(kept.records()[-1], {})
    last = capsys.readouterr().err.splitlines()[-1]
    assert "failed: crash (ended: a long word a long" in last
    assert " a long …) | best of each 20 ms, 0.5 J | " in last


@pytest.mark.parametrize("wrong", [["--trials", "0"], ["--nonsense"], []], ids=str)
def test_a_wrong_argument_is_one_line(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", *wrong]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("tuner: ")


def test_a_few_kills_at_seeded_points_lose_nothing(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/kills.py", "--points", "2", "--seed", "1"],
        cwd=root, env=_environment(root), capture_output=True, text=True, timeout=300, check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 kills lost nothing and left nothing; the study went on" in done.stdout


def test_a_short_soak_grows_nothing(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/soak.py", "--trials", "4", "--duration", "0.2"],
        cwd=root, env=_environment(root), capture_output=True, text=True, timeout=300, check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}


SETTINGS = "name: s\nparameters: {tensorflow_intra_op_parallelism: [1, 2]}\nduration_s: 2\nload: 50\n"


def begun(text: str, **options: object) -> str:
    """A study of these settings in the working directory, as `tuner study` leaves it; its URL."""
    Path("s.yaml").write_text(text)
    space, url = parse(text), store.default_url("s")
    kept = Store.create(url, "s", space, {})
    given = {"objective": "objectives.serving", "seed": 0, "deployer": {}, **options}
    kept.put_missing(_evaluator.facts("s.yaml", space, given))
    return url


def dump(file: str) -> list[str]:
    with contextlib.closing(sqlite3.connect(file)) as database:
        return list(database.iterdump())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--duration", "3"], "min_duration_s 2.0, not 3.0"),
        (["--precision", "0.2"], "precision 0.1, not 0.2"),
        (["--seed", "7"], "seed 0, not 7"),
        (["--image", "other:1"], "image None, not other:1"),
        (["--server-binary", "/bin/other"], "server_binary None, not /bin/other"),
        (["--objective", "mine"], "objective objectives.serving, not mine"),
    ],
)
def test_a_study_that_would_go_on_measuring_something_else_is_refused(
    in_folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    begun(SETTINGS)
    before = dump("studies/s.db")
    assert cli.main(["study", "--space", "s.yaml", *more]) == 2
    said = capsys.readouterr().err
    assert words in said and "--name" in said and said.count("\n") == 1
    assert dump("studies/s.db") == before


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("duration_s: 2", "min_duration_s: 2\nmax_duration_s: 9", "max_duration_s 2.0, not 9.0"),
        ("load: 50", "load: 50\nrows: 4", "rows 1, not 4"),
        ("load: 50", "load: 50\npopularity: zipf:1.1", "popularity each_once, not zipf:1.1"),
        ("load: 50", "load: 50\npattern: burst", "pattern poisson, not burst"),
        ("load: 50", "load: 50\nstart_timeout_s: 5", "start_timeout_s 60.0, not 5.0"),
    ],
)
def test_settings_of_a_measurement_that_the_file_changes_are_refused(
    in_folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, words: str
) -> None:
    begun(SETTINGS)
    Path("s.yaml").write_text(SETTINGS.replace(old, new))
    assert cli.main(["study", "--space", "s.yaml"]) == 2
    assert words in capsys.readouterr().err


def test_the_same_settings_in_other_words_are_no_others(in_folder: Path) -> None:
    url = begun(SETTINGS)
    space = parse(SETTINGS.replace("duration_s: 2", "min_duration_s: 2.0\nmax_duration_s: 2"))
    more = dataclasses.replace(space, settings=dataclasses.replace(space.settings, repeats=3))
    options = {"objective": "objectives.serving", "seed": 0, "deployer": {"monitoring": True}}
    _evaluator.refuse_other_stored_settings(store.connect(url), url, "s", more, options)


def test_a_study_that_holds_all_of_its_trials_starts_nothing(
    in_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = begun(SETTINGS, idle_w=None, max_w=None)
    kept, space = Store.open(url, "s"), parse(SETTINGS)
    for threads in (1, 2):
        chosen = {"tensorflow_intra_op_parallelism": threads}
        kept.finish(kept.start(chosen, space, {}, {}), measured(20.0 + threads, 0.5), space)

    class Opened(Exception): ...

    def opened(*_: object) -> None:
        raise Opened

    monkeypatch.setattr(_evaluator, "open_evaluator", opened)
    command = ["study", "--space", "s.yaml", "--wait-for-quiet", "1s"]
    for enough in (["--trials", "2"], ["--trials", "1"], ["--sampler", "grid"]):
        assert cli.main([*command, *enough]) == 0
        said = capsys.readouterr().out
        assert said.startswith("Every trial asked for is there already: nothing to measure.")
        assert "21 ms" in said and "optuna-dashboard" in said
    for more in (["--trials", "3"], ["--trials", "2", "--energy", "rapl"]):
        with pytest.raises(Opened):
            cli.main([*command, *more])


def test_a_study_that_does_not_say_how_it_was_measured_may_go_on(space: Space, url: str) -> None:
    kept = Store.create(url, "small", space, {})
    now = {"settings": dataclasses.asdict(Settings(precision=9)), "options": {"seed": 9}}
    _evaluator.refuse_other_settings(kept, now)
    kept.put("settings", {"precision": 0.1})
    with pytest.raises(StudyError, match="precision 0.1, not 9"):
        _evaluator.refuse_other_settings(kept, now)


def test_more_clients_are_another_measurement_also_where_none_were_said(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = SETTINGS.replace("load: 50", "pattern: closed")
    url = begun(closed)
    kept = Store.open(url, "s")
    settings = {k: v for k, v in kept.get("settings").items() if k != "clients"}
    kept.put("settings", settings)
    assert cli.main(["study", "--space", "s.yaml", "--clients", "8"]) == 2
    assert "clients 1, not 8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "flag", "words"),
    [
        (SETTINGS.replace("load: 50", "pattern: closed"), ["--load", "50"], "say --clients N"),
        (SETTINGS, ["--clients", "4"], "say --load RATE"),
    ],
)
def test_a_rate_for_clients_and_clients_for_a_rate_are_refused(
    in_folder: Path, capsys: pytest.CaptureFixture[str], text: str, flag: list[str], words: str
) -> None:
    Path("s.yaml").write_text(text)
    assert cli.main(["study", "--space", "s.yaml", *flag]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and not list(Path("studies").iterdir())


def test_the_most_throughput_at_a_rate_is_refused_with_its_line(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.yaml").write_text(SETTINGS + "objectives: [throughput_rps]\n")
    assert cli.main(["study", "--space", "s.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("tuner: s.yaml:5: objectives[0]: ") and "clients: N" in said


def test_the_end_says_which_best_trials_of_the_dashboard_are_beyond_a_limit(
    space: Space, url: str, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Store.create(url, "small", space, {})
    for threads, errors in ((1, 0), (2, 5)):
        chosen = {"batching": False, "threads": threads}
        kept.finish(kept.start(chosen, space, {}, {}), measured(20.0 - errors, 0.5, errors=errors), space)
    _arms.conclude([kept], space, url, None, "again")
    said = capsys.readouterr().out
    assert "its list of best trials knows no limits: of small it shows trial 1 though beyond" in said
