"""Two-factor interactions: which pairs of options act together in a way neither does alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tuner.analysis.options import Option, codes
from tuner.analysis.stepwise import added_by

Floats = NDArray[np.float64]


def interaction_table(
    table: pd.DataFrame, options: Sequence[Option], response: ArrayLike
) -> pd.DataFrame:
    """Every pair of options by what its interaction adds to all main effects, greatest first.

    Columns ``one``, ``other``, ``share`` (of the response's variance, R² gained) and ``p_value``
    (F-test, multiplied by the number of pairs: Bonferroni). Options are taken as categorical, an
    inactive one as a level of its own, so no shape of the effect is assumed. A pair whose
    combinations were not measured has share 0 and p-value NaN.
    """
    coded = codes(table, options)
    mains = [_dummies(column) for column in coded.T]
    pairs = list(combinations(range(len(options)), 2))
    products = [
        (mains[i][:, :, None] * mains[j][:, None, :]).reshape(len(coded), -1) for i, j in pairs
    ]
    found = added_by(mains, products, response)
    rows = [
        (options[i].name, options[j].name, share, float(np.minimum(1.0, chance * len(pairs))))
        for (i, j), (share, chance) in zip(pairs, found)
    ]
    result = pd.DataFrame(rows, columns=["one", "other", "share", "p_value"])
    return result.sort_values("share", ascending=False, kind="stable", ignore_index=True)


def _dummies(column: NDArray[np.int64]) -> Floats:
    """0/1 columns of every code met but the first."""
    return np.asarray(column[:, None] == np.unique(column)[1:], dtype=float)
