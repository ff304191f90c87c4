"""How well a percentile is known: order-statistic intervals, widened where requests are correlated.

For independent requests the number below the true q-quantile is binomial, so a pair of order
statistics is an exact interval without any assumption on the law (H. A. David, H. N. Nagaraja,
"Order Statistics", 3rd ed., 2003, sec. 7.1). Requests are not independent: a queue or a burst
delays neighbours together. For dependent sequences the same interval holds with the variance of
the indicator 1[latency <= quantile] in place of q(1-q) (P. Heidelberger, P. A. W. Lewis,
"Quantile estimation in dependent sequences", Operations Research 32, 1984). That variance is
estimated by batch means of the indicator over stretches of the window, and its ratio to the
independent case divides the sample size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
BATCH_COUNTS = (10, 30)
"""Few long batches see slow correlation, many short ones are less noisy: the worse counts."""


@dataclass(frozen=True)
class Interval:
    """An interval of a percentile; ``high`` is infinite where the sample holds no upper bound."""

    low: float
    value: float
    high: float
    effective_samples: float
    """Independent requests that would tell as much."""

    @property
    def relative_half_width(self) -> float:
        return (self.high - self.low) / 2 / self.value if self.value > 0 else math.inf


def inflation(below: np.ndarray, q: float) -> float:
    """Variance of the indicator's mean against that of independent requests, at least 1.

    Args:
        below: 1 where latency <= the estimated quantile, in order of sending; shape (n,).
        q: the quantile's level.
    """
    worst = 1.0
    for count in BATCH_COUNTS:
        size = len(below) // count
        # Batches that expect less than one exceedance each say nothing of how they cluster.
        if size * (1 - q) < 0.2 or size < 5:
            continue
        means = below[: size * count].reshape(count, size).mean(axis=1)
        worst = max(worst, float(means.var(ddof=1)) * size / (q * (1 - q)))
    return worst


def percentile_interval(
    latencies: np.ndarray, q: float, confidence: float = CONFIDENCE
) -> Interval:
    """The interval of the q-quantile of latencies given in order of sending.

    Args:
        latencies: shape (n,), n >= 1, any unit; the interval has the same.
        q: level of the quantile, e.g. 0.99.
    """
    count = len(latencies)
    ordered = np.sort(latencies)
    value = float(ordered[min(count - 1, max(0, math.ceil(q * count) - 1))])
    effective = count / inflation((latencies <= value).astype(float), q)
    tail = (1 - confidence) / 2
    trials = max(1, int(effective))
    low_share = stats.binom.ppf(tail, trials, q) / trials
    high_share = (stats.binom.ppf(1 - tail, trials, q) + 1) / trials
    # With too few samples the upper rank falls beyond the largest: no bound, and we say so.
    high_rank = math.ceil(high_share * count)
    low_rank = max(1, math.floor(low_share * count))
    high = float(ordered[high_rank - 1]) if high_rank <= count else math.inf
    return Interval(float(ordered[low_rank - 1]), value, high, effective)
