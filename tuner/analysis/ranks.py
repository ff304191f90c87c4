"""The former rank rule of recorded percentiles, and about how much too low it made a p99.

Before a stage's record held ``percentile_rule``, the p99 of n requests was the value at the rank
nearest to 0.99 n; it is the one at the next rank above, ceil(0.99 n), the least value that 99 % of
the requests don't exceed. For half of all n the former is one rank too low. The single latencies
of those stages were not kept, so their p99 cannot be computed anew.
"""

from __future__ import annotations

import math
from typing import Literal, overload

import numpy as np
import pandas as pd

from tuner.analysis.tables import numbers

RULE = "percentile_rule"
_P99 = "latency_p99_ms"


def former_rank(requests: int) -> int:
    """The rank that the former rule took for the p99 of so many requests, at least 1."""
    return max(1, int(0.99 * requests + 0.5))


def right_rank(requests: int) -> int:
    """ceil(0.99 requests): the p99's rank."""
    return -(-99 * requests // 100)


def expected_shortfall(requests: int) -> float:
    """About how far a p99 by the former rule is too low, as a share of the right one.

    An estimate for latencies with an exponential tail: the r-th of n ordered values has the mean
    Σ 1/i over i = n-r+1 … n (Rényi, 1953; David & Nagaraja, "Order Statistics", 2003, 2.5), in
    units of the law's mean, so ranks r and r+1 differ by 1/(n-r). 0.21 at 60 requests, 0.054 at
    360; of lognormal ones with σ = ½ it was 0.18 and 0.05 in a simulation. 0 where both take one rank.
    """
    former, right = former_rank(requests), right_rank(requests)
    if former >= right:
        return 0.0
    expected = math.fsum(1 / i for i in range(requests - right + 1, requests + 1))
    gap = math.fsum(1 / (requests - rank) for rank in range(former, right))
    return gap / expected


@overload
def requests_by_former_rule(table: pd.DataFrame, each: Literal[False] = ...) -> tuple[int, ...]: ...
@overload
def requests_by_former_rule(
    table: pd.DataFrame, each: Literal[True]
) -> list[tuple[int, ...]]: ...
def requests_by_former_rule(
    table: pd.DataFrame, each: bool = False
) -> tuple[int, ...] | list[tuple[int, ...]]:
    """Answered requests of every row whose p99 is by the former rule; without a p99 a row has none.

    Nothing where the table has no column ``percentile_rule``. ``each``: a tuple for each row.
    """
    if not {RULE, "requests", _P99} <= set(table.columns):
        return [()] * len(table) if each else ()
    p99 = numbers(table, _P99)
    asked = numbers(table, "requests")
    if "error_rate" in table.columns:
        asked = np.rint(asked * (1 - np.nan_to_num(numbers(table, "error_rate"))))
    found: list[tuple[int, ...]] = [
        (int(count),) if not isinstance(rule, str) and np.isfinite(value) and count > 0 else ()
        for rule, count, value in zip(table[RULE].tolist(), asked.tolist(), p99.tolist())
    ]
    return found if each else tuple(n for held in found for n in held)
