"""Every numeric option of every command, and every number of a space, has its limits."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from tuner import cli
from tuner.cli import _numbers
from tuner.errors import SpaceError, UsageError
from tuner.load.levels import rate_for
from tuner.quantities import SECONDS, SEED
from tuner.space_file import parse

BAD = ("nan", "inf", "-inf", "-1", "-0.5", "1e300", "1e999", "9" * 5000, "", " ", "x", "1,5", "٣", "0x10")


def options(parser: argparse.ArgumentParser, command: str = "") -> Iterator[tuple[str, argparse.Action]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from options(child, name)
        elif action.type is not None:
            yield f"{command} {'/'.join(action.option_strings) or action.dest}", action


EVERY = dict(options(cli.build_parser()))
NUMERIC = {
    name: action for name, action in EVERY.items()
    if isinstance(action.type, (_numbers.Whole, _numbers.Real, _numbers.Duration))
    or action.type is _numbers.jobs
}


def test_no_option_takes_a_number_without_limits() -> None:
    bare = [name for name, action in EVERY.items() if action.type in (int, float)]
    assert not bare
    assert len(NUMERIC) > 40
    assert {"study --seed", "load --max-warmup", "load --ramp-from", "load --max-error-rate",
            "measure --trial", "replay --jobs"} <= set(NUMERIC)


@pytest.mark.parametrize("name", NUMERIC)
def test_what_is_no_such_number_is_refused_in_words(name: str) -> None:
    kind = NUMERIC[name].type
    for text in BAD:
        if kind is _numbers.jobs and text == "-1":
            continue
        with pytest.raises(argparse.ArgumentTypeError, match="should be") as told:
            kind(text)
        assert len(str(told.value)) < 200


@pytest.mark.parametrize("name", NUMERIC)
def test_a_default_is_within_the_limits(name: str) -> None:
    action = NUMERIC[name]
    if action.default is not None and action.type is not _numbers.jobs:
        assert action.type.quantity.refusal(action.default) is None


def test_both_ends_are_allowed_and_what_lies_beyond_is_not() -> None:
    assert _numbers.seed("0") == 0 and _numbers.seed("4294967295") == SEED.most
    with pytest.raises(argparse.ArgumentTypeError, match="at least 0, at most 4,294,967,295"):
        _numbers.seed("4294967296")
    assert _numbers.share("1") == 1.0 and _numbers.share("0") == 0.0 and _numbers.jobs("-1") == -1
    assert _numbers.duration_s("1ms") == 0.001 and _numbers.duration_s("2h") == 7200
    with pytest.raises(argparse.ArgumentTypeError, match="above 0, at most 1"):
        _numbers.some_share("0")
    with pytest.raises(argparse.ArgumentTypeError, match="at most 10,000,000"):
        _numbers.duration_s("3000h")
    assert SECONDS.refusal(1e7) is None and SECONDS.refusal(0) is not None


def test_a_wrong_number_on_the_command_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ["study", "--space", "batching.yaml", "--seed", "-1"],
        ["study", "--space", "batching.yaml", "--load", "1e300"],
        ["load", "--target", "127.0.0.1:1", "--model", "m", "--requests", "random", "--rate", "1e300"],
        ["load", "--target", "127.0.0.1:1", "--model", "m", "--requests", "random", "--rate", "5",
         "--max-warmup", "nan"],
        ["load", "--target", "127.0.0.1:1", "--model", "m", "--requests", "random", "--rate", "5",
         "--max-error-rate=-1"],
    ):
        assert cli.main(command) == 2
        said = capsys.readouterr().err
        assert said.startswith("tuner: ") and said.count("\n") == 1 and "1e300" in said + "1e300"


@pytest.mark.parametrize("rate", ["nan", "inf", "-1", "0", "1e300", "", "fast"])
def test_a_rate_has_its_limits_wherever_it_is_said(rate: str) -> None:
    with pytest.raises(UsageError, match="at most 1,000,000"):
        rate_for(rate, None)


@pytest.mark.parametrize("value", ["-1", "0", "1e300", "1e18", ".inf", ".nan", "''", "true"])
@pytest.mark.parametrize(
    "setting",
    ["load", "clients", "rows", "min_duration_s", "max_duration_s", "duration_s", "precision",
     "repeats", "start_timeout_s"],
)
def test_a_number_of_a_space_has_its_limits(setting: str, value: str) -> None:
    pattern = "pattern: closed\n" if setting == "clients" else ""
    with pytest.raises(SpaceError, match=setting):
        parse(f"parameters: {{x: [1, 2]}}\n{pattern}{setting}: {value}\n")
