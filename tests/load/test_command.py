"""``tuner load``: the flags and the JSON that others build on."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.metronome import in_time
from tuner.cli import load
from tuner.errors import UnavailableError, UsageError
from tuner.load import calibrate, machine
from tuner.load.requests import Input
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

        def printed_stage() -> Any:
            assert load.run(args) == 0
            return json.loads(capsys.readouterr().out)

        printed = in_time(printed_stage, lambda stage: stage["reason"] == "client_limited")
    assert set(printed["latency_ms"]) == {"p50", "p95", "p99", "mean", "max"}
    low, high = printed["interval_ms"]["p99"]
    assert low <= printed["latency_ms"]["p99"]
    assert high is None  # 200 requests hold no upper end of a p99
    assert printed["throughput_rps"] == pytest.approx(200, rel=0.4)
    assert printed["errors"] == {}
    assert printed["client_lag_ms"]["p99"] >= 0
    assert (printed["valid"], printed["reason"]) == (True, None)
    assert printed["requests"] == sum(entry["requests"] for entry in printed["timeline"])


def others_use(monkeypatch: pytest.MonkeyPatch, share: float | None) -> None:
    """Let others have this share of the machine in every stretch of time."""
    told = {"busy": 0.9, "steal": 0.0, "others": share, "seconds": 1.0}
    monkeypatch.setattr(machine.Span, "ended", lambda span: dict(told))


@pytest.mark.parametrize(
    ("share", "json_says", "text_says"),
    [(0.02, None, None), (0.98, "other work used 98% of the machine", "disturbed   other work"),
     (None, None, "other work  untold")],
)
def test_a_stage_on_a_machine_that_others_use_says_so(
    flags: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    share: float | None, json_says: str | None, text_says: str | None,
) -> None:
    others_use(monkeypatch, share)
    # Others that are there in earnest, while tests run, are not what this is about.
    monkeypatch.setattr(machine, "OTHERS_LIMIT", 1.0)
    monkeypatch.setattr(machine, "STEAL_LIMIT", 1.0)
    with ScriptedServer(Constant(2.0)) as server:
        flagged = flags(server.grpc_address, "--rate", "100", "--duration", "1")
        assert load.run(flagged) == 0
        text = capsys.readouterr().out
        flagged.json = True
        assert load.run(flagged) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["disturbed"] == told["details"]["disturbed"]
    assert told["disturbed"] is None if json_says is None else json_says in told["disturbed"]
    assert text_says in text if text_says else "other work" not in text


def test_the_work_of_the_server_that_listens_at_the_target_is_not_others(
    flags: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    whole = machine.Span.__init__

    def begin(span: Any, server_pids: Any = (), client_pids: Any = ()) -> None:
        asked.append((server_pids, len(client_pids)))
        whole(span, server_pids, client_pids)

    monkeypatch.setattr(machine.Span, "__init__", begin)
    with ScriptedServer(Constant(2.0)) as server:
        assert load.run(flags(server.grpc_address, "--rate", "100", "--duration", "1")) == 0
        assert server._process is not None
        pid = server._process.pid
    # Before the stage, of the stage, of its window.
    assert asked == [((pid,), 0), ((pid,), 0), ((pid,), 1)]


def test_waiting_in_vain_for_a_quiet_machine_sends_nothing(
    flags: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    others_use(monkeypatch, 0.9)
    with ScriptedServer(Instant()) as server:
        args = flags(server.grpc_address, "--rate", "9", "--wait-for-quiet", "0.1s")
        monkeypatch.setattr(load, "run_stage", None)
        with pytest.raises(UnavailableError, match="stayed busy"):
            load.run(args)


def test_an_invalid_stage_is_told_with_exit_code_0(
    flags: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with ScriptedServer(Instant(), error_rate=0.6) as server:
        args = flags(server.rest_address, "--protocol", "rest", "--rate", "300", "--duration", "1")
        assert load.run(args) == 0
    assert "invalid     errors" in capsys.readouterr().out


def test_a_level_is_calibrated_first(
    flags: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "calibrate", partial(calibrate, duration_s=1.0))
    with ScriptedServer(Constant(10.0), concurrency=2) as server:
        args = flags(server.grpc_address, "--rate", "light", "--duration", "1", "--json")
        assert load.run(args) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["capacity_rps"] == pytest.approx(200, rel=0.15)
    assert printed["target_rate_rps"] == pytest.approx(0.3 * printed["capacity_rps"])


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_a_load_where_every_request_fails_says_why(
    flags: Any, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    status = {"grpc": "UNAVAILABLE", "rest": "HTTP_503"}[protocol]
    with ScriptedServer(Instant(), error_rate=1.0) as server:
        address = server.grpc_address if protocol == "grpc" else server.rest_address
        wanted = ("--protocol", protocol, "--rate", "400", "--duration", "1", "--json")
        assert load.run(flags(address, *wanted)) == 0
        printed = json.loads(capsys.readouterr().out)
        assert load.run(flags(address, *wanted[:-1])) == 0
        told = capsys.readouterr().out
    assert (printed["valid"], printed["reason"]) == (False, "errors")
    assert set(printed["errors"]) == {status}
    assert printed["errors"][status] >= 20
    assert f"{status}: " in printed["message"]
    assert "failed on purpose" in printed["message"]
    assert "errors: none" not in told
    assert f"errors: {status} " in told
    assert "before the measured window" in told


class Told:
    """Stands in for a server's answer about its signatures."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **inputs: Input) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.inputs = inputs
        monkeypatch.setattr("tuner.load.ask.signatures", self)

    def __call__(self, *asked: str) -> dict[str, dict[str, Input]]:
        self.asked.append(asked)
        return {"serving_default": self.inputs}


def test_random_requests_have_the_shape_that_the_server_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path))
    told = Told(monkeypatch, a=Input("float32", (-1, 4, 2)), b=Input("int64", (-1,)))
    args = parse("--target", "h:1", "--model", "m", "--requests", "random", "--rate", "5")
    made = np.load(load.requests_file(args))
    assert told.asked == [("h:1", "m", "grpc")]
    assert {name: (made[name].dtype.name, made[name].shape[1:]) for name in made.files} == {
        "a": ("float32", (4, 2)), "b": ("int64", ()),
    }  # fmt: skip


def test_a_folder_of_images_becomes_rows_of_the_models_size(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path))
    Told(monkeypatch, images=Input("float32", (-1, 8, 10, 3)))
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (40, 30), "red").save(folder / "one.png")
    args = parse("--target", "h:1", "--model", "m", "--requests", str(folder), "--rate", "5")
    made = np.load(load.requests_file(args))
    assert made["images"].shape[1:] == (8, 10, 3)


@pytest.mark.parametrize(
    ("protocol", "says"),
    [("grpc", "does not tell what model"), ("rest", "does not tell what model")],
)
def test_a_server_that_does_not_tell_its_inputs_is_one_line(protocol: str, says: str) -> None:
    with ScriptedServer() as server:
        address = server.grpc_address if protocol == "grpc" else server.rest_address
        more = ("--protocol", protocol, "--rate", "5")
        args = parse("--target", address, "--model", "m", "--requests", "random", *more)
        with pytest.raises(UnavailableError, match=says):
            load.run(args)


@pytest.mark.parametrize("requests", ["file", "random"])
def test_a_refused_connection_is_named(flags: Any, requests: str) -> None:
    args = flags("127.0.0.1:9", "--rate", "10")
    if requests == "random":
        args.requests = "random"
    with pytest.raises(UnavailableError, match="no connection to 127.0.0.1:9: connection refused"):
        load.run(args)


def test_samples_are_kept_where_asked(flags: Any, tmp_path: Path) -> None:
    with ScriptedServer(Instant()) as server:
        where = str(tmp_path / "samples.npz")
        load.run(flags(server.grpc_address, "--rate", "100", "--duration", "1", "--samples", where))
    assert set(np.load(where).files) == {
        "due_s", "sent_s", "latency_ms", "status", "request", "model",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--rate", "fast"), "light, medium, high"),
        (("--pattern", "closed", "--rate", "5"), "closed loop has no rate"),
        (("--rate", "5", "--duration", "2", "--min-duration", "1"), "--duration sets both"),
        ((), "needs a rate above 0: --rate"),
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
