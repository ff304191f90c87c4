"""One load stage: warm up, measure until the percentile is known well enough, or give up early."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tuner.errors import TrialFailure
from tuner.load import doom, machine, metadata, placement, scratch, steady, summary
from tuner.load.arrivals import SCHEDULES
from tuner.load.base import StageObserver, StagePlan
from tuner.load.precision import percentile_interval
from tuner.load.prepare import Prepared, prepare
from tuner.load.processes import ClientProcesses
from tuner.load.records import OK
from tuner.measurement import StageResult

POLL_S = 0.1
LEAD_S = 0.05
"""Commands name a moment this far ahead, so that all processes act on it together."""
MIN_WARMUP_S = 1.0
PRECISION_CHECK_S = 0.5
DRAIN_S = 5.0
"""Requests of the window may be answered this long after it; later they count as unanswered."""


class _Unobserved:
    """Nobody watches."""

    def window_opened(self, client_pids: Sequence[int]) -> None:
        pass

    def window_closed(self) -> None:
        pass

    def should_stop(self) -> str | None:
        return None


def run_stage(plan: StagePlan, observer: StageObserver | None = None) -> StageResult:
    """Drive one deployment and measure it.

    The stage that ran but gave no measurement is a result too: ``valid`` is false and ``reason``
    says why. The observer hears of the window's opening and closing within a few milliseconds,
    and of its closing whatever happens.

    Raises:
        UsageError, ModelError: the plan or the requests file is wrong; nothing was sent.
    """
    before, cpu_before = machine.snapshot(), time.process_time()
    details: dict[str, Any] = {
        "load_average_1m": machine.load_average(),
        "protocol": plan.protocol,
        "clients": plan.clients if plan.pattern == "closed" else None,
        "processes": plan.processes,
        "popularity": plan.popularity,
        "connected": False,
    }
    with scratch.folder() as folder:
        prepared = prepare(plan, folder)
        details["distinct_requests"] = len(prepared.payload.lengths)
        details["request_bytes_mean"] = float(prepared.payload.lengths.mean())
        where = placement.place(plan.processes, plan.details.get("client_cores"))
        with ClientProcesses(prepared.jobs, folder, where) as clients:
            details["client_placement"] = clients.placed
            run = _Run(plan, prepared, clients, observer or _Unobserved(), details)
            try:
                answer = clients.wait_ready()
                details["connected"] = True
                details["machine_before"] = _disturbance(before, cpu_before, clients.pids())
                details["signature_checked"] = metadata.check(plan, prepared.arrays, answer)
                run.whole()
            except TrialFailure as failure:
                return run.result(failure.reason, failure.message)
            return run.result(None, "")


class _Run:
    """The state of one stage while it runs."""

    def __init__(
        self,
        plan: StagePlan,
        prepared: Prepared,
        clients: ClientProcesses,
        observer: StageObserver,
        details: dict[str, Any],
    ) -> None:
        self.plan, self.prepared, self.clients = plan, prepared, clients
        self.observer, self.details = observer, details
        self.closed_loop = plan.pattern == "closed"
        self.backlog = doom.Backlog(prepared.cycle_s)
        self.started_s = self.opened_s = self.closed_s = float("inf")
        self.records: np.ndarray | None = None
        self.client_cpu_s: float | None = None
        self.told_closed = False

    def whole(self) -> None:
        """Warm-up, window, drain.

        Raises:
            TrialFailure: the stage ended early.
        """
        self.started_s = time.monotonic() + LEAD_S
        self.clients.command(f"start {self.started_s!r}")
        self._warm_up()
        self.opened_s = time.monotonic() + LEAD_S
        self.clients.command(f"open {self.opened_s!r}")
        self.details["window_opened_monotonic_s"] = self.opened_s
        with placement.urgent():
            _sleep_until(self.opened_s)
            self.observer.window_opened(self.clients.pids())
        window_start = machine.snapshot()
        try:
            self._measure()
        finally:
            self._close()
            share = machine.between(window_start, machine.snapshot())
            if share is not None:
                self.details["machine_window"] = {"busy": share.busy, "steal": share.steal}
        self._drain()
        reports = self.clients.reports()
        cpu = [report["cpu_s"] for report in reports]
        self.client_cpu_s = sum(cpu) if None not in cpu else None
        texts: dict[str, str] = {}
        for report in reports:
            for status, text in report["messages"].items():
                texts.setdefault(summary.status_name(int(status)), text[:500])
        if texts:
            self.details["error_messages"] = texts
        if why := self.backlog.overload(doom.FINAL_Z):
            raise TrialFailure("overloaded", why)

    def result(self, reason: str | None, message: str) -> StageResult:
        """The record of the stage as far as it came."""
        window = None
        if self.records is not None and self.closed_s < float("inf"):
            window = summary.select_window(
                self.records, self.opened_s, self.closed_s, self.closed_loop
            )
        result = summary.summarise(
            self.plan,
            window,
            warmup_s=max(0.0, min(self.opened_s, time.monotonic()) - self.started_s)
            if self.started_s < float("inf")
            else 0.0,
            reason=reason,
            message=message,
            client_cpu_s=self.client_cpu_s,
            details=self.details,
        )
        if self.plan.samples_file is not None and window is not None:
            samples = Path(self.plan.samples_file)
            summary.write_samples(samples, window, self.plan, self.prepared.window_order)
            result = replace(result, samples_file=str(samples))
        return result

    def _close(self) -> None:
        """Close the observer's window, once, whatever ended it."""
        if not self.told_closed:
            self.told_closed = True
            self.closed_s = min(self.closed_s, time.monotonic())
            self.observer.window_closed()

    def _warm_up(self) -> None:
        steady_before = False
        self.details["warm"] = False
        while (now := time.monotonic()) - self.started_s < self.plan.max_warmup_s:
            time.sleep(min(POLL_S, max(0.0, self.started_s + self.plan.max_warmup_s - now)))
            records = self._look(window=False)
            series = _in_order(records)
            is_steady = steady.is_steady(series)
            if is_steady and steady_before and time.monotonic() - self.started_s >= MIN_WARMUP_S:
                self.details["warm"] = True
                return
            steady_before = is_steady

    def _measure(self) -> None:
        whole = self.plan.pattern in SCHEDULES
        last = self.opened_s + self.prepared.window_length_s
        first = last if whole else min(last, self.opened_s + self.plan.min_duration_s)
        check_s = first
        while True:
            now = time.monotonic()
            if now >= last - POLL_S:
                end = last
                break
            if now >= check_s - POLL_S and self._is_precise():
                end = max(check_s, time.monotonic() + LEAD_S)
                break
            if now >= check_s - POLL_S:
                check_s += PRECISION_CHECK_S
            time.sleep(min(POLL_S, last - now))
            self._look(window=True)
        self.clients.command(f"close {end!r}")
        with placement.urgent():
            _sleep_until(end)
            self.closed_s = end
            self._close()

    def _is_precise(self) -> bool:
        assert self.records is not None
        window = summary.select_window(
            self.records, self.opened_s, time.monotonic(), self.closed_loop
        )
        latencies = window.latencies_ms
        if not len(latencies):
            return False
        interval = percentile_interval(latencies, 0.99)
        return interval.relative_half_width <= self.plan.precision

    def _drain(self) -> None:
        deadline = self.closed_s + min(DRAIN_S, self.plan.request_timeout_s + POLL_S)
        if self.closed_loop:
            self.records = self.clients.read()
            return
        due = int(np.searchsorted(self.prepared.window_arrivals, self.closed_s - self.opened_s))
        while True:
            records = self.records = self.clients.read()
            mine = (records["window"] == 1) & (records["due"] < self.closed_s)
            if np.count_nonzero(mine & (records["done"] > 0)) >= due:
                return
            if time.monotonic() >= deadline:
                return
            if why := self.observer.should_stop():
                raise TrialFailure("crash", why)
            time.sleep(0.02)

    def _look(self, window: bool) -> np.ndarray:
        """Read what came so far and give up if the stage is doomed."""
        if why := self.observer.should_stop():
            raise TrialFailure("crash", why)
        # The clock first: had this thread to wait in between, it would take itself for the client.
        now = time.monotonic()
        records = self.records = self.clients.read()
        phase = records[records["done"] >= self.opened_s] if window else records
        answered = np.count_nonzero(phase["done"] > 0)
        failed = np.count_nonzero((phase["done"] > 0) & (phase["status"] != OK))
        if why := doom.too_many_errors(int(answered), int(failed), self.plan.max_error_rate):
            raise TrialFailure("errors", why)
        if self.closed_loop:
            return records
        sent, due = len(records), self._due(now)
        rate = due / max(now - self.started_s, POLL_S)
        if due - sent > max(50.0, rate):
            raise TrialFailure(
                "client_limited", f"the load generator fell behind: {due - sent} requests not sent"
            )
        self.backlog.look(now, sent, int(np.count_nonzero(records["done"])))
        if why := self.backlog.overload():
            raise TrialFailure("overloaded", why)
        return records

    def _due(self, now_s: float) -> int:
        end_of_warmup = min(now_s, self.opened_s)
        count = np.searchsorted(self.prepared.warmup_arrivals, end_of_warmup - self.started_s)
        if now_s > self.opened_s:
            count += np.searchsorted(self.prepared.window_arrivals, now_s - self.opened_s)
        return int(count)


def _in_order(records: np.ndarray) -> np.ndarray:
    """Latencies of the requests before the first unanswered one, in due order (seconds)."""
    ordered = records[np.argsort(records["due"], kind="stable")]
    pending = np.flatnonzero(ordered["done"] == 0)
    if len(pending):
        ordered = ordered[: pending[0]]
    good = ordered[ordered["status"] == OK]
    latencies: np.ndarray = good["done"] - good["due"]
    return latencies


def _disturbance(
    before: machine.Snapshot | None, cpu_before_s: float, client_pids: Sequence[int]
) -> dict[str, float] | None:
    """How busy the rest of the machine was while the stage was prepared (server still idle)."""
    after = machine.snapshot()
    share = machine.between(before, after)
    if share is None or before is None or after is None:
        return None
    own = time.process_time() - cpu_before_s
    for pid in client_pids:
        times = psutil.Process(pid).cpu_times()
        own += times.user + times.system
    span = after.total_s - before.total_s
    return {
        "busy_others": max(0.0, share.busy - own / span),
        "steal": share.steal,
        "seconds": span / (os.cpu_count() or 1),
    }


def _sleep_until(moment_s: float) -> None:
    while (left := moment_s - time.monotonic()) > 0:
        time.sleep(left)
