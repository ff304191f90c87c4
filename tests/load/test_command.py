"""``tuner load``: the flags and the JSON that others build on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuner.cli import load
from tuner.errors import UnavailableError, UsageError
from tuner.load.scripted import Constant, Instant, ScriptedServer


def parse(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    load.add_arguments(parser)
    return parser.parse_args(argv)


@pytest.fixture
def flags(requests_file: Path) -> Any:
    def make(address: str, *more: str) -> argparse.Namespace:
        named = ("--target", address, "--model", "m", "--requests", str(requests_file))
        return parse(*named, "--max-warmup", "0.3", *more)

    return make


def test_the_json_has_the_keys_that_are_promised(
    flags: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with ScriptedServer(Constant(2.0)) as server:
        args = flags(server.grpc_address, "--rate", "200", "--duration", "1", "--json")
        assert load.run(args) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed["latency_ms"]) == {"p50", "p95", "p99", "mean", "max"}
    low, high = printed["interval_ms"]["p99"]
    assert low <= high
    assert printed["throughput_rps"] == pytest.approx(200, rel=0.4)
    assert printed["errors"] == {}
    assert printed["client_lag_ms"]["p99"] >= 0
    assert (printed["valid"], printed["reason"]) == (True, None)
    assert printed["requests"] == sum(entry["requests"] for entry in printed["timeline"])


def test_an_invalid_stage_is_told_with_exit_code_0(
    flags: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with ScriptedServer(Instant(), error_rate=0.6) as server:
        args = flags(server.rest_address, "--protocol", "rest", "--rate", "300", "--duration", "1")
        assert load.run(args) == 0
    assert "invalid     errors" in capsys.readouterr().out


def test_a_level_is_calibrated_first(flags: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(Constant(10.0), concurrency=2) as server:
        args = flags(server.grpc_address, "--rate", "light", "--duration", "1", "--json")
        assert load.run(args) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["capacity_rps"] == pytest.approx(200, rel=0.15)
    assert printed["target_rate_rps"] == pytest.approx(0.3 * printed["capacity_rps"])


def test_samples_are_kept_where_asked(flags: Any, tmp_path: Path) -> None:
    with ScriptedServer(Instant()) as server:
        where = str(tmp_path / "samples.npz")
        load.run(flags(server.grpc_address, "--rate", "100", "--duration", "1", "--samples", where))
    assert set(np.load(where).files) == {
        "due_s", "sent_s", "latency_ms", "status", "request", "model",
    }  # fmt: skip


def test_no_server_is_one_line(flags: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.load.prepare.CONNECT_TIMEOUT_S", 0.3)
    with pytest.raises(UnavailableError, match="no connection to 127.0.0.1:9"):
        load.run(flags("127.0.0.1:9", "--rate", "10"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--rate", "fast"), "light, medium, high"),
        (("--pattern", "closed", "--rate", "5"), "closed loop has no rate"),
        (("--rate", "5", "--duration", "2", "--min-duration", "1"), "--duration sets both"),
        ((), "--rate"),
    ],
)
def test_contradictory_flags_say_what_to_leave_out(
    flags: Any, more: tuple[str, ...], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        load.run(flags("127.0.0.1:9", *more))


def test_duration_sets_both_bounds_and_a_short_maximum_lowers_the_minimum(flags: Any) -> None:
    both = load.plan_from(flags("h:1", "--rate", "1", "--duration", "3"))
    assert (both.min_duration_s, both.max_duration_s) == (3.0, 3.0)
    short = load.plan_from(flags("h:1", "--rate", "1", "--max-duration", "2"))
    assert (short.min_duration_s, short.max_duration_s) == (2.0, 2.0)
    long = load.plan_from(flags("h:1", "--rate", "1", "--min-duration", "30"))
    assert (long.min_duration_s, long.max_duration_s) == (30.0, 30.0)
