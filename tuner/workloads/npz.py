"""Request rows in ``.npz``: one array for each input of a signature, rows along the first axis."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tuner.errors import ModelError
from tuner.models.record import TensorSpec


def write(file: Path, arrays: Mapping[str, Any]) -> None:
    """Write ``arrays`` to ``file``, which appears whole or not at all."""
    part = file.with_name(f".{file.name}.part.npz")
    np.savez(part, **arrays)
    part.replace(file)


def check(file: Path, inputs: Mapping[str, TensorSpec]) -> int:
    """The number of rows of a file that fits ``inputs``.

    Raises:
        ModelError: it cannot be read, or a name, type or shape does not fit; says what would.
    """
    wanted = ", ".join(f"{name}={spec}" for name, spec in inputs.items())
    try:
        stored = np.load(file, allow_pickle=False)
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise ModelError(f"{file}: a single array; write np.savez(file, {wanted})")
        with stored:
            arrays = {name: stored[name] for name in stored.files}
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror or error})") from None
    except (ValueError, EOFError, zipfile.BadZipFile):
        # NumPy's own words advise to allow pickles, which may run anything.
        raise ModelError(
            f"{file}: not an .npz file of plain arrays; write np.savez(file, {wanted})"
        ) from None
    if set(arrays) != set(inputs):
        raise ModelError(
            f"{file}: holds {', '.join(sorted(arrays)) or 'nothing'}, but the model's inputs are "
            f"{', '.join(inputs)}; write np.savez(file, {wanted})"
        )
    for name, spec in inputs.items():
        _check_array(file, name, arrays[name], spec)
    lengths = {name: len(arrays[name]) for name in inputs}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} has {rows}" for name, rows in lengths.items())
        raise ModelError(f"{file}: the inputs must hold the same number of rows, but {said}")
    rows = next(iter(lengths.values()))
    if rows == 0:
        raise ModelError(f"{file}: holds no rows; at least one is needed")
    return rows


def _check_array(file: Path, name: str, array: np.ndarray, spec: TensorSpec) -> None:
    dtype = "string" if array.dtype.kind in "SU" else array.dtype.name
    if dtype != spec.dtype:
        cast = "" if "string" in (dtype, spec.dtype) else f": write {name}.astype({spec.dtype!r})"
        raise ModelError(f"{file}: {name} is {dtype}, the model takes {spec.dtype}{cast}")
    if array.ndim == 0:
        raise ModelError(f"{file}: {name} is a single value; rows must lie along a first axis")
    if spec.shape is None:
        return
    fits = array.ndim == len(spec.shape) and all(
        want is None or have == want for have, want in zip(array.shape[1:], spec.row_shape)
    )
    if not fits:
        raise ModelError(
            f"{file}: {name} has shape {list(array.shape)}, the model takes {spec}, "
            "with the rows along the first axis"
        )


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
        row = spec.fixed_row_shape
        if row is None or spec.dtype in ("string", "bfloat16"):
            raise ModelError(
                f"random requests need inputs of fixed size and numeric type, but {name} is "
                f"{spec}; give requests in an .npz file"
            )
        shape = (count, *row)
        if spec.dtype == "bool":
            drawn[name] = rng.integers(0, 2, shape).astype(bool)
        elif "int" in spec.dtype:
            drawn[name] = rng.integers(0, 10, shape).astype(spec.dtype)
        else:
            drawn[name] = rng.standard_normal(shape).astype(spec.dtype)
    return drawn
