"""Storages that users bring: another program's studies and tables, memory, every form of a URL."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from tuner import cli, store
from tuner.errors import StudyError
from tuner.space import Space
from tuner.store import Store, urls

SPACE = "name: s\nparameters: {tensorflow_intra_op_parallelism: [1, 2]}\nduration_s: 2\nload: 50\n"


@contextlib.contextmanager
def unchanged(file: Path) -> Iterator[None]:
    """What a file's database holds is the same afterwards."""
    def dump() -> list[str]:
        with contextlib.closing(sqlite3.connect(file)) as database:
            return list(database.iterdump())

    before = dump()
    yield
    assert dump() == before


def foreign(url: str, *, trials: int = 1, fact: bool = False) -> optuna.Study:
    study = optuna.create_study(
        storage=url, study_name="small", directions=["minimize", "minimize"]
    )
    for _ in range(trials):
        study.tell(study.ask(), [1.0, 2.0])
    if fact:
        study.set_user_attr("owner", "another tool")
    return study


@pytest.mark.parametrize(("trials", "fact"), [(1, False), (0, True), (3, True)])
def test_another_programs_study_of_the_same_name_is_refused_and_left_as_it_was(
    space: Space, url: str, tmp_path: Path, trials: int, fact: bool
) -> None:
    foreign(url, trials=trials, fact=fact)
    with unchanged(tmp_path / "small.db"):
        with pytest.raises(StudyError, match="another program made it; name a new study"):
            Store.create(url, "small", space, {})
        with pytest.raises(StudyError, match="another program made it"):
            store.refuse_other_space(store.connect(url), url, "small", space)


def test_a_study_that_was_stopped_while_it_was_made_is_completed(space: Space, url: str) -> None:
    study = foreign(url, trials=0)
    study.set_user_attr("space", {"name": "small", **space.describe()})
    assert Store.create(url, "small", space, {"model": "m"}).environment == {"model": "m"}


@pytest.mark.parametrize(
    "memory", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite+pysqlite:///:memory:",
               "sqlite:///file::memory:?uri=true", "sqlite:///file:x?mode=memory&uri=true"],
)
def test_a_study_in_memory_is_refused(
    memory: str, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.yaml").write_text(SPACE)
    with pytest.raises(StudyError, match="in memory and lose it"):
        store.connect(memory, create=True)
    assert cli.main(["study", "--space", "s.yaml", "--storage", memory]) == 2
    said = capsys.readouterr().err
    assert "in memory" in said and said.count("\n") == 1


def test_another_programs_file_gets_no_tables_unless_forced(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = in_folder / "theirs.db"
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.executescript("CREATE TABLE songs (title); CREATE TABLE singers (name);")
    Path("s.yaml").write_text(SPACE)
    url = f"sqlite:///{file}"
    with unchanged(file):
        for command in (["study", "--space", "s.yaml"], ["pareto", "s"], ["proxy"]):
            assert cli.main([*command, "--storage", url]) == 2
            said = capsys.readouterr().err
            assert "another program's tables (singers, songs)" in said and said.count("\n") == 1
    assert optuna.get_all_study_names(store.connect(url, force=True)) == []
    # With Optuna's tables in it, it is a storage like any other.
    assert optuna.get_all_study_names(store.connect(url)) == []


def test_an_empty_file_becomes_a_database(in_folder: Path, space: Space) -> None:
    file = in_folder / "made_by_mktemp.db"
    file.touch()
    assert Store.create(f"sqlite:///{file}", "small", space, {}).name == "small"


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ("postgres://me:p@h:5/d", "postgresql://me:p@h:5/d"),
        ("postgres+psycopg2://h/d", "postgresql+psycopg2://h/d"),
        ("postgresql://me:p@a:1,b:2/d?target_session_attrs=read-write",
         "postgresql://me:p@/d?host=a:1&host=b:2&target_session_attrs=read-write"),
        ("postgres://a,b/d", "postgresql:///d?host=a&host=b"),
        ("postgresql://me@%2Fvar%2Frun/d", "postgresql://me@/d?host=/var/run"),
        ("postgresql://%2Ftmp", "postgresql://?host=/tmp"),
        ("host=h port=5 dbname=d user=me password=p sslmode=require",
         "postgresql://me:p@h:5/d?sslmode=require"),
        ("host=/var/run dbname=d", "postgresql:///d?host=/var/run"),
        ("host=a,b port=1,2 dbname=d", "postgresql:///d?host=a,b&port=1,2"),
        (r"dbname=d password='it\'s a \\ secret' user = me", "postgresql://me:it's a %5C secret@/d"),
        ("postgresql://me:p%40ss@h/d", "postgresql://me:p%40ss@h/d"),
        ("mysql://me:p@h/d", "mysql://me:p@h/d"),
    ],
)
def test_every_form_that_libpq_takes_means_the_same(given: str, same: str) -> None:
    import sqlalchemy

    parsed = urls._parsed(given)
    assert parsed == sqlalchemy.engine.make_url(same)
    assert parsed is not None and (parsed.password is None or "***" in store.redact(given))


def test_a_form_of_libpqs_reaches_the_driver() -> None:
    pytest.importorskip("psycopg2")
    for url in ("postgres://me:s3cret@127.0.0.1:1/d", "host=127.0.0.1 port=1 dbname=d password=s3cret",
                "postgresql://me:s3cret@127.0.0.1:1,127.0.0.1:2/d"):
        with pytest.raises(StudyError, match="Connection refused") as told:
            store.connect(url)
        assert "s3cret" not in str(told.value)


def test_a_driver_that_works_asynchronously_is_refused_in_words() -> None:
    with pytest.raises(StudyError, match=r"asynchronously; leave it out \(sqlite://"):
        store.connect("sqlite+aiosqlite:///x.db", create=True)
