"""Two responses of the same configurations: correlations, and the best ones they share."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def pearson(a: ArrayLike, b: ArrayLike) -> float | None:
    """Pearson correlation; ``None`` for fewer than two points or without spread."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if len(x) < 2 or not np.ptp(x) > 0 or not np.ptp(y) > 0:
        return None
    x, y = x - x.mean(), y - y.mean()
    x, y = x / np.abs(x).max(), y / np.abs(y).max()  # keeps tiny and huge units from underflow
    return float(np.clip((x @ y) / np.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def spearman(a: ArrayLike, b: ArrayLike) -> float | None:
    """Spearman correlation, ties sharing their mean rank; ``None`` as for ``pearson``."""
    from scipy.stats import rankdata

    return pearson(rankdata(np.asarray(a)), rankdata(np.asarray(b)))


def overlap(a: ArrayLike, b: ArrayLike, share: float, *, worst: bool = False) -> float | None:
    """Share of the best (worst) configurations of two responses (n,) that are the same.

    The best are the ``floor(share n)`` lowest, at least one; among equals the earlier rows count
    as lower, as in a stable sort. ``None`` when there is no configuration.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of best configurations lies in (0, 1], not {share}")
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if not len(x):
        return None
    count = max(1, int(share * len(x) + 1e-9))
    part = slice(len(x) - count, None) if worst else slice(count)
    chosen = (set(np.argsort(values, kind="stable")[part].tolist()) for values in (x, y))
    return len(set.intersection(*chosen)) / count
