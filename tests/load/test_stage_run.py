"""The course of a stage by a clock that stands still unless the stage sleeps: no processes, no server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import pytest

from tuner.errors import TrialFailure
from tuner.load import machine, stage
from tuner.load.base import StagePlan
from tuner.load.prepare import Prepared
from tuner.load.processes import RECORD_DTYPE
from tuner.load.requests import Payload
from tuner.measurement import StageResult
from tuner.rows import Rows

BEGUN_S = 1_000.0
HALF_BUSY = machine.Share(busy=0.5, steal=0.25)


def never(_now_s: float) -> bool:
    return False


def always(_now_s: float) -> bool:
    return True


class Clock:
    def __init__(self) -> None:
        self.now_s = BEGUN_S
        self.sleeps: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.sleeps.append(seconds)
        assert len(self.sleeps) < 10_000
        self.now_s += max(seconds, 1e-7)


@dataclass
class Script:
    """What the stage finds, by seconds since the window's opening (warm-up: since the start)."""

    steady: Callable[[float], bool] = always
    precise: Callable[[float], bool] = always
    precise_takes_s: float = 0.0
    answered: Callable[[float], bool] = always
    """By seconds since the window's close."""
    doomed: Callable[[float], bool] = never
    """Whether a look inside the window ends the stage."""
    doomed_in_warmup: Callable[[float], bool] = never
    crashed_in_drain: bool = False
    grew: bool = False
    ready: bool = True
    speaks: bool = True
    status: int = 0
    reports: Sequence[dict[str, Any]] = (
        {"cpu_s": 1.5, "messages": {}}, {"cpu_s": 2.25, "messages": {}},
    )
    share: machine.Share | None = HALF_BUSY
    length_s: float = 10.0
    trace: dict[str, object] | None = None
    events: list[tuple[float, str, Any]] = field(default_factory=list)

    def times(self, name: str) -> list[float]:
        return [when_s for when_s, what, _ in self.events if what == name]

    def values(self, name: str) -> list[Any]:
        return [value for _, what, value in self.events if what == name]


class Watch:
    """In place of ``watch.Watch``: follows the script and notes when it was asked."""

    def __init__(self, script: Script, clock: Clock, clients: Clients) -> None:
        self.script, self.clock, self.clients = script, clock, clients
        self.started_s = self.opened_s = float("inf")
        self.records: np.ndarray | None = None

    def note(self, name: str, value: Any = None) -> None:
        self.script.events.append((self.clock.now_s, name, value))

    def read(self) -> np.ndarray:
        self.note("read")
        self.records = self.clients.read()
        return self.records

    def look(self, window: bool) -> None:
        self.note("look", window)
        self.read()
        if self.script.doomed(self.clock.now_s - self.opened_s):
            raise TrialFailure("overloaded", "the queue grows")

    def is_steady(self) -> bool:
        self.note("steady")
        self.read()
        if self.script.doomed_in_warmup(self.clock.now_s - self.started_s):
            raise TrialFailure("errors", "9 of 10 requests failed")
        return self.script.steady(self.clock.now_s - self.started_s)

    def is_precise(self) -> bool:
        self.note("precise")
        told = self.script.precise(self.clock.now_s - self.opened_s)
        self.clock.now_s += self.script.precise_takes_s
        return told

    def check_server(self) -> None:
        self.note("server")
        if self.script.crashed_in_drain:
            raise TrialFailure("crash", "the server ended")

    def all_answered(self, closed_s: float) -> bool:
        self.note("answered", closed_s)
        self.read()
        return self.script.answered(self.clock.now_s - closed_s)

    def check_backlog(self) -> None:
        self.note("backlog")
        if self.script.grew:
            raise TrialFailure("overloaded", "the queue grew all the while")


class Clients:
    """In place of the load generator's processes: ten requests a second from the start on."""

    placed = ({"policy": "fifo"},)

    def __init__(self, script: Script, clock: Clock) -> None:
        self.script, self.clock = script, clock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.script.events.append((self.clock.now_s, "ended", None))

    def pids(self) -> tuple[int, ...]:
        return 11, 12

    def wait_ready(self) -> bytes | None:
        if not self.script.ready:
            raise TrialFailure("no_answers", "nobody listens")
        return b"metadata"

    def command(self, text: str) -> None:
        name, moment = text.split()
        self.script.events.append((self.clock.now_s, name, float(moment)))

    def read(self) -> np.ndarray:
        opened = [*self.script.values("open"), float("inf")][0]
        due = np.arange(BEGUN_S + 0.07, self.clock.now_s, 0.1)
        table = np.zeros(len(due), RECORD_DTYPE)
        table["due"] = table["sent"] = due
        table["done"] = due + 0.005
        table["window"] = due >= opened
        table["status"] = self.script.status
        table["number"] = np.arange(len(due))
        return table

    def reports(self, timeout_s: float) -> list[dict[str, Any]]:
        self.script.events.append((self.clock.now_s, "reports", timeout_s))
        if not self.script.speaks:
            raise TrialFailure("client_failed", "the load generator did not answer")
        return list(self.script.reports)


class Observer:
    def __init__(self, script: Script, clock: Clock) -> None:
        self.script, self.clock = script, clock

    def window_opened(self, client_pids: Sequence[int]) -> None:
        self.script.events.append((self.clock.now_s, "told open", tuple(client_pids)))

    def window_closed(self) -> None:
        self.script.events.append((self.clock.now_s, "told closed", None))

    def should_stop(self) -> str | None:
        return None


Drive = Callable[..., StageResult]


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Drive:
    """Runs a stage by a script; ``observed=False`` for none who watches."""

    def run(script: Script, observed: bool = True, **fields: Any) -> StageResult:
        clock = Clock()
        clients = Clients(script, clock)
        prepared = Prepared(
            jobs=[], warmup_arrivals=np.array([]), window_arrivals=np.array([]),
            window_order=np.arange(7), payload=Payload(Path(), np.array([20, 40]), np.array([[0], [1]])),
            rows=Rows({"x": np.zeros(2)}, {}, 2), window_length_s=script.length_s, cycle_s=1.0, trace=script.trace,
        )

        @contextlib.contextmanager
        def folder() -> Iterator[Path]:
            yield tmp_path

        def clients_of(jobs: Any, where: Path, placed: Any) -> Clients:
            assert (jobs, where, placed) == ([], tmp_path, ("placed", fields.get("processes", 1), (3,)))
            return clients

        def check(plan: StagePlan, rows: Rows, answer: bytes | None) -> bool:
            return (rows.names, answer) == ({"x"}, b"metadata")

        ended = SimpleNamespace(ended=lambda pids: {"busy_others": 0.125, "pids": pids})
        for place, name, stand_in in (
            (stage, "time", clock),
            (stage, "prepare", lambda plan, where: prepared),
            (stage, "ClientProcesses", clients_of),
            (stage, "Watch", lambda plan, prepared, clients, observer: Watch(script, clock, clients)),
            (stage.scratch, "folder", folder),
            (stage.placement, "place", lambda count, cores: ("placed", count, cores)),
            (stage.placement, "urgent", contextlib.nullcontext),
            (stage.metadata, "check", check),
            (stage.machine, "Preparation", lambda: ended),
            (stage.machine, "load_average", lambda: 0.75),
            (stage.machine, "snapshot", lambda: clock.now_s),
            (stage.machine, "between", lambda a, b: script.share if b > a else None),
        ):
            monkeypatch.setattr(place, name, stand_in)
        plan = StagePlan("", ("m",), Path(), **({
            "min_duration_s": 4.0, "max_duration_s": 10.0, "max_warmup_s": 5.0, "rate_rps": 10.0,
            "precision": 100.0, "details": {"client_cores": (3,)},
        } | fields))
        return stage.run_stage(plan, Observer(script, clock) if observed else None)

    return run


def once(script: Script, name: str) -> float:
    """When something happened that happens once."""
    (when_s,) = script.times(name)
    return when_s


def test_commands_name_a_moment_a_twentieth_of_a_second_ahead(drive: Drive) -> None:
    script = Script()
    drive(script)
    for name in ("start", "open"):
        (moment_s,) = script.values(name)
        assert moment_s - once(script, name) == pytest.approx(0.05)
    assert once(script, "start") == BEGUN_S
    (close_s,) = script.values("close")
    assert 0.05 - 1e-6 <= close_s - once(script, "close") <= 0.1 + 1e-6


def test_a_steady_load_is_warmed_up_for_a_second(drive: Drive) -> None:
    script = Script()
    result = drive(script)
    asked = np.array(script.times("steady")) - script.values("start")[0]
    assert asked == pytest.approx(np.arange(0.05, 1.06, 0.1), abs=1e-5)
    assert result.warmup_s == pytest.approx(1.1, abs=1e-5)  # the last look, and the lead
    assert result.details["warm"] is True


def test_the_warm_up_ends_after_two_steady_looks_in_a_row(drive: Drive) -> None:
    def steady(elapsed_s: float) -> bool:
        return 1.9 < elapsed_s < 2.0 or elapsed_s > 2.5

    result = drive(Script(steady))
    assert result.warmup_s == pytest.approx(2.65 + 0.05, abs=1e-5)  # looks at 2.55 and 2.65
    assert result.details["warm"] is True


def test_the_warm_up_ends_at_its_limit_and_says_that_it_is_not_steady(drive: Drive) -> None:
    script = Script(never)
    result = drive(script, max_warmup_s=3.32)
    assert script.times("steady")[-1] - script.values("start")[0] == pytest.approx(3.32, abs=1e-5)
    assert result.warmup_s == pytest.approx(3.37, abs=1e-5)
    assert result.details["warm"] is False


def test_no_time_for_a_warm_up_opens_the_window_at_once(drive: Drive) -> None:
    script = Script(never)
    drive(script, max_warmup_s=0.02)
    (opened_s,) = script.values("open")
    assert opened_s == pytest.approx(BEGUN_S + 0.05 + 0.02 + 0.05, abs=1e-5)


def test_the_observer_hears_of_the_window_as_it_opens_and_closes(drive: Drive) -> None:
    script = Script()
    result = drive(script)
    assert once(script, "told open") == pytest.approx(script.values("open")[0], abs=1e-6)
    assert once(script, "told closed") == pytest.approx(script.values("close")[0], abs=1e-6)
    assert script.values("told open") == [(11, 12)]
    assert result.details["window_opened_monotonic_s"] == script.values("open")[0]
    assert result.window_s == pytest.approx(script.values("close")[0] - script.values("open")[0])


def test_a_precise_window_ends_at_its_least_length(drive: Drive) -> None:
    script = Script()
    result = drive(script)
    assert result.window_s == pytest.approx(4.0, abs=1e-9)
    assert once(script, "precise") - script.values("open")[0] == pytest.approx(3.9, abs=1e-5)


def test_the_window_is_looked_at_for_its_precision_twice_a_second(drive: Drive) -> None:
    script = Script(precise=lambda elapsed_s: elapsed_s > 5.0)
    result = drive(script)
    asked = np.array(script.times("precise")) - script.values("open")[0]
    assert asked == pytest.approx([3.9, 4.4, 4.9, 5.4], abs=1e-5)
    assert result.window_s == pytest.approx(5.5, abs=1e-9)


def test_a_window_that_is_never_precise_ends_at_its_greatest_length(drive: Drive) -> None:
    script = Script(precise=never)
    result = drive(script)
    assert result.window_s == pytest.approx(10.0, abs=1e-9)
    assert len(script.times("precise")) == 12  # 3.9, 4.4, … 9.4
    looks = np.array(script.times("look")) - script.values("open")[0]
    assert looks == pytest.approx(np.arange(0.1, 9.91, 0.1), abs=1e-4)
    assert all(script.values("look"))


def test_a_slow_look_at_the_precision_ends_the_window_a_lead_later(drive: Drive) -> None:
    script = Script(precise_takes_s=0.3)
    result = drive(script)
    assert result.window_s == pytest.approx(3.9 + 0.3 + 0.05, abs=1e-4)
    assert script.values("close")[0] - once(script, "close") == pytest.approx(0.05)


@pytest.mark.parametrize("pattern", ["ramp", "staircase", "trace"])
def test_a_schedule_runs_whole_however_precise(drive: Drive, pattern: str) -> None:
    script = Script(length_s=6.5)
    assert drive(script, pattern=pattern).window_s == pytest.approx(6.5, abs=1e-9)
    assert script.times("precise") == []


def test_a_load_shorter_than_the_least_length_ends_with_itself(drive: Drive) -> None:
    assert drive(Script(length_s=2.5)).window_s == pytest.approx(2.5, abs=1e-9)


@pytest.mark.parametrize(("timeout_s", "waited_s"), [(30.0, 5.0), (4.9, 5.0), (1.0, 1.1), (0.5, 0.6)])
def test_the_drain_waits_as_long_as_an_answer_may_take_and_five_seconds_at_most(
    drive: Drive, timeout_s: float, waited_s: float
) -> None:
    script = Script(answered=never)
    drive(script, request_timeout_s=timeout_s)
    (closed_s,) = script.values("close")
    assert once(script, "reports") - closed_s == pytest.approx(waited_s, abs=0.02)
    assert once(script, "reports") >= closed_s + waited_s - 1e-6
    assert set(script.values("answered")) == {closed_s}
    assert len(script.times("server")) == pytest.approx(waited_s / 0.02, abs=2)


def test_the_drain_ends_with_the_last_answer(drive: Drive) -> None:
    script = Script(answered=lambda since_s: since_s > 0.3)
    drive(script)
    assert once(script, "reports") - script.values("close")[0] == pytest.approx(0.31, abs=0.011)
    script = Script()
    drive(script)
    assert once(script, "reports") == pytest.approx(once(script, "told closed"))


def test_the_window_holds_its_requests_and_the_client_its_cpu_time(drive: Drive) -> None:
    result = drive(Script())
    assert (result.valid, result.reason, result.requests) == (True, None, 40)
    assert result.latency_p50_ms == pytest.approx(5.0)
    assert result.client_cpu_s == 3.75
    assert result.details["machine_window"] == {"busy": 0.5, "steal": 0.25}


def test_a_client_that_cannot_count_its_cpu_time_leaves_the_sum_unknown(drive: Drive) -> None:
    reports = ({"cpu_s": 1.5, "messages": {}}, {"cpu_s": None, "messages": {}})
    assert drive(Script(reports=reports)).client_cpu_s is None


def test_a_machine_that_does_not_count_its_time_leaves_no_share(drive: Drive) -> None:
    assert "machine_window" not in drive(Script(share=None)).details


def test_the_servers_first_words_for_each_error_are_kept_up_to_500_characters(drive: Drive) -> None:
    reports = (
        {"cpu_s": 1.0, "messages": {"14": "a" * 600, "1503": "busy"}},
        {"cpu_s": 1.0, "messages": {"14": "later"}},
    )
    result = drive(Script(reports=reports, status=14))
    assert result.details["error_messages"] == {"UNAVAILABLE": "a" * 500, "HTTP_503": "busy"}
    assert result.reason == "errors"
    assert result.message == f"40 of 40 requests failed (UNAVAILABLE 40); UNAVAILABLE: {'a' * 500}"


def test_a_valid_stage_quotes_no_error(drive: Drive) -> None:
    reports = ({"cpu_s": 1.0, "messages": {"0": "never mind"}},)
    result = drive(Script(reports=reports))
    assert (result.valid, result.message) == (True, "")
    assert "error_messages" not in drive(Script()).details


def test_a_stage_that_is_doomed_closes_the_observers_window_once_and_keeps_what_it_saw(
    drive: Drive,
) -> None:
    script = Script(doomed=lambda elapsed_s: elapsed_s > 2.0)
    result = drive(script)
    opened_s = script.values("open")[0]
    assert once(script, "told closed") - opened_s == pytest.approx(2.1, abs=0.11)
    assert result.window_s == pytest.approx(once(script, "told closed") - opened_s)
    assert (result.valid, result.reason) == (False, "overloaded")
    assert result.message == "the queue grows"
    assert result.requests == pytest.approx(21, abs=1)
    assert script.values("reports") == [0.5]
    assert result.client_cpu_s == 3.75
    assert script.values("close") == []
    assert result.details["machine_window"] == {"busy": 0.5, "steal": 0.25}


def test_a_load_that_is_stuck_gives_its_result_without_its_words(drive: Drive) -> None:
    result = drive(Script(doomed=always, speaks=False))
    assert (result.reason, result.client_cpu_s) == ("overloaded", None)


def test_a_stage_that_ends_in_its_warm_up_has_no_window(drive: Drive) -> None:
    reports = ({"cpu_s": 1.0, "messages": {"14": "full"}},)
    script = Script(doomed_in_warmup=lambda elapsed_s: elapsed_s > 0.4, status=14, reports=reports)
    result = drive(script)
    assert script.times("told open") == script.times("told closed") == []
    assert (result.reason, result.window_s, result.requests) == ("errors", 0.0, 0)
    assert result.warmup_s == pytest.approx(0.45, abs=1e-5)
    assert result.details["warmup_requests"] == 5
    assert result.errors == {"UNAVAILABLE": 5}
    assert result.message == "9 of 10 requests failed; UNAVAILABLE: full"
    assert result.details["connected"] is True


def test_a_server_that_nobody_reached_gives_a_result_of_no_length(drive: Drive) -> None:
    script = Script(ready=False)
    result = drive(script)
    assert (result.reason, result.message) == ("no_answers", "nobody listens")
    assert (result.warmup_s, result.window_s) == (0.0, 0.0)
    assert result.details["connected"] is False
    assert "signature_checked" not in result.details
    assert len(script.times("ended")) == 1


def test_a_server_that_ends_in_the_drain_is_told_as_such(drive: Drive) -> None:
    script = Script(answered=never, crashed_in_drain=True)
    result = drive(script)
    assert (result.valid, result.reason, result.requests) == (False, "crash", 40)
    assert result.window_s == pytest.approx(4.0)
    assert len(script.times("told closed")) == 1


def test_a_queue_that_grew_all_the_while_is_refused_at_the_end(drive: Drive) -> None:
    script = Script(grew=True)
    result = drive(script)
    assert (result.reason, result.message) == ("overloaded", "the queue grew all the while")
    assert script.values("reports") == [5.0, 0.5]
    assert len(script.times("told closed")) == 1


def test_a_stage_needs_no_observer(drive: Drive) -> None:
    script = Script()
    result = drive(script, observed=False)
    assert result.valid and result.window_s == pytest.approx(4.0)
    assert stage._Unobserved().should_stop() is None


def test_the_record_says_how_the_load_was_made(drive: Drive) -> None:
    open_loop = drive(Script(), clients=8, processes=2, popularity="zipf:1.1", protocol="rest").details
    assert {name: open_loop[name] for name in (
        "load_average_1m", "protocol", "clients", "processes", "popularity", "connected",
        "distinct_requests", "request_bytes_mean", "client_placement", "machine_before",
        "signature_checked",
    )} == {
        "load_average_1m": 0.75, "protocol": "rest", "clients": None, "processes": 2,
        "popularity": "zipf:1.1", "connected": True, "distinct_requests": 2,
        "request_bytes_mean": 30.0, "client_placement": ({"policy": "fifo"},),
        "machine_before": {"busy_others": 0.125, "pids": (11, 12)}, "signature_checked": True,
    }
    assert "trace" not in open_loop
    assert drive(Script(trace={"share": 0.5}), pattern="trace").details["trace"] == {"share": 0.5}


def test_a_closed_loop_counts_what_was_answered_in_the_window(drive: Drive) -> None:
    result = drive(Script(), pattern="closed", clients=8, rate_rps=None)
    assert result.details["clients"] == 8
    assert result.requests == 40
    assert result.client_lag_p99_ms is None


def test_every_request_of_the_window_is_kept_where_a_file_is_asked(
    drive: Drive, tmp_path: Path
) -> None:
    file = tmp_path / "deep" / "samples.npz"
    result = drive(Script(), samples_file=file)
    assert result.samples_file == str(file)
    kept = np.load(file)
    assert kept["latency_ms"] == pytest.approx(np.full(40, 5.0), rel=1e-5)
    assert np.diff(kept["due_s"]) == pytest.approx(np.full(39, 0.1))
    doomed = drive(Script(doomed_in_warmup=always), samples_file=tmp_path / "none.npz")
    assert doomed.samples_file is None and not (tmp_path / "none.npz").exists()


def test_an_observer_that_fails_to_open_the_window_is_told_of_its_end(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(self: Observer, client_pids: Sequence[int]) -> None:
        raise RuntimeError("no window")

    monkeypatch.setattr(Observer, "window_opened", opened)
    script = Script()
    with pytest.raises(RuntimeError, match="no window"):
        drive(script)
    assert len(script.values("told closed")) == 1
