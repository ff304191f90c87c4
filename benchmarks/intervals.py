"""How often the interval of a percentile holds the truth, how wide it is, how often it has an end.

``python benchmarks/intervals.py [--windows 400] [--q 0.99]`` prints the tables of docs/measuring.md,
in simulation. A row is one law and one number of requests. The interval that knows the law takes the
order statistics of as many independent requests as tell as much (their number comes from the law's
true correlation). "Stopping" looks after 200 requests and after every quarter more and ends where
half the interval is below a fifth of the percentile, whatever luck brought it there.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.intervals.queues import LAWS, inflation, truth, windows
from tuner.load.precision import Interval, percentile_interval

SIZES = (200, 1_000, 5_000, 20_000)
STOP_AT, FIRST, GROWTH = 0.2, 200, 1.25


def stopped(latencies: np.ndarray, q: float) -> Interval:
    """The interval that a stage would end with."""
    looked_at = float(FIRST)
    while True:
        count = min(int(looked_at), len(latencies))
        found = percentile_interval(latencies[:count], q)
        if count == len(latencies) or found.relative_half_width <= STOP_AT:
            return found
        looked_at *= GROWTH


def knowing(latencies: np.ndarray, q: float, factor: float) -> tuple[float, float]:
    """The interval of somebody who knows how correlated the law's requests are."""
    count = len(latencies)
    effective = max(1, int(count / factor))
    shares = stats.binom.ppf([0.025, 0.975], effective, q) / effective + [0, 1 / effective]
    low, high = max(1, math.floor(shares[0] * count)), math.ceil(shares[1] * count)
    ordered = np.sort(latencies)
    return ordered[low - 1], ordered[high - 1] if high <= count else math.inf


def row(name: str, count: int, q: float, how_many: int) -> list[str]:
    true, factor = truth(name, q), inflation(name, q, count)
    samples = list(windows(name, count, how_many, seed=1))
    fixed = [percentile_interval(sample, q) for sample in samples]
    early = [stopped(sample, q) for sample in samples] if q > 0.9 else []
    known = [knowing(sample, q, factor) for sample in samples]

    def held(intervals: list[Interval]) -> str:
        return f"{np.mean([i.low <= true <= i.high for i in intervals]):.2f}" if intervals else "–"

    width = np.median([i.high - i.low for i in fixed])
    reference = np.median([high - low for low, high in known])
    ratio = f"{width / reference:.2f}" if np.isfinite([width, reference]).all() else "–"
    return [
        name, f"{count:,}", f"{factor:.0f}", held(fixed),
        f"{np.mean([math.isfinite(i.high) for i in fixed]):.2f}",
        f"{np.mean([math.isfinite(high) for _, high in known]):.2f}", ratio, held(early),
        f"{np.median([i.value for i in early]) / true - 1:+.0%}" if early else "–",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=400)
    parser.add_argument("--q", type=float, default=0.99)
    parser.add_argument("--only", default="", help="laws whose name holds this")
    args = parser.parse_args()
    head = ["law", "requests", "correlation", "held", "has an end", "knowing has", "width ratio",
            "held, stopping", "median, stopping"]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for name in LAWS:
        for count in SIZES if args.only in name else ():
            print("| " + " | ".join(row(name, count, args.q, args.windows)) + " |", flush=True)


if __name__ == "__main__":
    main()
