"""Entries appear in the cache whole or not at all, whoever is killed and whoever else builds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tuner import models
from tuner.errors import UnavailableError
from tuner.models.cache import cache_folder, checksum, make_folder, whole

NAME = "mobilenet_v2@96"
_BUILD = (
    "import json, sys; from pathlib import Path; from tuner import models\n"
    "record = models.build(sys.argv[1], cache=Path(sys.argv[2]), "
    "progress=lambda line: print(line, file=sys.stderr, flush=True))\n"
    "print(json.dumps(record.to_json()))"
)


def _start(cache: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _BUILD, NAME, str(cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_that_ask_at_once_get_one_build(cache: Path) -> None:
    said = [process.communicate(timeout=120) for process in [_start(cache), _start(cache)]]
    first, second = (json.loads(out) for out, _ in said)
    assert first == second
    assert sorted("saving" in err for _, err in said) == [False, True]
    assert {path.name for path in (cache / "models" / NAME).iterdir()} == {
        ".lock",
        Path(first["path"]).name,
    }


def test_a_killed_build_leaves_no_model_and_no_process(tmp_path: Path) -> None:
    process = _start(tmp_path)
    assert process.stderr is not None
    process.stderr.readline()  # it builds now, in a child of its own
    (builder,) = psutil.Process(process.pid).children()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    builder.wait(timeout=10)
    home = tmp_path / "models" / NAME
    assert not [path for path in home.iterdir() if not path.name.startswith(".")]
    assert all(record is None for _, record in models.catalogued(cache=tmp_path))


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-old").mkdir()
    with whole(tmp_path / "entry") as folder:
        (folder / "file").write_text("content")
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), whole(tmp_path / "entry"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_second_call_finds_the_model_at_once(cache: Path, monkeypatch) -> None:
    record = models.build(NAME, cache=cache)
    monkeypatch.setattr("tuner.models.store.run_program", None)
    begun = time.monotonic()
    assert models.build(NAME, cache=cache) == record
    assert time.monotonic() - begun < 1


def test_a_damaged_copy_is_built_again(cache: Path, tmp_path: Path, monkeypatch) -> None:
    record = models.build(NAME, cache=cache)
    damaged = tmp_path / record.path.relative_to(cache)
    shutil.copytree(record.path, damaged)
    file = damaged / "1" / "variables" / "variables.index"
    file.write_bytes(file.read_bytes()[:-1])
    said: list[str] = []

    def fail(*_: object, **__: object) -> str:
        raise models.store.ProgramFailed("not in this test")

    monkeypatch.setattr("tuner.models.store.run_program", fail)
    with pytest.raises(models.store.ModelError, match="not in this test"):
        models.build(NAME, cache=tmp_path, progress=said.append)
    assert said == [f"{NAME}: the copy in the cache is damaged; building it again"]


def test_the_checksum_changes_with_names_and_contents(tmp_path: Path) -> None:
    seen = set()
    for name, content in (("a", "1"), ("a", "2"), ("b", "2")):
        for file in tmp_path.iterdir():
            file.unlink()
        (tmp_path / name).write_text(content)
        seen.add(checksum(tmp_path))
    assert len(seen) == 3


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TUNER_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tuner"
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    assert cache_folder(tmp_path / "chosen") == tmp_path / "chosen"


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match="set TUNER_CACHE"):
        make_folder(tmp_path / "file" / "below")
