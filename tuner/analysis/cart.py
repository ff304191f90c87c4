"""Importance of options by a regression tree on categorical options (metric M10).

The tree is CART (Breiman et al. 1984) with the defaults of MATLAB's ``fitrtree``: every option
categorical, nodes of fewer than 10 rows are not split, nor those whose mean squared error is below
1e-6 of the whole; leaves of one row allowed; no pruning. Own code, because scikit-learn breaks
ties between options at random and knows no categorical options.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.analysis.options import Codes

Floats = NDArray[np.float64]

MINIMUM_PARENT = 10
_TOLERANCE = 1e-6
_TIE = 1e-12  # relative difference of gains that is rounding error


def tree_importance(
    coded: Codes, response: ArrayLike, *, minimum_parent: int = MINIMUM_PARENT
) -> Floats:
    """Importance of each option, shape (options,), in squared units of the response.

    ``coded`` holds level codes, shape (n, options); an empty cell is a level of its own. The
    importance is what the splits on an option take off the mean squared error, weighted by the
    share of rows in the node, divided by the number of splits in the tree (``predictorImportance``).
    Between options that split equally well the first is taken.
    """
    shifted = np.asarray(coded, dtype=np.int64) + 1
    y = np.asarray(response, dtype=float)
    importance = np.zeros(shifted.shape[1])
    if not len(y):
        return importance
    y = y - y.mean()
    sizes = shifted.max(axis=0) + 1
    offsets = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    cells, total = shifted + offsets, int(sizes.sum())
    owner = np.repeat(np.arange(shifted.shape[1]), sizes)
    smallest = _TOLERANCE * float((y**2).mean())
    splits, waiting = 0, [np.arange(len(y))]
    while waiting:
        rows = waiting.pop()
        here = y[rows]
        if len(rows) < minimum_parent or here.var() <= smallest:
            continue
        node = cells[rows]
        counts = np.bincount(node.ravel(), minlength=total)
        sums = np.bincount(
            node.ravel(), np.repeat(here, node.shape[1]), minlength=total
        ).astype(float)
        option, gain, left = _best_split(counts, sums, owner, importance.size)
        if gain <= 0:
            continue
        importance[option] += gain
        splits += 1
        goes_left = np.isin(node[:, option], left)
        waiting += [rows[goes_left], rows[~goes_left]]
    return importance / (len(y) * max(splits, 1))


def _best_split(
    counts: NDArray[np.int64], sums: Floats, owner: NDArray[np.int64], options: int
) -> tuple[int, float, NDArray[np.int64]]:
    """Option, gain in squared error, and the cells that go left.

    For a squared error the best of all splits of an option's levels in two is among those that
    keep the levels in the order of their means (Fisher 1958).
    """
    held = np.flatnonzero(counts)
    means = sums[held] / counts[held]
    order = np.lexsort((means, owner[held]))
    held = held[order]
    whose = owner[held]
    rows, total = counts[owner == 0].sum(), sums[owner == 0].sum()
    ends = np.cumsum(counts[held]), np.cumsum(sums[held])
    last = np.flatnonzero(np.diff(whose, append=options))
    before = np.arange(options)[whose]  # each option's cells hold every row once
    left_n = ends[0] - before * rows
    left_sum = ends[1] - before * total
    inner = np.ones(len(held), dtype=bool)
    inner[last] = False
    if not inner.any():
        return 0, 0.0, held[:0]
    n, s = left_n[inner].astype(float), left_sum[inner]
    gains = s**2 / n + (total - s) ** 2 / (rows - n) - total**2 / rows
    best = float(gains.max())
    first = int(np.flatnonzero(gains >= best - _TIE * max(abs(best), 1e-300))[0])
    place = int(np.flatnonzero(inner)[first])
    option = int(whose[place])
    start = int(np.flatnonzero(whose == option)[0])
    # What remains after subtracting equal sums is rounding error, not a gain.
    scale = float((sums[held] ** 2 / counts[held]).max())
    return option, best if best > 1e-12 * scale else 0.0, held[start : place + 1]
