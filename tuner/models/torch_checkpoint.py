"""Read a PyTorch state dict, in the format of before PyTorch 1.6, as numpy arrays without PyTorch.

Such a file is a row of pickles (magic number, protocol, system, the dict itself, the keys of its
storages) followed by each storage: its length as a little-endian int64, then its elements. The
dict's pickle is read with an allow-list, since a pickle may otherwise run code.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tuner.errors import ModelError

MAGIC = 0x1950A86A20F9469CFC6C
_ELEMENTS = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True)
class _View:
    """A tensor as pickled: a strided view of a storage that follows later in the file."""

    storage: str
    dtype: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(file: Path) -> dict[str, NDArray[Any]]:
    """Parameter name -> array, in the file's order.

    Raises:
        ModelError: not such a file, cut short, or holding anything but float and long tensors.
    """
    try:
        with file.open("rb") as stream:
            if pickle.Unpickler(stream).load() != MAGIC:
                raise pickle.UnpicklingError("the magic number is missing")
            for _ in ("protocol version", "system information"):
                _StateDictUnpickler(stream).load()
            views = _StateDictUnpickler(stream).load()
            storages = dict(_storages(stream, views))
        return {name: _array(view, storages) for name, view in views.items()}
    except (pickle.UnpicklingError, EOFError, OSError, KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{file}: not a PyTorch state dict that can be read ({error})") from None


class _StateDictUnpickler(pickle.Unpickler):
    """Knows the few names that a state dict needs, and refuses every other."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _ELEMENTS:
            return _ELEMENTS[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, reference: Any) -> tuple[str, np.dtype[Any]]:
        kind, dtype, key, *_ = reference
        if kind != "storage":
            raise pickle.UnpicklingError(f"it refers to a {kind}")
        return key, dtype


def _rebuild_tensor(
    storage: tuple[str, np.dtype[Any]],
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *_: Any,
) -> _View:
    key, dtype = storage
    return _View(key, dtype, offset, shape, strides)


def _storages(stream: BinaryIO, views: dict[str, _View]) -> Any:
    dtypes = {view.storage: view.dtype for view in views.values()}
    for key in _StateDictUnpickler(stream).load():
        length = int.from_bytes(stream.read(8), "little", signed=True)
        dtype = dtypes[key]
        content = stream.read(length * dtype.itemsize)
        if length < 0 or len(content) != length * dtype.itemsize:
            raise EOFError("it is cut short")
        yield key, np.frombuffer(content, dtype)


def _array(view: _View, storages: dict[str, NDArray[Any]]) -> NDArray[Any]:
    storage = storages[view.storage]
    last = view.offset + sum((n - 1) * step for n, step in zip(view.shape, view.strides))
    if not 0 <= view.offset <= last < len(storage):
        raise ValueError("a tensor reaches beyond its storage")
    strides = [step * view.dtype.itemsize for step in view.strides]
    return np.lib.stride_tricks.as_strided(storage[view.offset :], view.shape, strides).copy()
