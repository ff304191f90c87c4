"""Recorded arrivals: read from a file, and the part of them that a load stage plays."""

from __future__ import annotations

import datetime
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tuner.errors import UsageError
from tuner.load.base import StagePlan

MEAN_TOLERANCE = 0.1
"""A trace played as recorded may have so much another mean rate than the whole, without a word."""
PAUSE_SHARE = 0.5
"""Of a part's length that a single pause may make, without a word."""
LEAST_S, MOST_S = 1e-6, 1e10
"""Between a microsecond and three hundred years."""
_EPOCHS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
"""From which number on a timestamp is an epoch in smaller units, and these in a second."""


def read_trace(path: Path) -> np.ndarray:
    """Arrival times of a recorded trace, from 0 on, sorted (seconds).

    The file holds one timestamp a line, first column: seconds, a date and time (ISO 8601; without
    a zone: UTC), or an epoch in milli-, micro- or nanoseconds, which is known by its size. A first
    line that is neither is a header. Lines need not be sorted.

    Raises:
        UsageError: names the line that is no timestamp.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise UsageError(f"{path}: cannot read the arrival trace: {error}") from None
    return _read_trace(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=1)
def _read_trace(path: Path, _mtime_ns: int, _size: int) -> np.ndarray:
    """A trace of a million lines takes a second to read, and a stage asks several times."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot read the arrival trace: {error}") from None
    cells = [line.split(",")[0].strip().strip('"') for line in lines]
    times: list[float] = []
    for number, cell in enumerate(cells, 1):
        if not cell:
            continue
        value = _seconds(cell)
        if value is None:
            if number == 1:
                continue
            raise UsageError(f"{path}:{number}: {cell!r} is no timestamp in seconds")
        if not np.isfinite(value):
            raise UsageError(f"{path}:{number}: {cell!r} is no finite timestamp in seconds")
        times.append(value)
    if len(set(times)) < 2:
        raise UsageError(f"{path}: an arrival trace needs at least two timestamps that differ")
    ordered = np.sort(np.asarray(times))
    with np.errstate(over="ignore"):
        relative = (ordered - ordered[0]) / _units_per_s(ordered[(len(ordered) - 1) // 2])
    if not LEAST_S <= relative[-1] <= MOST_S:
        raise UsageError(
            f"{path}: an arrival trace of {relative[-1]:.3g} s cannot be played: it needs at least "
            f"{LEAST_S:g} s and at most {MOST_S:g}"
        )
    return relative


def _seconds(cell: str) -> float | None:
    """A timestamp as a number; ``None`` where it is none."""
    try:
        return float(cell)
    except ValueError:
        pass
    try:
        moment = datetime.datetime.fromisoformat(cell)
    except ValueError:
        return None
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return zoned.timestamp()


def _units_per_s(usual: float) -> float:
    """How many units of an epoch make a second: as seconds it would be after the year 5000.

    Args:
        usual: the middle timestamp; one that is wrong must not decide for all.
    """
    return next((units for least, units in _EPOCHS if usual >= least), 1.0)


@dataclass(frozen=True)
class Played:
    """What of a trace is sent, and how fast."""

    times_s: np.ndarray
    """Arrivals from the window's opening on, the last one before its end."""
    window_s: float
    from_s: float
    to_s: float
    """The part of the trace, in seconds since its first arrival."""
    whole_s: float
    share: float
    """Of the trace's arrivals."""
    pace: float
    """Seconds of the trace that pass in one second of the window."""
    trace_rps: float
    """Mean rate of the whole trace as recorded."""
    asked_s: float
    """Longest window that the plan allows."""
    asked_rps: float | None = None

    @property
    def mean_rps(self) -> float:
        return len(self.times_s) / self.window_s

    def describe(self) -> dict[str, object]:
        """What a stage keeps of it, as JSON."""
        return {
            "arrivals": len(self.times_s), "mean_rps": self.mean_rps, "window_s": self.window_s,
            "from_s": self.from_s, "to_s": self.to_s, "whole_s": self.whole_s,
            "share": self.share, "pace": self.pace, "trace_mean_rps": self.trace_rps,
            "most_at_once": int(np.unique(self.times_s, return_counts=True)[1].max()),
            "note": self.note(),
        }

    def note(self) -> str | None:
        """In words, where the trace is over before the window, or has another rate than its head."""
        if self.window_s < self.asked_s:
            return f"the trace is over after {self.window_s:.3g} s of the {self.asked_s:.3g} s asked"
        if self.asked_rps is not None:
            return self._note_of_a_rate(self.asked_rps)
        if abs(self.mean_rps / self.trace_rps - 1) <= MEAN_TOLERANCE:
            return None
        return (
            f"only the first {self.to_s:.3g} s of the trace's {self.whole_s:.3g} s are played: "
            f"{self.mean_rps:.3g} requests/s, the whole has {self.trace_rps:.3g}; with a rate, "
            "its most typical part is played at that rate"
        )

    def _note_of_a_rate(self, asked_rps: float) -> str | None:
        if abs(self.mean_rps / asked_rps - 1) > MEAN_TOLERANCE:
            return (
                f"{len(self.times_s)} requests in {self.window_s:.3g} s are {self.mean_rps:.3g} a "
                f"second, not the {asked_rps:.3g} asked"
            )
        pause_s = float(np.diff(self.times_s, append=self.window_s).max(initial=0.0))
        if len(self.times_s) > 2 and pause_s > PAUSE_SHARE * self.window_s:
            return (
                f"one pause makes {pause_s / self.window_s:.0%} of the part that is played: the trace "
                "has no part of so many arrivals without it"
            )
        return None


def played(plan: StagePlan) -> Played:
    """The part of the plan's trace that is sent in the window.

    Without a rate the trace is played as recorded, from its beginning. With one, as many arrivals
    in a row as fill the window at that rate, stretched so that their own mean is the rate; of all
    such parts the most typical one: its length and the coefficient of variation of its gaps are
    nearest, in the logarithm, to the medians over all parts. A trace that holds fewer arrivals
    than that is played whole, and the window ends with it.

    Raises:
        UsageError: there is no trace, or it cannot be read.
    """
    if plan.trace_file is None:
        raise UsageError("the pattern trace needs a trace file of timestamps (--trace FILE.csv)")
    times = read_trace(plan.trace_file)
    count, whole_s = len(times), float(times[-1])
    # Each arrival has its gap after it, the last one the mean gap.
    trace_rps = (count - 1) / whole_s
    if plan.rate_rps is None:
        first, pace = 0, 1.0
        sent = times[times < plan.max_duration_s]
        window_s = min(plan.max_duration_s, count / trace_rps)
    else:
        rate = plan.rate_rps
        wanted = max(1, round(rate * plan.max_duration_s))
        if wanted >= count:
            first, pace, wanted = 0, rate / trace_rps, count
            window_s = min(plan.max_duration_s, count / rate)
        elif (typical := typical_part(times, wanted)) is None:
            first, pace, wanted = 0, rate / trace_rps, count
            window_s = plan.max_duration_s
        else:
            first, window_s = typical, plan.max_duration_s
            pace = _length(times, first, wanted) / window_s
        sent = (times[first:first + wanted] - times[first]) / pace
        sent = sent[sent < window_s]
    return Played(
        times_s=sent,
        window_s=window_s,
        from_s=float(times[first]),
        to_s=min(float(times[first]) + window_s * pace, whole_s),
        whole_s=whole_s,
        share=len(sent) / count,
        pace=pace,
        trace_rps=trace_rps,
        asked_s=plan.max_duration_s,
        asked_rps=plan.rate_rps,
    )


def typical_part(times: np.ndarray, wanted: int) -> int | None:
    """Where the most typical ``wanted`` arrivals in a row begin (see ``played``); ``None`` where no
    part of so many has any length.

    Args:
        times: sorted arrivals, more than ``wanted``, not all the same.
    """
    spans = times[wanted:] - times[:-wanted]
    # All at one moment is no part; and one that ends within a moment tears its arrivals apart.
    spread = times[wanted - 1:-1] > times[:-wanted] if wanted > 1 else spans > 0
    whole = spread & (times[wanted:] > times[wanted - 1:-1])
    possible = np.flatnonzero(whole if whole.any() else spread)
    if not len(possible):
        return None
    squares = np.concatenate([[0.0], np.cumsum(np.diff(times) ** 2)])
    second = (squares[wanted:] - squares[:-wanted])[possible]
    length = np.log(spans[possible])
    # 1 + CV^2 of the gaps.
    burstiness = np.log(second * wanted / spans[possible] ** 2)
    away = np.abs(length - np.median(length)) + np.abs(burstiness - np.median(burstiness))
    return int(possible[np.argmin(away)])


def _length(times: np.ndarray, first: int, wanted: int) -> float:
    """Seconds of a part of a trace with the gap after it: a mean one where that one is none."""
    last = first + wanted - 1
    if times[last + 1] > times[last]:
        return float(times[last + 1] - times[first])
    return float(times[last] - times[first]) * wanted / (wanted - 1)
