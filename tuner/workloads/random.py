"""Random rows for the inputs of a signature."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tuner.errors import ModelError
from tuner.models.record import TensorSpec


def random_rows(
    inputs: Mapping[str, TensorSpec], *, count: int, seed: int
) -> dict[str, np.ndarray]:
    """``count`` random rows for each input: standard normal, whole numbers of 0 to 9, or booleans.

    Raises:
        ModelError: an input whose size is free or whose type is text: nothing right to draw.
    """
    rng = np.random.default_rng(seed)
    drawn: dict[str, np.ndarray] = {}
    for name, spec in inputs.items():
        row = () if spec.shape == () else spec.fixed_row_shape
        if row is None or spec.dtype == "string":
            raise ModelError(
                f"random requests need inputs of fixed size and numeric type, but {name} is "
                f"{spec}; give requests in an .npz file"
            )
        # A single value is sent with every request.
        shape = row if spec.shape == () else (count, *row)
        if spec.dtype == "bool":
            drawn[name] = np.asarray(rng.integers(0, 2, shape)).astype(bool)
        elif "int" in spec.dtype:
            drawn[name] = np.asarray(rng.integers(0, 10, shape)).astype(spec.dtype)
        elif spec.dtype == "bfloat16":
            # The upper half of a float32, in two bytes without a type, as numpy keeps it.
            bits = np.asarray(rng.standard_normal(shape)).astype(np.float32).view(np.uint32)
            drawn[name] = (bits >> 16).astype(np.uint16).view("V2")
        else:
            drawn[name] = np.asarray(rng.standard_normal(shape)).astype(spec.dtype)
    return drawn
