"""The load stage as its callers see it: reasons, observer, determinism, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from scipy import stats

from tests.metronome import in_time
from tuner.errors import TrialFailure, UsageError
from tuner.load import calibrate, rate_for, run_stage, scratch
from tuner.load.scripted import Bimodal, Constant, Instant, ScriptedServer
from tuner.measurement import REASONS, StageResult


def thaw(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def was_late(result: StageResult) -> bool:
    return result.reason == "client_limited"


class Watcher:
    """Notes what the stage tells, and may interfere."""

    def __init__(self, stop: str | None = None, freeze_s: float = 0.0) -> None:
        self.opened = self.closed = 0.0
        self.pids: Sequence[int] = ()
        self.stop, self.freeze_s = stop, freeze_s
        self.asked = 0

    def window_opened(self, client_pids: Sequence[int]) -> None:
        self.opened, self.pids = time.monotonic(), client_pids
        if self.freeze_s:
            for pid in client_pids:
                os.kill(pid, signal.SIGSTOP)
                threading.Timer(self.freeze_s, thaw, (pid,)).start()

    def window_closed(self) -> None:
        self.closed = time.monotonic()

    def should_stop(self) -> str | None:
        self.asked += 1
        return self.stop if self.opened else None


@pytest.fixture(scope="module")
def server() -> Any:
    with ScriptedServer(Constant(3.0)) as running:
        yield running


def test_a_stage_fills_the_whole_record(server: Any, make_plan: Any, tmp_path: Path) -> None:
    samples = tmp_path / "deep" / "samples.npz"
    result = run_stage(make_plan(server.grpc_address, samples_file=samples, max_duration_s=1.5))
    # A crowded machine may make the client late; everything else must be there all the same.
    assert result.reason in (None, "client_limited")
    assert result.valid == (result.reason is None)
    assert result.errors == {}
    assert result.requests == pytest.approx(150, abs=60)
    assert result.throughput_rps == pytest.approx(result.requests / result.window_s)
    assert result.latency_p50_ms <= result.latency_p95_ms <= result.latency_p99_ms
    assert result.latency_p99_ms <= result.latency_max_ms
    low, high = result.latency_p99_interval_ms
    assert low <= result.latency_p99_ms * 1.001
    assert high is None or result.latency_p99_ms <= high <= result.latency_max_ms
    assert result.client_cpu_s > 0
    assert [entry["second"] for entry in result.timeline] == [0, 1]
    assert sum(entry["requests"] for entry in result.timeline) == result.requests
    assert result.details["client_placement"][0]["policy"] in ("fifo", "other")
    assert result.details["load_average_1m"] >= 0
    kept = np.load(result.samples_file)
    assert {len(kept[name]) for name in kept.files} == {result.requests}
    assert np.median(kept["latency_ms"]) == pytest.approx(result.latency_p50_ms, rel=0.01)


def test_the_observer_hears_of_the_window_as_it_opens_and_closes(
    server: Any, make_plan: Any
) -> None:
    watcher = Watcher()
    result = run_stage(make_plan(server.grpc_address), watcher)
    assert watcher.opened - result.details["window_opened_monotonic_s"] < 0.02
    assert watcher.closed - watcher.opened == pytest.approx(result.window_s, abs=0.02)
    assert len(watcher.pids) == 1
    assert watcher.asked >= 4


def test_the_same_seed_sends_the_same_requests_at_the_same_times(
    server: Any, make_plan: Any, tmp_path: Path
) -> None:
    kept = []
    for name, fields in (("a", {}), ("b", {"max_warmup_s": 0.2}), ("c", {"seed": 1})):
        plan = make_plan(server.grpc_address, popularity="zipf:1.1", **fields)
        run_stage(replace(plan, samples_file=tmp_path / name))
        kept.append(np.load(tmp_path / name))
    first, again, other = kept
    assert np.allclose(first["due_s"], again["due_s"], atol=1e-9)
    assert np.array_equal(first["request"], again["request"])
    assert not np.array_equal(first["due_s"][:20], other["due_s"][:20])


def test_several_processes_share_one_arrival_sequence(
    server: Any, make_plan: Any, tmp_path: Path
) -> None:
    kept = []
    for processes in (1, 3):
        samples = tmp_path / f"{processes}"
        watcher = Watcher()
        plan = make_plan(
            server.grpc_address, processes=processes, samples_file=samples, rate_rps=300.0
        )
        result = run_stage(plan, watcher)
        assert result.reason in (None, "client_limited")
        assert len(watcher.pids) == processes
        kept.append(np.load(samples))
    assert np.allclose(kept[0]["due_s"], kept[1]["due_s"], atol=1e-9)
    if not result.valid:
        pytest.skip(f"the machine was too busy to send in time: {result.message}")
    # What went out, from all processes together, is still a Poisson process.
    gaps = np.diff(np.sort(kept[1]["sent_s"]))
    assert stats.kstest(gaps, "expon", (0, 1 / 300.0)).pvalue > 1e-3


def test_several_models_are_asked_in_turn(server: Any, make_plan: Any, tmp_path: Path) -> None:
    samples = tmp_path / "s"
    run_stage(make_plan(server.grpc_address, model_names=("a", "b", "c"), samples_file=samples))
    model = np.load(samples)["model"]
    assert model[:6].tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_a_closed_loop_has_as_many_requests_under_way_as_clients(
    server: Any, make_plan: Any, protocol: str
) -> None:
    address = server.grpc_address if protocol == "grpc" else server.rest_address
    plan = make_plan(address, protocol=protocol, pattern="closed", clients=4, rate_rps=None)
    result = run_stage(replace(plan, processes=2))
    assert result.valid
    # Little's law: mean number under way = throughput x mean latency.
    under_way = result.throughput_rps * result.latency_mean_ms / 1e3
    assert under_way == pytest.approx(4, rel=0.1)


def test_calibration_finds_the_capacity_and_levels_are_shares_of_it(make_plan: Any) -> None:
    with ScriptedServer(Constant(20.0), concurrency=4) as server:
        capacity = calibrate(make_plan(server.grpc_address), clients=8, duration_s=1.0)
    assert capacity == pytest.approx(200, rel=0.1)
    assert rate_for("medium", 200.0) == pytest.approx(120)
    assert rate_for("35.5", None) == 35.5
    with pytest.raises(UsageError, match="light, medium, high"):
        rate_for("heavy", 200.0)
    with pytest.raises(UsageError, match="needs a calibrated capacity"):
        rate_for("light", None)


def test_calibration_of_a_server_that_fails_is_a_failure_with_its_reason(make_plan: Any) -> None:
    with ScriptedServer(Instant(), error_rate=0.5) as server, pytest.raises(TrialFailure) as raised:
        calibrate(make_plan(server.grpc_address), clients=2, duration_s=1.0)
    assert raised.value.reason == "errors"


def test_a_queue_without_bound_ends_the_stage_as_overloaded(make_plan: Any) -> None:
    with ScriptedServer(Constant(20.0), concurrency=2) as server:
        began = time.monotonic()
        result = run_stage(
            make_plan(server.grpc_address, rate_rps=300.0, min_duration_s=20, max_duration_s=20)
        )
    assert (result.valid, result.reason) == (False, "overloaded")
    assert "requests/s arrived" in result.message
    assert time.monotonic() - began < 8


def test_a_server_that_answers_nothing_ends_the_stage_as_that(make_plan: Any) -> None:
    with ScriptedServer(Constant(60_000.0)) as server:
        began = time.monotonic()
        result = run_stage(
            make_plan(server.grpc_address, rate_rps=50.0, min_duration_s=20, max_duration_s=20)
        )
    assert (result.valid, result.reason) == (False, "no_answers")
    assert "none of" in result.message
    assert time.monotonic() - began < 8


@pytest.mark.parametrize(("protocol", "status"), [("grpc", "UNAVAILABLE"), ("rest", "HTTP_503")])
def test_too_many_errors_end_the_stage_and_are_counted_by_status(
    make_plan: Any, protocol: str, status: str
) -> None:
    with ScriptedServer(Instant(), error_rate=0.2) as server:
        address = server.grpc_address if protocol == "grpc" else server.rest_address
        plan = make_plan(address, protocol=protocol)
        early = run_stage(replace(plan, max_warmup_s=3.0))
        whole = run_stage(replace(plan, max_error_rate=0.19, max_warmup_s=0.0))
    assert early.reason == "errors"
    assert "failed, 1.0% are allowed" in early.message
    assert set(whole.errors) <= {status}
    if whole.details.get("error_messages"):
        assert "failed on purpose" in whole.details["error_messages"][status]


def test_errors_within_the_limit_do_not_spoil_a_stage(make_plan: Any) -> None:
    with ScriptedServer(Instant(), error_rate=0.05) as server:
        plan = make_plan(server.grpc_address, max_error_rate=0.3)
        result = in_time(lambda: run_stage(plan), was_late)
    assert result.valid
    assert 0 < result.errors["UNAVAILABLE"] < 0.2 * result.requests
    assert "failed on purpose" in result.details["error_messages"]["UNAVAILABLE"]


def test_a_client_that_was_late_makes_the_stage_invalid(server: Any, make_plan: Any) -> None:
    result = run_stage(make_plan(server.grpc_address), Watcher(freeze_s=0.15))
    assert (result.valid, result.reason) == (False, "client_limited")
    assert result.client_lag_p99_ms > 50


def test_a_client_that_falls_far_behind_ends_the_stage(server: Any, make_plan: Any) -> None:
    plan = make_plan(server.grpc_address, min_duration_s=20, max_duration_s=20)
    began = time.monotonic()
    result = run_stage(plan, Watcher(freeze_s=6.0))
    assert (result.valid, result.reason) == (False, "client_limited")
    assert time.monotonic() - began < 8


def test_a_server_that_dies_ends_the_stage_at_once(server: Any, make_plan: Any) -> None:
    watcher = Watcher(stop="the server ended with code 1")
    plan = make_plan(server.grpc_address, min_duration_s=20, max_duration_s=20)
    result = run_stage(plan, watcher)
    assert (result.reason, result.message) == ("crash", "the server ended with code 1")
    assert watcher.closed - watcher.opened < 0.5


def test_a_window_where_nothing_is_answered_is_no_measurement(make_plan: Any) -> None:
    with ScriptedServer(Constant(60_000.0)) as server:
        result = run_stage(make_plan(server.grpc_address, rate_rps=5.0, request_timeout_s=0.5))
    assert not result.valid
    assert result.reason in ("errors", "no_answers")
    assert result.errors.get("DEADLINE_EXCEEDED", 0) > 0
    assert result.latency_p99_ms is None


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_no_server_is_a_reason_that_names_the_address(
    make_plan: Any, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.load.prepare.CONNECT_TIMEOUT_S", 0.5)
    result = run_stage(make_plan("127.0.0.1:9", protocol=protocol))
    assert (result.valid, result.reason) == (False, "no_answers")
    assert "127.0.0.1:9" in result.message
    assert result.details["connected"] is False


def test_a_stage_ends_once_the_percentile_is_known_well_enough(make_plan: Any) -> None:
    """Other work on the machine may spoil the last moments, after the stage decided to end."""
    results = []
    with ScriptedServer(Bimodal(2.0, 50.0, slow_share=0.2)) as server:
        plan = make_plan(server.grpc_address, rate_rps=400.0, precision=0.25)
        for _ in range(3):
            result = run_stage(replace(plan, min_duration_s=1.0, max_duration_s=20.0))
            results.append((result.window_s, result.details["machine_window"]))
            assert result.window_s < 20, results
            if result.precise:
                break
        else:
            raise AssertionError(f"never as precise as asked: {results}")
    low, high = result.latency_p99_interval_ms
    assert (high - low) / 2 <= 0.25 * result.latency_p99_ms
    assert result.window_s < 10


def test_every_reason_of_the_stage_is_a_known_one() -> None:
    raised = {"client_limited", "overloaded", "errors", "crash", "no_answers", "client_failed"}
    assert raised <= set(REASONS)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"pattern": "wild"}, "closed, constant, poisson"),
        ({"protocol": "soap"}, "grpc, rest"),
        ({"min_duration_s": 3.0}, "minimum <= maximum"),
        ({"rate_rps": 0.0}, "rate_rps must be above 0"),
        ({"rows_per_request": 0}, "rows_per_request must be above 0"),
        ({"pattern": "closed", "processes": 2}, "cannot be split"),
        ({"popularity": "zipf:x"}, "zipf:S"),
        ({"protocol": "rest", "address": "unix:/x"}, "UNIX socket"),
    ],
)
def test_a_plan_that_cannot_be_followed_says_what_would_be_right(
    make_plan: Any, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        run_stage(make_plan(**fields))


ORPHAN = """
import sys
from pathlib import Path
from tuner.load import StagePlan, run_stage
class Tell:
    def window_opened(self, pids): print(*pids, flush=True)
    def window_closed(self): pass
    def should_stop(self): return None
run_stage(StagePlan(sys.argv[1], ("m",), Path(sys.argv[2]), rate_rps=50.0, processes=2,
                    min_duration_s=60, max_duration_s=60, max_warmup_s=0.2), Tell())
"""


def test_the_load_dies_with_a_killed_parent_and_its_folder_is_swept(
    server: Any, requests_file: Path, root: Path
) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, server.grpc_address, str(requests_file)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert parent.stdout is not None
    clients = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(clients) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(clients, timeout=5)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    assert list(scratch.root().glob(f"{scratch.PREFIX}{parent.pid}-*"))
    scratch.sweep()
    assert not list(scratch.root().glob(f"{scratch.PREFIX}{parent.pid}-*"))


def test_a_stage_leaves_no_process_and_no_folder(server: Any, make_plan: Any) -> None:
    watcher = Watcher()
    run_stage(make_plan(server.grpc_address), watcher)
    assert not any(psutil.pid_exists(pid) for pid in watcher.pids)
    assert not list(scratch.root().glob(f"{scratch.PREFIX}{os.getpid()}-*"))


def test_the_load_generator_imports_neither_tensorflow_nor_numpy(root: Path) -> None:
    code = (
        "import sys, tuner.load.client, tuner.load.grpc_client;"
        "print([m for m in ('tensorflow', 'numpy', 'google.protobuf', 'grpc') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.strip() == "[]"
