"""Stages that cannot become a measurement end early: a queue without bound, too many errors.

Both are tests against chance, so that neither a burst nor one failed request ends a stage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from scipy import stats

EARLY_Z = 4.0
FINAL_Z = 3.0
"""Standard deviations that the backlog's growth must exceed while the stage runs, and at its end."""

MIN_WAIT_S = 0.5
"""A backlog that the server works off sooner is a queue, not an overload."""

SILENCE_S, SILENT_PACES, UNUSUAL_PACES = 1.0, 10, 3
"""A server has fallen silent when so many seconds, and so many of its usual pauses between answers,
passed without one; from the last number of pauses on it may have."""

ERROR_SIGNIFICANCE = 1e-3
MIN_ERROR_SAMPLE = 20


@dataclass
class Backlog:
    """Watches the number of unanswered requests for growth beyond chance.

    Over a stretch with A arrivals and D answers the backlog changes by A - D. Were the server
    just able to keep up, that change would have mean 0 and, for Poisson arrivals and exponential
    service, variance A + D (less for anything more regular): growth beyond z times its root is
    overload. Compared are the smallest backlogs of the first and of the latest ``cycle_s``, the
    length of a burst's on and off: what rises in a burst and drains after it is no growth.
    """

    cycle_s: float
    _seen: list[tuple[float, int, int]] = field(default_factory=list)

    def look(self, now_s: float, due: int, done: int) -> None:
        """Note the requests due and the requests answered up to now."""
        self._seen.append((now_s, due, done))

    def overload(self, z: float = EARLY_Z) -> str | None:
        """Why the stage is overloaded, or ``None``."""
        if len(self._seen) < 4:
            return None
        table = np.asarray(self._seen, dtype=float)
        now, backlog = table[:, 0], table[:, 1] - table[:, 2]
        if now[-1] - now[0] < 2 * self.cycle_s:
            return None
        first = now <= now[0] + self.cycle_s
        last = now >= now[-1] - self.cycle_s
        base = int(np.argmin(np.where(first, backlog, np.inf)))
        latest = int(np.argmin(np.where(last, backlog, np.inf)))
        growth = backlog[latest] - backlog[base]
        arrived, answered = table[latest, 1:] - table[base, 1:]
        if growth <= z * math.sqrt(arrived + answered):
            return None
        elapsed = now[latest] - now[base]
        rate = answered / elapsed
        if backlog[latest] < MIN_WAIT_S * max(rate, 1.0):
            return None
        return (
            f"{arrived / elapsed:.0f} requests/s arrived and {rate:.0f} were answered: "
            f"{backlog[latest]:.0f} were waiting after {now[-1] - now[0]:.1f} s"
        )

    def silence(self) -> str | None:
        """That the server answers no more, which is no overload; ``None`` where it does, if slowly."""
        if not self._seen:
            return None
        now_s, due, done = self._seen[-1]
        if not done:
            return f"none of {due} requests was answered in {now_s - self._seen[0][0]:.1f} s"
        silent_s, pause_s = self._pauses()
        if silent_s < max(SILENCE_S, SILENT_PACES * pause_s):
            return None
        return f"the server answered no more: {due - done} requests were waiting, {silent_s:.1f} s long"

    def may_be_silent(self) -> bool:
        """Whether the pause since the last answer is an unusual one: a moment more will tell."""
        silent_s, pause_s = self._pauses()
        return silent_s > UNUSUAL_PACES * pause_s

    def _pauses(self) -> tuple[float, float]:
        """Seconds since the last look that saw new answers, and those between such looks."""
        begun_s = self._seen[0][0]
        answering_s = [begun_s] + [
            after[0] for before, after in pairwise(self._seen) if after[2] > before[2]
        ]
        pause_s = (answering_s[-1] - begun_s) / max(len(answering_s) - 1, 1)
        return self._seen[-1][0] - answering_s[-1], pause_s


def too_many_errors(answered: int, errors: int, limit: float) -> str | None:
    """Why the error rate is beyond its limit for certain, or ``None``.

    One-sided binomial test at ``ERROR_SIGNIFICANCE``.
    """
    if answered < MIN_ERROR_SAMPLE or errors <= limit * answered:
        return None
    if stats.binom.sf(errors - 1, answered, limit) > ERROR_SIGNIFICANCE:
        return None
    return f"{errors} of {answered} requests failed, {limit:.1%} are allowed"
