"""Values that mean something to a shell, a database or a file system mean nothing to a study."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tuner import cli, store

VALUES = ["$(touch pwned)", "`touch pwned`", "'; DROP TABLE trials; --", "../x", "../../x/../y", "a\nb",
          "-rf", "a\0b", "\u202egnp.x", "%s%n{0}", "x" * 5000]
SPACE = {
    "name": "s", "model": "cnn1d", "deployer": "fake", "load": 50, "duration_s": 0.2,
    "fixed": {"enable_batching": True}, "parameters": {"max_batch_size": [4]},
}


@pytest.fixture
def inner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with nothing beside it, so that what escapes is seen."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TUNER_STORAGE", raising=False)
    return tmp_path


def outside(top: Path) -> set[str]:
    """Everything that is not in the study's own folder."""
    studies = top / "a" / "b" / "studies"
    return {str(p) for p in top.rglob("*") if p != studies and studies not in p.parents}


def assert_harmless(
    inner: Path, capsys: pytest.CaptureFixture[str], *more: str, codes: tuple[int, ...] = (2,)
) -> None:
    before = outside(inner)
    code = cli.main(["study", "--space", "s.yaml", "--trials", "1", "--quiet", *more])
    said = capsys.readouterr().err
    assert code in codes, said
    if code:
        complaints = [line for line in said.splitlines() if line.startswith("tuner: ")]
        assert len(complaints) == 1 and said.endswith(complaints[0] + "\n")
    assert outside(inner) == before


@pytest.mark.parametrize("value", VALUES, ids=lambda v: repr(v[:20]))
@pytest.mark.parametrize("key", ["model", "requests", "energy", "name"])
def test_a_hostile_setting_is_one_line_and_touches_nothing(
    inner: Path, capsys: pytest.CaptureFixture[str], key: str, value: str
) -> None:
    Path("s.yaml").write_text(yaml.safe_dump({**SPACE, key: value}))
    assert_harmless(inner, capsys)
    Path("s.yaml").write_text(yaml.safe_dump(SPACE))
    assert_harmless(inner, capsys, f"--{key}={value}")


def of_the_server(*values: str) -> str:
    knobs = {"max_batch_size": [4], "thread_pool_name": {"choices": list(values)}}
    return yaml.safe_dump({**SPACE, "parameters": knobs})


def test_hostile_options_reach_the_server_as_they_are(
    inner: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [v for v in VALUES if v.isprintable() and len(v) < 100]
    Path("s.yaml").write_text(of_the_server(*values))
    assert_harmless(inner, capsys, "--sampler", "grid", "--trials", str(len(values)), codes=(0,))
    said = "".join(file.read_text() for file in Path("studies").rglob("batching*"))
    assert all(value in said for value in values)
    assert [r.is_finished for r in store.load_records("s")] == [True] * len(values)


@pytest.mark.parametrize("value", [v for v in VALUES if not v.isprintable()], ids=repr)
def test_an_option_that_is_no_line_of_text_is_refused(
    inner: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    Path("s.yaml").write_text(of_the_server(value))
    assert_harmless(inner, capsys)
