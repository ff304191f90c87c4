"""Responses on the logarithm: a few overloaded configurations must not outweigh all the others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def logs(response: ArrayLike, *, wanted: bool = True) -> tuple[Floats, Callable[[Floats], Floats]]:
    """The response's logarithm where every value is positive, and the way back.

    Else, or where it isn't ``wanted``, the response itself and the identity. Shapes are kept.
    """
    y = np.asarray(response, dtype=float)
    if wanted and len(y) and bool((y > 0).all()):
        return np.log(y), np.exp
    return y, lambda values: values
