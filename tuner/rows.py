"""The rows of a requests file: read without running anything, and the tensors of a request of them.

An ``.npz`` holds one array for each input of a signature, rows along the first axis. A single value
(an array without axes) is sent with every request as it is. Rows of different shapes, and bytes that
end in zeros, stand in arrays of objects; a folder of ``.npz`` files holds the rows of all of them.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib import format as npy

from tuner.errors import ModelError

Array = np.ndarray

TYPES = frozenset({
    "float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "uint16",
    "uint32", "uint64", "bool", "complex64", "complex128", "string",
})
"""What TensorFlow Serving can be sent, by numpy's names; ``string`` is bytes or text."""


class Wanted(Protocol):
    """One input of a signature."""

    @property
    def dtype(self) -> str: ...

    @property
    def shape(self) -> tuple[int | None, ...] | None:
        """Sizes, rows first; ``None`` for a free one, as a whole for an unknown rank."""


@dataclass(frozen=True)
class Rows:
    """Input name -> its rows, and how many there are."""

    columns: Mapping[str, Array]
    """Rows along the first axis; an array of objects where their shapes differ."""
    constants: Mapping[str, Array]
    """Sent with every request as they are."""
    count: int

    @property
    def names(self) -> frozenset[str]:
        return frozenset((*self.columns, *self.constants))

    def take(self, rows: Sequence[int] | Array) -> dict[str, Array]:
        """The tensors of a request of these rows, which ``alike`` says have equal shapes."""
        found = dict(self.constants)
        for name, column in self.columns.items():
            part = column[rows]
            found[name] = np.stack(list(part)) if _is_ragged(column) else part
        return found

    def alike(self) -> Array:
        """Numbers, (count,), that are equal for rows whose shapes are equal in every input."""
        kinds: dict[Any, int] = {}
        ragged = [column for column in self.columns.values() if _is_ragged(column)]
        if not ragged:
            return np.zeros(self.count, dtype=np.int64)
        shapes = zip(*([row.shape for row in column] for column in ragged))
        return np.array([kinds.setdefault(shape, len(kinds)) for shape in shapes], dtype=np.int64)


def type_name(array: Array) -> str:
    """numpy's name of an array's type; ``string`` for bytes and text."""
    if array.dtype.kind == "O":
        return type_name(array.flat[0]) if _is_ragged(array) else "string"
    if array.dtype.kind in "SU":
        return "string"
    # NumPy knows no bfloat16 of its own and writes two bytes of no type.
    return "bfloat16" if array.dtype.kind == "V" and array.dtype.itemsize == 2 else array.dtype.name


def _is_ragged(column: Array) -> bool:
    return column.dtype.kind == "O" and isinstance(column.flat[0], np.ndarray)


def read(path: Path) -> Rows:
    """The rows of an ``.npz``, or of every one in a folder.

    Raises:
        ModelError: no such file, no ``.npz``, no rows, arrays of different length, or rows that
            cannot be sent as they were written.
    """
    if path.is_dir():
        return _together(path, [read(file) for file in files_of(path)])
    arrays = _arrays(path)
    if not arrays:
        raise ModelError(f"{path}: holds no array; one per input of the signature is needed")
    arrays = {name: _sendable(path, name, array) for name, array in arrays.items()}
    constants = {name: array for name, array in arrays.items() if array.ndim == 0}
    columns = {name: array for name, array in arrays.items() if array.ndim}
    lengths = {name: len(array) for name, array in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {rows}" for name, rows in lengths.items())
        raise ModelError(
            f"{path}: arrays must have equally many rows along the first axis, but {told}; a single "
            "value, np.array(0.7), goes with every request"
        )
    return Rows(columns, constants, next(iter(lengths.values()), 1))


def write(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write ``arrays`` to an ``.npz``, which appears whole or not at all; inputs of any name, which
    ``np.savez`` takes for its own arguments where they are called so."""
    part = path.with_name(f".{path.name}.part")
    with zipfile.ZipFile(part, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                npy.write_array(file, np.asanyarray(array))
    part.replace(path)


def files_of(folder: Path) -> list[Path]:
    """The ``.npz`` files of a folder, by name."""
    return sorted(file for file in folder.iterdir() if file.suffix == ".npz" and file.is_file())


def _arrays(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                member.removesuffix(".npy"): _array(archive, member) for member in archive.namelist()
            }
    except FileNotFoundError:
        raise ModelError(
            f"{path}: no such requests file; give an .npz with one array per input"
        ) from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, EOFError, AttributeError, TypeError, IndexError, KeyError,
            pickle.UnpicklingError, zipfile.BadZipFile) as error:
        # NumPy's own words advise to allow pickles, which may run anything.
        raise ModelError(f"{path}: not an .npz file of arrays, as np.savez writes ({error})") from None


def _array(archive: zipfile.ZipFile, member: str) -> Array:
    with archive.open(member) as file:
        version = npy.read_magic(file)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = header(file)
        if not dtype.hasobject:
            with archive.open(member) as whole:
                found: Array = npy.read_array(whole, allow_pickle=False)
            return found
        found = _Plain(file).load()
    if not isinstance(found, np.ndarray) or found.dtype != object:
        raise ValueError(f"{member}: no array of objects")
    return found.reshape(shape, order="F" if fortran else "C")


class _Plain(pickle.Unpickler):
    """Reads arrays, numbers, text and bytes, and calls nothing else that a file may name."""

    _ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric",
               "numpy._core.numeric")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if module in self._ARRAYS and name in ("_reconstruct", "scalar", "_frombuffer"):
            return super().find_class(module, name)
        # How older protocols write bytes.
        if (module, name) == ("_codecs", "encode"):
            return _latin_1
        if (module, name) in (("__builtin__", "bytes"), ("builtins", "bytes")):
            return _no_bytes
        raise pickle.UnpicklingError(
            f"an array of objects may hold arrays, numbers, text and bytes, not {module}.{name}"
        )


def _no_bytes() -> bytes:
    return b""


def _latin_1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes written as {encoding!r}")
    return text.encode("latin-1")


def _sendable(path: Path, name: str, array: Array) -> Array:
    if array.size == 0 and (array.ndim == 0 or len(array) == 0):
        raise ModelError(f"{path}: holds no rows")
    if array.dtype.kind == "O":
        return _of_objects(path, name, array)
    if array.dtype.kind in "SU":
        _refuse_cut(path, name, array)
        return array
    if type_name(array) not in TYPES:
        raise ModelError(f"{path}: {name}: type {array.dtype} cannot be sent to TF Serving")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _of_objects(path: Path, name: str, array: Array) -> Array:
    """An array of bytes, or one of arrays, a row each."""
    flat = array.ravel().tolist()
    if all(isinstance(value, (bytes, str)) for value in flat):
        encoded = [value.encode() if isinstance(value, str) else value for value in flat]
        return _objects(encoded).reshape(array.shape)
    if array.ndim != 1:
        raise ModelError(
            f"{path}: {name}: an array of objects holds bytes or text, or one array for each row"
        )
    rows = [np.asarray(value) for value in flat]
    kinds = {(type_name(row), row.ndim) for row in rows if row.dtype.kind != "O"}
    if len(kinds) != 1 or any(row.dtype.kind == "O" for row in rows):
        raise ModelError(
            f"{path}: {name}: the rows must be arrays of one type and of as many axes each"
            + "".join(sorted(f", not {kind} with {axes}" for kind, axes in kinds))
        )
    rows = [_sendable(path, name, row) if row.size else row for row in rows]
    if len({row.shape for row in rows}) == 1:
        return np.stack(rows)
    return _objects(rows)


def _objects(values: Sequence[Any]) -> Array:
    found = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        found[place] = value
    return found


def _refuse_cut(path: Path, name: str, array: Array) -> None:
    """NumPy fills bytes up to their type's width with zeros, and takes a row's own for such: text is
    as it was written; of bytes nobody can tell, unless every one fills the width."""
    width = array.dtype.itemsize
    if not width or not array.size:
        return
    unit = np.uint8 if array.dtype.kind == "S" else np.uint32
    plain = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("=")))
    letters = plain.reshape(-1).view(unit).reshape(array.size, -1)
    held = letters != 0
    if held[:, -1].all():
        return
    # Zeros in the middle, or control characters other than tab and line ends: no text.
    inner = np.logical_or.accumulate(held[:, ::-1], axis=1)[:, ::-1]
    control = np.less(letters, 32) & ~np.isin(letters, (9, 10, 13))
    if (inner & control).any() or (array.dtype.kind == "S" and not _is_utf8(array)):
        raise ModelError(
            f"{path}: {name}: holds bytes that end in zero bytes, or shorter ones: numpy's type "
            f"{array.dtype} does not keep these apart, and cuts the zeros off; write "
            f"np.savez(file, {name}=np.array(rows, dtype=object))"
        )


def _is_utf8(array: Array) -> bool:
    try:
        for value in array.ravel().tolist():
            value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _together(folder: Path, parts: Sequence[Rows]) -> Rows:
    if not parts:
        raise ModelError(f"{folder}: holds no .npz file")
    first = parts[0]
    for part in parts[1:]:
        same = part.constants.keys() == first.constants.keys() and all(
            np.array_equal(part.constants[name], first.constants[name]) for name in first.constants
        )
        if part.columns.keys() != first.columns.keys() or not same:
            raise ModelError(
                f"{folder}: every file must hold the same arrays, and single values that are equal"
            )
    columns = {}
    for name in first.columns:
        held = [part.columns[name] for part in parts]
        if len({type_name(one) for one in held}) != 1:
            raise ModelError(f"{folder}: {name}: the files hold several types of it")
        strings = type_name(held[0]) == "string"
        if len({one.shape[1:] for one in held}) == 1 and not any(map(_is_ragged, held)):
            if strings and len({one.dtype.kind for one in held}) > 1:
                held = [_of_objects(folder, name, one.astype(object)) for one in held]
            columns[name] = np.concatenate(held)
        elif strings:
            raise ModelError(f"{folder}: {name}: text must have as many axes in every file")
        else:
            columns[name] = _objects([row for one in held for row in one])
    return Rows(columns, first.constants, sum(part.count for part in parts))


def check(
    path: Path, rows: Rows, inputs: Mapping[str, Wanted], signature: str, *,
    optional: Collection[str] = (), per_request: int | None = None,
) -> None:
    """Compare the rows with what a signature takes.

    Args:
        optional: inputs that have a default and may be left out.
        per_request: rows in a request, where it is known.

    Raises:
        ModelError: names, types or shapes differ; says what the signature takes.
    """
    missing, strange = set(inputs) - rows.names - set(optional), rows.names - set(inputs)
    if missing or strange:
        raise ModelError(
            f"{path}: holds the arrays {sorted(rows.names)}, but the signature {signature!r} takes "
            f"{sorted(inputs)}; write np.savez(file, {_said(inputs)})"
        )
    for name in sorted(rows.names):
        array = rows.columns.get(name, rows.constants.get(name))
        assert array is not None
        _check_one(path, name, array, inputs[name], signature, per_request)


def _check_one(
    path: Path, name: str, array: Array, wanted: Wanted, signature: str, per_request: int | None
) -> None:
    told = type_name(array)
    if told != wanted.dtype:
        cast = "" if "string" in (told, wanted.dtype) or "bfloat16" in (told, wanted.dtype) else (
            f": write {name}.astype({wanted.dtype!r})"
        )
        raise ModelError(
            f"{path}: {name} is {told}, but the signature {signature!r} takes {wanted.dtype}{cast}"
        )
    if wanted.shape is None:
        return
    where = f"{path}: {name} has shape {list(array.shape)}, but the signature {signature!r} takes"
    if array.ndim == 0 or not wanted.shape:
        if array.ndim == 0 and not wanted.shape:
            return
        if array.ndim == 0:
            raise ModelError(
                f"{path}: {name} is a single value, but the signature {signature!r} takes "
                f"{_shape(wanted)}, with the rows along the first axis"
            )
        raise ModelError(f"{where} a single value for a whole request: write np.array(value)")
    for row in ({r.shape for r in array} if _is_ragged(array) else {array.shape[1:]}):
        asked = wanted.shape[1:]
        if len(row) != len(asked) or any(
            want is not None and have != want for have, want in zip(row, asked)
        ):
            raise ModelError(
                f"{path}: {name} has rows of shape {list(row)}, but the signature {signature!r} takes "
                f"{_shape(wanted)}, with the rows along the first axis"
            )
    fixed = wanted.shape[0]
    if per_request is not None and fixed is not None and fixed != per_request:
        raise ModelError(rows_wanted(signature, name, fixed, per_request))


def rows_wanted(signature: str, name: str, fixed: int, asked: int) -> str:
    """That a signature takes another number of rows in a request, in words."""
    return (
        f"the signature {signature!r} takes exactly {fixed} row{'s' if fixed != 1 else ''} of {name} "
        f"in a request, not {asked}: say rows: {fixed} in the space (tuner load --rows {fixed})"
    )


def _said(inputs: Mapping[str, Wanted]) -> str:
    """The arguments of np.savez for these inputs; some names can only be given in a dictionary."""
    if all(name.isidentifier() and name not in ("file", "allow_pickle") for name in inputs):
        return ", ".join(f"{name}={wanted.dtype}{_shape(wanted)}" for name, wanted in inputs.items())
    told = ", ".join(f"{name!r}: {wanted.dtype}{_shape(wanted)}" for name, wanted in inputs.items())
    return f"**{{{told}}}"


def _shape(wanted: Wanted) -> str:
    if wanted.shape is None:
        return " of any shape"
    return "[" + ", ".join("?" if size is None else str(size) for size in wanted.shape) + "]"


def floats(array: Array) -> Array:
    """bfloat16, which numpy does not know, as float32; anything else as it is."""
    if type_name(array) != "bfloat16":
        return array
    halves = np.ascontiguousarray(array).view(np.uint16).astype(np.uint32)
    return (halves << 16).view(np.float32)

