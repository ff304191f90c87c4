"""One load stage: warm up, measure until the percentile is known well enough, or give up early."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuner.errors import TrialFailure
from tuner.load import machine, metadata, placement, scratch, summary
from tuner.load import window as windows
from tuner.load.arrivals import SCHEDULES
from tuner.load.base import StageObserver, StagePlan
from tuner.load.prepare import Prepared, prepare
from tuner.load.processes import END_TIMEOUT_S, ClientProcesses
from tuner.load.watch import Watch
from tuner.measurement import StageResult

POLL_S = 0.1
LEAD_S = 0.05
"""Commands name a moment this far ahead, so that all processes act on it together."""
MIN_WARMUP_S = 1.0
PRECISION_CHECK_S = 0.5
DRAIN_S = 5.0
"""Requests of the window may be answered this long after it; later they count as unanswered."""
HEAR_S = 0.5
"""A load that was broken off may be stuck itself; it is given this long to say why."""


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
    before = machine.Preparation()
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
        if prepared.trace is not None:
            details["trace"] = prepared.trace
        details["request_bytes_mean"] = float(prepared.payload.lengths.mean())
        where = placement.place(plan.processes, plan.details.get("client_cores"))
        with ClientProcesses(prepared.jobs, folder, where) as clients:
            details["client_placement"] = clients.placed
            run = _Run(plan, prepared, clients, observer or _Unobserved(), details)
            try:
                answer = clients.wait_ready()
                details["connected"] = True
                details["machine_before"] = before.ended(clients.pids())
                details["signature_checked"] = metadata.check(plan, prepared.rows, answer)
                run.whole()
            except TrialFailure as failure:
                run.hear()
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
        self.watch = Watch(plan, prepared, clients, observer)
        self.started_s = self.opened_s = self.closed_s = float("inf")
        self.client_cpu_s: float | None = None
        self.told_closed = False

    def whole(self) -> None:
        """Warm-up, window, drain.

        Raises:
            TrialFailure: the stage ended early.
        """
        self.started_s = self.watch.started_s = time.monotonic() + LEAD_S
        self.clients.command(f"start {self.started_s!r}")
        self._warm_up()
        self.opened_s = self.watch.opened_s = time.monotonic() + LEAD_S
        self.clients.command(f"open {self.opened_s!r}")
        self.details["window_opened_monotonic_s"] = self.opened_s
        window_start = None
        try:
            with placement.urgent():
                _sleep_until(self.opened_s)
                self.observer.window_opened(self.clients.pids())
            window_start = machine.snapshot()
            self._measure()
        finally:
            self._close()
            end = machine.snapshot()
            share = None if window_start is None else machine.between(window_start, end)
            if share is not None:
                self.details["machine_window"] = {"busy": share.busy, "steal": share.steal}
        self._drain()
        self._reports(END_TIMEOUT_S)
        self.watch.check_backlog()

    def hear(self) -> None:
        """What a load that was broken off has to say: why its requests failed."""
        with contextlib.suppress(TrialFailure):
            self.watch.read()
            self._reports(HEAR_S)

    def result(self, reason: str | None, message: str) -> StageResult:
        """The record of the stage as far as it came."""
        records = self.watch.records
        window = None
        if records is not None and self.closed_s < float("inf"):
            window = windows.select_window(
                records, self.opened_s, self.closed_s, self.plan.pattern == "closed"
            )
        elif records is not None:
            self.details["warmup_requests"] = len(records)
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
        if window is None and records is not None:
            result = replace(result, errors=windows.error_counts(records))
        if not result.valid and (first := windows.first_error(result.errors, self.details)):
            result = replace(result, message=f"{result.message}; {first}")
        if self.plan.samples_file is not None and window is not None:
            samples = Path(self.plan.samples_file)
            windows.write_samples(samples, window, self.plan, self.prepared.window_order)
            result = replace(result, samples_file=str(samples))
        return result

    def _reports(self, timeout_s: float) -> None:
        """End the load and take down what the processes counted."""
        reports = self.clients.reports(timeout_s)
        cpu = [report["cpu_s"] for report in reports]
        self.client_cpu_s = sum(cpu) if None not in cpu else None
        texts: dict[str, str] = {}
        for report in reports:
            for status, text in report["messages"].items():
                texts.setdefault(windows.status_name(int(status)), text[:500])
        if texts:
            self.details["error_messages"] = texts

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
            is_steady = self.watch.is_steady()
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
            if now >= check_s - POLL_S and self.watch.is_precise():
                end = max(check_s, time.monotonic() + LEAD_S)
                break
            if now >= check_s - POLL_S:
                check_s += PRECISION_CHECK_S
            time.sleep(min(POLL_S, last - now))
            self.watch.look(window=True)
        self.clients.command(f"close {end!r}")
        with placement.urgent():
            _sleep_until(end)
            self.closed_s = end
            self._close()

    def _drain(self) -> None:
        deadline = self.closed_s + min(DRAIN_S, self.plan.request_timeout_s + POLL_S)
        while not self.watch.all_answered(self.closed_s) and time.monotonic() < deadline:
            self.watch.check_server()
            time.sleep(0.02)


def _sleep_until(moment_s: float) -> None:
    while (left := moment_s - time.monotonic()) > 0:
        time.sleep(left)
