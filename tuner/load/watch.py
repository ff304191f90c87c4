"""What a stage sees of itself while it runs: whether it is doomed, steady, precise enough."""

from __future__ import annotations

import time

import numpy as np

from tuner.errors import TrialFailure
from tuner.load import doom, steady
from tuner.load import window as windows
from tuner.load.base import StageObserver, StagePlan
from tuner.load.precision import percentile, percentile_interval
from tuner.load.prepare import Prepared
from tuner.load.processes import ClientProcesses
from tuner.load.records import OK

TAIL = 0.99
MIN_SPAN_S = 0.1
BEHIND_FLOOR = 50.0
"""Requests not sent in time that are no cause to give up, however low the rate."""


class Watch:
    """Looks at the records as they grow.

    The stage sets ``started_s`` and ``opened_s`` (seconds of CLOCK_MONOTONIC) as it gets there.
    """

    def __init__(
        self,
        plan: StagePlan,
        prepared: Prepared,
        clients: ClientProcesses,
        observer: StageObserver,
    ) -> None:
        self._plan, self._prepared = plan, prepared
        self._clients, self._observer = clients, observer
        self._closed_loop = plan.pattern == "closed"
        self._backlog = doom.Backlog(prepared.cycle_s)
        self.started_s = self.opened_s = float("inf")
        self.records: np.ndarray | None = None
        """All that is known so far; ``None`` before the first look."""
        self._read_s = -float("inf")

    def look(self, window: bool) -> np.ndarray:
        """Read what came so far.

        Args:
            window: whether the measured window is open, so that its errors alone count.

        Raises:
            TrialFailure: the stage is doomed.
        """
        self.check_server()
        # The clock first: had this thread to wait in between, it would take itself for the client.
        now = time.monotonic()
        records = self.read()
        phase = records[records["done"] >= self.opened_s] if window else records
        answered = np.count_nonzero(phase["done"] > 0)
        failed = np.count_nonzero((phase["done"] > 0) & (phase["status"] != OK))
        if why := doom.too_many_errors(int(answered), int(failed), self._plan.max_error_rate):
            raise TrialFailure("errors", why)
        if not self._closed_loop:
            self._look_at_queue(now, records)
        return records

    def read(self) -> np.ndarray:
        """The records so far, kept in ``records``."""
        # The clock first: what was answered since then has waited no longer.
        self._read_s = time.monotonic()
        self.records = self._clients.read()
        return self.records

    def check_server(self) -> None:
        """Ask the observer whether to go on."""
        if why := self._observer.should_stop():
            raise TrialFailure("crash", why)

    def check_backlog(self) -> None:
        """At the stage's end: whether the queue grew all the while."""
        self._refuse_growth(doom.FINAL_Z, at_end=True)

    def is_steady(self) -> bool:
        """Whether the latencies so far have left their transient behind."""
        return steady.is_steady(_in_order(self.look(window=False)))

    def is_precise(self) -> bool:
        """Whether the p99 is known as well as the plan asks.

        A request in flight may still be a slow one. Only requests that were due long enough ago
        count, as long as the p99 so far: those of them that still wait are beyond it.
        """
        assert self.records is not None
        window = windows.select_window(
            self.records, self.opened_s, self._read_s, self._closed_loop
        )
        if not window.answered.any():
            return False
        waited_ms = (self._read_s - window.records["due"]) * 1e3
        known = waited_ms >= percentile(window.latencies_ms, TAIL)
        if not known.any():
            return False
        interval = percentile_interval(window.latencies_of_all_ms[known], TAIL)
        return interval.relative_half_width <= self._plan.precision

    def all_answered(self, closed_s: float) -> bool:
        """Whether every request that was due before the window closed has been answered."""
        records = self.read()
        mine = (records["due"] >= self.opened_s) & (records["due"] < closed_s)
        if self._closed_loop:
            return not bool((mine & (records["done"] == 0)).any())
        mine &= records["window"] == 1
        due = int(np.searchsorted(self._prepared.window_arrivals, closed_s - self.opened_s))
        return bool(np.count_nonzero(mine & (records["done"] > 0)) >= due)

    def _look_at_queue(self, now_s: float, records: np.ndarray) -> None:
        sent, due = len(records), self._due(now_s)
        rate = due / max(now_s - self.started_s, MIN_SPAN_S)
        if due - sent > max(BEHIND_FLOOR, rate):
            raise TrialFailure(
                "client_limited", f"the load generator fell behind: {due - sent} requests not sent"
            )
        self._backlog.look(now_s, sent, int(np.count_nonzero(records["done"])))
        self._refuse_growth(doom.EARLY_Z)

    def _refuse_growth(self, z: float, at_end: bool = False) -> None:
        why = self._backlog.overload(z)
        if why is None:
            return
        if silence := self._backlog.silence():
            raise TrialFailure("no_answers", silence)
        if at_end or not self._backlog.may_be_silent():
            raise TrialFailure("overloaded", why)

    def _due(self, now_s: float) -> int:
        end_of_warmup = min(now_s, self.opened_s)
        count = np.searchsorted(self._prepared.warmup_arrivals, end_of_warmup - self.started_s)
        if now_s > self.opened_s:
            count += np.searchsorted(self._prepared.window_arrivals, now_s - self.opened_s)
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
