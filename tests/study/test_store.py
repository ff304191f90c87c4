"""The study database keeps typed records and refuses what does not belong together."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from tests.study.conftest import measured
from tuner import cli, store
from tuner.errors import StudyError
from tuner.measurement import Failure
from tuner.space import Space
from tuner.space_file import parse
from tuner.store import Store, patience
from tuner.store.owner import this_process

CONFIGURATION = {"batching": True, "size": 4, "threads": 2}


def test_a_measurement_comes_back_as_it_was(space: Space, url: str) -> None:
    kept = Store.create(url, "small", space, {"model": "m"})
    number = kept.start(CONFIGURATION, space, {"why": "first"}, {"seed": 7})
    kept.finish(number, measured(20.0, 0.5), space)
    (record,) = Store.open(url, "small").records()
    assert record.state == "complete" and record.feasible
    assert record.configuration == CONFIGURATION
    assert record.values == (20.0, pytest.approx(0.5))
    assert record.notes == {"why": "first"}
    assert record.measurement["stage"]["latency_p99_interval_ms"] == [18.0, 22.0]
    assert record.energy_source == "fake"
    assert record.attributes["seed"] == 7


def test_a_failure_keeps_its_reason_and_log(space: Space, url: str) -> None:
    kept = Store.create(url, "small", space, {})
    number = kept.start(CONFIGURATION, space, {}, {})
    record = kept.finish(number, Failure("crash", "signal 11", "last words"), space)
    assert (record.state, record.reason, record.values) == ("failed", "crash", None)
    assert record.attributes["log_tail"] == "last words"
    assert record.is_finished and not record.feasible


def test_a_trial_beyond_a_constraint_is_complete_but_not_feasible(space: Space, url: str) -> None:
    kept = Store.create(url, "small", space, {})
    number = kept.start(CONFIGURATION, space, {}, {})
    record = kept.finish(number, measured(20.0, 0.5, errors=5), space)
    assert record.state == "complete" and not record.feasible
    assert record.violations["error_rate <= 0.01"] == pytest.approx(4.0)
    frozen = optuna.load_study(study_name="small", storage=url).trials[0]
    assert frozen.user_attrs["feasible"] is False
    assert max(frozen.constraints.values()) > 0


def test_objectives_carry_their_names_in_the_database(space: Space, url: str) -> None:
    Store.create(url, "small", space, {})
    study = optuna.load_study(study_name="small", storage=url)
    assert study.metric_names == ["latency_p99_ms", "energy_per_request_j"]


@pytest.mark.parametrize("call", [0, 1, 2])
def test_a_study_that_a_kill_left_half_made_is_completed(
    space: Space, url: str, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    left, plain = [call], optuna.Study.set_user_attr

    def dying(study: optuna.Study, key: str, value: object) -> None:
        if not left[0]:
            raise SystemExit(9)
        left[0] -= 1
        plain(study, key, value)

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(optuna.Study, "set_user_attr", dying)
        Store.create(url, "small", space, {"model": "m"})
    kept = Store.create(url, "small", space, {"model": "m"})
    assert kept.metric_names == ["latency_p99_ms", "energy_per_request_j"]
    assert kept.environment == {"model": "m"}
    assert kept.space_description == {"name": "small", **space.describe()}
    other = parse("parameters: {threads: {values: [1, 2, 3]}}")
    with pytest.raises(StudyError, match="another space"):
        Store.create(url, "small", other, {"model": "m"})


def test_a_study_without_a_word_of_itself_is_one_line(
    space: Space, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    optuna.create_study(study_name="small", storage=url, directions=["minimize", "minimize"])
    assert cli.main(["pareto", "small", "--storage", url]) == 2
    assert "`tuner study` completes it" in capsys.readouterr().err
    narrow = parse("parameters: {threads: {values: [1, 2]}}\nobjectives: [latency_p99_ms]")
    with pytest.raises(StudyError, match="other objectives"):
        Store.create(url, "small", narrow, {})


def test_another_space_is_refused_and_the_database_stays_as_it_was(
    space: Space, url: str
) -> None:
    Store.create(url, "small", space, {"model": "m"})
    before = _dump(url)
    other = parse("parameters: {threads: {values: [1, 2, 3]}}")
    with pytest.raises(StudyError, match=r"another space \(parameters differ\).*--name"):
        Store.create(url, "small", other, {"model": "m"})
    assert _dump(url) == before


def test_another_environment_is_refused_by_what_differs(space: Space, url: str) -> None:
    Store.create(url, "small", space, {"model": "mobilenet_v2"})
    with pytest.raises(StudyError, match="model 'mobilenet_v2', not 'cnn1d'"):
        Store.create(url, "small", space, {"model": "cnn1d"})


def test_a_trial_of_a_dead_process_is_reaped_and_does_not_count(space: Space, url: str) -> None:
    code = (
        "import sys, os; from tuner.store import Store; from tuner.space_file import parse\n"
        "from tests.study.conftest import SPACE\n"
        "s = parse(SPACE); k = Store.create(sys.argv[1], 'small', s, {})\n"
        "k.start({'batching': False, 'threads': 1}, s, {}, {}); os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code, url], cwd=Path(__file__).parents[2], check=False)
    kept = Store.create(url, "small", space, {})
    assert kept.reap() == [0]
    (record,) = kept.records()
    assert record.state == "killed" and not record.is_finished


def test_a_disturbed_trial_does_not_count_and_says_why(space: Space, url: str) -> None:
    kept = Store.create(url, "small", space, {})
    number = kept.start(CONFIGURATION, space, {}, {})
    record = kept.finish(number, Failure("disturbed", "other work used 50%"), space)
    assert record.state == "killed" and not record.is_finished
    assert (record.reason, record.message) == ("disturbed", "other work used 50%")


def test_a_trial_of_a_living_process_is_left_alone(space: Space, url: str) -> None:
    kept = Store.create(url, "small", space, {})
    kept.start(CONFIGURATION, space, {}, {})
    assert kept.reap() == []


def reaper_says(kept: Store, number: int) -> None:
    """What a kill writes first where it cannot write all at once."""
    trial_id = kept._frozen(number)._trial_id
    for key, value in {"reason": "killed", "message": "fell silent", "feasible": False}.items():
        kept._study._storage.set_trial_user_attr(trial_id, key, value)


def test_a_trial_that_its_owner_completes_while_it_is_killed_is_not_called_killed(
    space: Space, url: str
) -> None:
    kept = Store.create(url, "small", space, {})
    number = kept.start(CONFIGURATION, space, {}, {})
    reaper_says(kept, number)
    record = kept.finish(number, measured(20.0, 0.5), space)
    assert (record.state, record.reason, record.message) == ("complete", None, "")
    assert record.attributes.get("feasible") is not False


def test_a_kill_is_one_transaction(
    space: Space, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, reaper = (Store.create(url, "small", space, {}) for _ in range(2))
    number = kept.start(CONFIGURATION, space, {}, {})
    plain = optuna.storages.RDBStorage.set_trial_state_values

    def owner_first(storage: object, trial_id: int, state: object, values: object = None) -> object:
        if state == optuna.trial.TrialState.FAIL:
            monkeypatch.undo()
            kept.finish(number, measured(20.0, 0.5), space)
        return plain(storage, trial_id, state, values)  # type: ignore[arg-type]

    monkeypatch.setattr(optuna.storages.RDBStorage, "set_trial_state_values", owner_first)
    reaper.kill(number, "fell silent")
    (trial,) = optuna.load_study(study_name="small", storage=url).trials
    assert trial.state == optuna.trial.TrialState.FAIL
    assert (trial.user_attrs["reason"], kept.records()[0].state) == ("killed", "killed")
    assert trial.datetime_complete is not None


def test_a_process_id_given_again_does_not_look_alive(space: Space, url: str) -> None:
    kept = Store.create(url, "small", space, {})
    kept.start(CONFIGURATION, space, {}, {"owner": {**this_process(), "started": 1}})
    assert kept.reap() == [0]


@pytest.mark.parametrize("content", [b"not a database at all", b"SQLite format 3\x00" + b"x" * 500])
def test_a_damaged_file_is_one_line(tmp_path: Path, space: Space, content: bytes) -> None:
    file = tmp_path / "bad.db"
    file.write_bytes(content)
    with pytest.raises(StudyError) as caught:
        Store.create(f"sqlite:///{file}", "small", space, {})
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == content


def test_a_password_never_reaches_the_message() -> None:
    with pytest.raises(StudyError) as caught:
        store.connect("postgresql://user:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)


def test_a_missing_study_says_what_there_is(space: Space, url: str) -> None:
    Store.create(url, "small", space, {})
    with pytest.raises(StudyError, match="it holds: small"):
        store.open_study("large", url)


def test_a_study_is_found_by_name_file_or_both(in_folder: Path, space: Space) -> None:
    Store.create("sqlite:///studies/small.db", "small", space, {})
    for reference in ("small", "studies/small.db", "studies/small.db:small"):
        assert store.open_study(reference).name == "small"


def test_the_table_has_a_row_for_each_finished_trial(space: Space, url: str) -> None:
    kept = Store.create(url, "small", space, {"model": "m"})
    kept.finish(kept.start(CONFIGURATION, space, {}, {}), measured(20.0, 0.5), space)
    off = {"batching": False, "threads": 1}
    kept.finish(kept.start(off, space, {}, {}), Failure("crash", "x"), space)
    kept.kill(kept.start(off, space, {}, {}), "stopped")
    table = store.table_of(kept)
    assert list(table["valid"]) == [True, False]
    assert list(table["latency_p99_ms"].dropna()) == [20.0]
    assert table["size"][1] is None or table["size"].isna()[1]
    assert table.attrs["environment"] == {"model": "m"}
    assert table.attrs["energy_source"] == "fake"


def test_levels_name_their_study() -> None:
    assert store.level_name("s", {}) == "s"
    assert store.level_name("s", {"load": "high", "other_models": 2}) == "s@load=high,other_models=2"


def _dump(url: str) -> list[str]:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        return list(connection.iterdump())


def test_an_unwritable_folder_is_one_line(tmp_path: Path, space: Space) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StudyError, match="cannot be made"):
        Store.create(f"sqlite:///{blocked}/deeper/s.db", "small", space, {})
    assert os.listdir(tmp_path) == ["file"]


def test_opening_a_database_again_keeps_the_locks_of_the_open_ones(
    space: Space, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file opened and closed beside SQLite would cancel the process's own POSIX locks."""
    Store.create(url, "small", space, {})
    opened: list[str] = []
    plain = Path.open

    def watched(path: Path, *args: object, **kwargs: object) -> object:
        opened.append(str(path))
        return plain(path, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", watched)
    Store.create(url, "small", space, {})
    assert not [p for p in opened if p.endswith(".db")]


@pytest.mark.parametrize(
    "url", ["postgresql://u:s3cret@h/x", "postgresql://u@h/x?password=s3cret&sslmode=require"]
)
def test_no_secret_of_a_url_is_ever_shown(url: str) -> None:
    assert "s3cret" not in store.redact(url)
    with pytest.raises(StudyError) as caught:
        store.connect(url.replace("postgresql", "nothing"))
    assert "s3cret" not in str(caught.value)


TORN = ["postgresql://u:p@s3cret@h/x", "postgresql://u:p@h/s3cret@h/x", "mysql://u:a?b@s3cret@h/x",
        "postgresql://u:p@h/x?password=a@s3cret"]


@pytest.mark.parametrize("url", TORN)
def test_a_password_with_an_at_sign_is_neither_shown_nor_taken_for_a_host(url: str) -> None:
    assert "s3cret" not in store.redact(url)
    with pytest.raises(StudyError, match="%40") as caught:
        store.connect(url)
    assert "s3cret" not in str(caught.value)


def test_an_escaped_at_sign_and_a_folders_are_let_be() -> None:
    shown = store.redact("postgresql://u:p%40w@h/x?password=p%40w")
    assert shown.startswith("postgresql://u:***@h/x?password=") and "w" not in shown[-9:]
    assert "***" not in store.redact("sqlite:////tmp/a@b/c@d.db")


@pytest.mark.parametrize("url", ["postgresql://u:s3cret@h/d", "postgresql://u:p@s3cret@h/d"])
@pytest.mark.parametrize("command", [
    ("pareto",), ("importance",), ("export", "--trial", "1"), ("measure", "--trial", "1"),
    ("borrow",), ("replay",), ("transfer", "x"), ("compare", "x"),
])
def test_a_storage_given_for_a_study_is_not_shown(
    in_folder: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], url: str
) -> None:
    assert cli.main([*command, url]) == 2
    said = "".join(capsys.readouterr())
    assert "s3cret" not in said and said.count("\n") == 1


@pytest.mark.parametrize("url", ["garbage", "mysql://u:s3cret@127.0.0.1:bad/x"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(StudyError, match="not a URL"):
        store.connect(url, create=True)


def test_whole_numbers_stay_whole_beside_inactive_knobs(space: Space, url: str) -> None:
    kept = Store.create(url, "small", space, {})
    kept.finish(kept.start(CONFIGURATION, space, {}, {}), measured(20.0, 0.5), space)
    off = {"batching": False, "threads": 1}
    kept.finish(kept.start(off, space, {}, {}), measured(30.0, 0.4), space)
    assert [repr(v) for v in store.table_of(kept)["size"]] == ["4", "None"]


def test_reading_by_column_gives_what_optuna_gives(space: Space, url: str) -> None:
    kept = Store.create(url, "small", space, {})
    kept.finish(kept.start(CONFIGURATION, space, {"n": 2**70}, {}), measured(20.0, 0.5), space)
    kept.kill(kept.start({"batching": False, "threads": 1}, space, {}, {}), "stopped")
    kept.start(CONFIGURATION, space, {}, {"odd": [1.5, None, "é"]})
    theirs = optuna.load_study(study_name="small", storage=url).trials
    ours = patience.whole_trials(kept._study._storage, kept._study._study_id)
    assert ours == theirs
    assert [t.distributions for t in ours] == [t.distributions for t in theirs]
    assert [t._trial_id for t in ours] == [t._trial_id for t in theirs]


def test_the_loop_reads_no_measurements(space: Space, url: str) -> None:
    kept = Store.create(url, "small", space, {})
    kept.finish(kept.start(CONFIGURATION, space, {"n": 1}, {}), measured(20.0, 0.5), space)
    (record,) = kept.changed({})
    (whole,) = kept.records()
    assert not record.measurement and whole.measurement
    assert (record.values, record.violations, record.notes, record.configuration) == (
        whole.values, whole.violations, whole.notes, whole.configuration
    )


def _stored(url: str, text: str, *configurations: dict) -> list[optuna.trial.FrozenTrial]:
    """The trials of a new study as Optuna reads them."""
    space = parse(text)
    kept = Store.create(url, "listed", space, {})
    for configuration in configurations:
        kept.finish(kept.start(configuration, space, {}, {}), measured(20.0, 0.5), space)
    return optuna.load_study(study_name="listed", storage=url).trials


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ("[1, 2, 16]", optuna.distributions.IntDistribution(1, 16, log=True)),
        ("[1, 2, 3, 4]", optuna.distributions.IntDistribution(1, 4)),
        ("[0, 1000, 5000]", optuna.distributions.IntDistribution(0, 5000)),
        ("[16, 1, 4]", optuna.distributions.IntDistribution(1, 16, log=True)),
        ("[-2, 7]", optuna.distributions.IntDistribution(-2, 7)),
        ("[8]", optuna.distributions.IntDistribution(8, 8)),
        ("[0.1, 0.2, 0.8]", optuna.distributions.FloatDistribution(0.1, 0.8, log=True)),
        ("[0.25, 0.5, 0.75]", optuna.distributions.FloatDistribution(0.25, 0.75)),
        ("[0.5, 1, 10]", optuna.distributions.FloatDistribution(0.5, 10, log=True)),
        ("[false, true]", optuna.distributions.CategoricalDistribution((False, True))),
        ("['1', '16', '2']", optuna.distributions.CategoricalDistribution(("1", "16", "2"))),
        ("[1, 9007199254740993]",
         optuna.distributions.CategoricalDistribution((1, 9007199254740993))),
        ("[1, 9007199254740992]", optuna.distributions.IntDistribution(1, 9007199254740992)),
    ],
)
def test_listed_numbers_are_stored_in_the_order_of_their_size(values: str, form: object) -> None:
    parameter = parse(f"parameters: {{x: {values}}}").parameters[0]
    assert store.distribution(parameter) == form


def test_a_whole_number_among_fractions_comes_back_whole(url: str) -> None:
    given: list[dict] = [{"x": 0.5}, {"x": 1}, {"x": 10}]
    text = "parameters: {x: [0.5, 1, 10]}"
    (_, one, _) = _stored(url, text, *given)
    assert one.params == {"x": 1.0}
    records = Store.open(url, "listed").records()
    assert [r.configuration for r in records] == given
    assert [type(r.configuration["x"]) for r in records] == [float, int, int]
    kept, space = Store.open(url, "listed"), parse(text)
    assert kept.claim({"x": 1}, space, {}, {}, known=()) is None


def test_a_study_begun_with_categories_goes_on_with_them(url: str) -> None:
    space = parse("name: old\nparameters: {x: [1, 2, 16]}")
    kept = Store.create(url, "old", space, {})
    study = optuna.load_study(study_name="old", storage=url)
    study._storage.set_study_user_attr(study._study_id, "numbers", None)
    kept = Store.create(url, "old", space, {})
    for x in (1, 16):
        kept.finish(kept.start({"x": x}, space, {}, {}), measured(20.0, 0.5), space)
    assert [r.configuration for r in kept.records()] == [{"x": 1}, {"x": 16}]
    trials = optuna.load_study(study_name="old", storage=url).trials
    assert [t.distributions["x"] for t in trials] == [
        optuna.distributions.CategoricalDistribution((1, 2, 16))
    ] * 2


def test_facts_are_kept_by_their_names_and_the_first_has_them(space: Space, url: str) -> None:
    kept = Store.create(url, "small", space, {"model": "m"})
    assert kept.get("capacity_rps") is None and kept.facts() == {}
    kept.put_missing({"capacity_rps": 80.5, "idle_w": None})
    kept.put_missing({"capacity_rps": 99.0, "idle_w": 2.5})
    kept.put("more", (1, 2))
    assert kept.facts() == {"capacity_rps": 80.5, "idle_w": 2.5, "more": [1, 2]}
    assert kept.environment == {"model": "m"}
    assert kept.space_description == {"name": "small", **space.describe()}
    assert (kept.metric_names, kept.directions) == (
        ["latency_p99_ms", "energy_per_request_j"], ["minimize", "minimize"]
    )
