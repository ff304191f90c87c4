"""The measured window: which requests belong to it, how they went, second by second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuner.load.base import StagePlan
from tuner.load.precision import percentile
from tuner.load.records import HTTP_STATUS_OFFSET, OK

UNANSWERED = "UNANSWERED"
"""Neither answer nor error when the stage was over."""

_GRPC_STATUS = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)


def status_name(status: int) -> str:
    """The name of a recorded status: gRPC's, or ``HTTP_<code>``."""
    if status >= HTTP_STATUS_OFFSET:
        return f"HTTP_{status - HTTP_STATUS_OFFSET}"
    return _GRPC_STATUS[status] if status < len(_GRPC_STATUS) else f"STATUS_{status}"


@dataclass(frozen=True)
class Window:
    """The measured window: its bounds on CLOCK_MONOTONIC and the records of its requests."""

    opened_s: float
    closed_s: float
    records: np.ndarray
    """In order of due time; dtype ``processes.RECORD_DTYPE``."""
    answers: int | None = None
    """Good answers that came in the window of a closed loop; ``None`` for an open loop, which counts
    those to its requests."""
    longest_silence_s: float = 0.0
    """The longest time in the window of a closed loop in which nothing was answered."""

    @property
    def length_s(self) -> float:
        return self.closed_s - self.opened_s

    @property
    def answered(self) -> np.ndarray:
        """Mask of the requests that were answered without error."""
        mask: np.ndarray = (self.records["done"] > 0) & (self.records["status"] == OK)
        return mask

    @property
    def latencies_ms(self) -> np.ndarray:
        """Latency of every answered request, from its intended send time, in due order."""
        rows = self.records[self.answered]
        return (rows["done"] - rows["due"]) * 1e3

    @property
    def latencies_of_all_ms(self) -> np.ndarray:
        """Latency of every request, in due order: ``inf`` for one that failed or got no answer.

        A request that was never answered was slower than all that were; left out, the percentile
        would be that of the lucky ones.
        """
        every: np.ndarray = (self.records["done"] - self.records["due"]) * 1e3
        return np.where(self.answered, every, np.inf)

    def errors(self) -> dict[str, int]:
        """Count of each error status, unanswered requests included."""
        counts = error_counts(self.records)
        pending = int(np.count_nonzero(self.records["done"] == 0))
        if pending:
            counts[UNANSWERED] = pending
        return counts


def error_counts(records: np.ndarray) -> dict[str, int]:
    """Count of each error status among what was answered."""
    failed = records[(records["done"] > 0) & (records["status"] != OK)]
    counts = Counter(status_name(int(status)) for status in failed["status"])
    return dict(sorted(counts.items()))


def first_error(errors: Mapping[str, int], details: Mapping[str, Any]) -> str | None:
    """What the server said with the most frequent error; ``None`` if it said nothing."""
    texts = details.get("error_messages", {})
    said = [name for name in errors if texts.get(name)]
    if not said:
        return None
    name = max(said, key=errors.__getitem__)
    return f"{name}: {texts[name]}"


def select_window(
    records: np.ndarray, opened_s: float, closed_s: float, closed_loop: bool
) -> Window:
    """The requests that belong to a window: those due in it, whenever they were answered.

    Those of a closed loop are due when they are sent. What such a loop sent before the window and
    still waited for at its end belongs to it as well: that client sent nothing else.
    """
    due = (records["due"] >= opened_s) & (records["due"] < closed_s)
    if closed_loop:
        hung = (records["due"] < opened_s) & (
            (records["done"] == 0) | (records["done"] >= closed_s)
        )
        inside = due | hung
    else:
        inside = due & (records["window"] == 1)
    chosen = records[inside]
    ended = records[(records["done"] >= opened_s) & (records["done"] < closed_s)]
    return Window(
        opened_s, closed_s, chosen[np.argsort(chosen["due"], kind="stable")],
        answers=int(np.count_nonzero(ended["status"] == OK)) if closed_loop else None,
        longest_silence_s=_longest_pause(ended["done"], opened_s, closed_s) if closed_loop else 0.0,
    )


def _longest_pause(moments_s: np.ndarray, opened_s: float, closed_s: float) -> float:
    """The longest time within a window without any of the moments, seconds."""
    edges = np.concatenate(([opened_s], np.sort(moments_s), [closed_s]))
    return float(np.diff(edges).max())


def timeline(window: Window) -> tuple[Mapping[str, float], ...]:
    """One entry for each second of due time."""
    rows = window.records
    seconds = ((rows["due"] - window.opened_s) // 1).astype(int)
    entries = []
    for second in range(int(np.ceil(window.length_s))):
        part = rows[seconds == second]
        good = part[(part["done"] > 0) & (part["status"] == OK)]
        entry: dict[str, float] = {
            "second": second,
            "requests": len(part),
            "errors": len(part) - len(good),
        }
        if len(good):
            latencies = (good["done"] - good["due"]) * 1e3
            entry["latency_p50_ms"] = float(np.median(latencies))
            entry["latency_max_ms"] = float(latencies.max())
        entries.append(entry)
    return tuple(entries)


def lag_p99_ms(window: Window) -> float | None:
    """How late the client sent, 99th percentile."""
    rows = window.records
    if not len(rows):
        return None
    return percentile((rows["sent"] - rows["due"]) * 1e3, 0.99)


def write_samples(path: Path, window: Window, plan: StagePlan, order: np.ndarray) -> None:
    """Keep every request of a window, compressed.

    Arrays of equal length, in due order: ``due_s`` from the window's opening, ``sent_s``,
    ``latency_ms`` (NaN: unanswered), ``status`` (gRPC code, or 1000 + HTTP code), ``request``
    (which distinct request) and ``model`` (index of the model's name).
    """
    rows = window.records
    latency = np.where(rows["done"] > 0, (rows["done"] - rows["due"]) * 1e3, np.nan)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        np.savez_compressed(
            file,
            due_s=rows["due"] - window.opened_s,
            sent_s=rows["sent"] - window.opened_s,
            latency_ms=latency.astype(np.float32),
            status=rows["status"],
            request=order[rows["number"] % len(order)],
            model=(rows["number"] % len(plan.model_names)).astype(np.int16),
        )
