"""Which study ``--source`` means, for a study's first process and for its workers elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from tests.study.conftest import SPACE, measured
from tuner import cli
from tuner.cli import _arms
from tuner.cli import study as command
from tuner.errors import StudyError
from tuner.space import Space
from tuner.space_file import parse
from tuner.store import Store, connect


@pytest.fixture
def space() -> Space:
    return parse(SPACE)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path}/shared.db"


def keep(url: str, name: str, space: Space, trials: int) -> None:
    kept = Store.create(url, name, space, {}, connect(url, create=True))
    for threads in (1, 2)[:trials]:
        chosen = {"batching": False, "threads": threads}
        kept.finish(kept.start(chosen, space, {}, {}), measured(10.0, 0.5), space)


def known(reference: str, space: Space, url: str) -> int:
    return len(_arms.source(reference, space, url, connect(url)).observations)


def test_a_source_in_the_studys_own_storage_is_found_by_its_name_wherever_its_file_was(
    space: Space, shared: str
) -> None:
    keep(shared, "earlier", space, 2)
    assert known("earlier", space, shared) == 2
    assert known("studies/gone.db:earlier", space, shared) == 2


def test_a_file_that_is_here_is_meant_itself(space: Space, shared: str) -> None:
    keep(shared, "earlier", space, 2)
    keep("sqlite:///here.db", "earlier", space, 1)
    assert known("here.db:earlier", space, shared) == 1


def test_a_source_found_nowhere_is_one_line_that_says_where_was_looked(
    space: Space, shared: str
) -> None:
    keep(shared, "earlier", space, 1)
    for reference in ("other", "studies/gone.db:other", "studies/gone.db"):
        with pytest.raises(StudyError, match=r"--source .*shared\.db.*own storage") as caught:
            known(reference, space, shared)
        assert reference in str(caught.value) and "\n" not in str(caught.value)


def test_of_a_source_with_levels_one_is_to_be_named(space: Space, shared: str) -> None:
    for level in ("light", "high"):
        keep(shared, f"earlier@load={level}", space, 1)
    assert known("earlier@load=light", space, shared) == 1
    with pytest.raises(StudyError, match="name one"):
        known("earlier", space, shared)


def test_a_study_takes_auto_unless_told_otherwise() -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert parser.parse_args(["--space", "s.yaml"]).sampler == "auto"


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_a_source_for_a_sampler_that_learns_from_none_is_refused(
    sampler: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--sampler", sampler, "--source", "earlier"]
    assert cli.main(["study", "--space", "batching", *given]) == 2
    told = capsys.readouterr().err
    assert "--source earlier" in told and "auto or transfer" in told and sampler in told
