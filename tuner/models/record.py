"""What is known of a model: its signature, its weights and its size, as a frozen record."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROW_BYTES: Mapping[str, int] = {
    "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "bfloat16": 2,
    "int32": 4, "uint32": 4, "float32": 4, "int64": 8, "uint64": 8, "float64": 8,
}  # fmt: skip
"""Bytes of one element, by numpy name; strings have no fixed size and are left out."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a signature."""

    dtype: str
    """Its numpy name, or ``string``."""
    shape: tuple[int | None, ...] | None
    """Sizes, batch first; ``None`` for a free one. ``None`` as a whole: rank unknown."""

    @property
    def row_shape(self) -> tuple[int | None, ...]:
        """The shape of one row: without the batch dimension; empty when the rank is unknown."""
        return self.shape[1:] if self.shape else ()

    @property
    def fixed_row_shape(self) -> tuple[int, ...] | None:
        """The shape of one row, ``None`` where a size is free or the rank unknown."""
        sizes = tuple(length for length in self.row_shape if length is not None)
        return sizes if self.shape and len(sizes) == len(self.row_shape) else None

    @property
    def row_bytes(self) -> int | None:
        """Bytes of one row; ``None`` where a size is free or the type has none."""
        element, row = ROW_BYTES.get(self.dtype), self.fixed_row_shape
        return None if element is None or row is None else element * math.prod(row)

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype} of any shape"
        return f"{self.dtype}[{', '.join('?' if n is None else str(n) for n in self.shape)}]"


@dataclass(frozen=True)
class ModelRecord:
    """A SavedModel ready to be served, and what explains its cost.

    ``parameters`` counts every variable that the signature reads. ``flops_per_inference`` counts
    the floating-point operations of one row (a multiply-add is two), as TensorFlow's profiler
    does for the operations it knows; ``None`` where it cannot tell.
    """

    name: str
    path: Path
    """The base path a model server is given: a folder of numbered versions."""
    version: int
    weights: str
    """Where the weights come from, for a person."""
    checksum: str
    """SHA-256 over the names and contents of the version's files."""
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    parameters: int | None = None
    flops_per_inference: int | None = None
    accuracy: float | None = None
    """Share of held-out rows that the network classifies rightly, where it was trained here."""
    workload: str | None = None
    """The workload that fits it by default; ``None`` for a model of the user's own."""
    signature: str = "serving_default"
    optional: tuple[str, ...] = ()
    """Inputs that have a default, which a request may leave out."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Library name -> version that built it."""

    @property
    def input_bytes(self) -> int | None:
        """Bytes of one request row over all inputs; ``None`` where a size is free."""
        sizes = [spec.row_bytes for spec in self.inputs.values()]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def any_batch(self) -> bool:
        """Whether requests may carry any number of rows (every batch dimension is free)."""
        return all(not spec.shape or spec.shape[0] is None for spec in self.inputs.values())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; ``from_json`` gives the record back."""
        return {
            "name": self.name,
            "path": str(self.path),
            "version": self.version,
            "weights": self.weights,
            "checksum": self.checksum,
            "inputs": _specs_to_json(self.inputs),
            "outputs": _specs_to_json(self.outputs),
            "parameters": self.parameters,
            "flops_per_inference": self.flops_per_inference,
            "input_bytes": self.input_bytes,
            "accuracy": self.accuracy,
            "workload": self.workload,
            "signature": self.signature,
            "optional": list(self.optional),
            "versions": dict(self.versions),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelRecord:
        known = {key: value for key, value in data.items() if key != "input_bytes"}
        known["path"] = Path(known["path"])
        known["inputs"] = specs_from_json(known["inputs"])
        known["outputs"] = specs_from_json(known["outputs"])
        known["optional"] = tuple(known.get("optional", ()))
        return cls(**known)

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(self.to_json(), indent=1) + "\n")

    @classmethod
    def read(cls, file: Path) -> ModelRecord:
        return cls.from_json(json.loads(file.read_text()))


def _specs_to_json(specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    return {
        name: {"dtype": spec.dtype, "shape": None if spec.shape is None else list(spec.shape)}
        for name, spec in specs.items()
    }


def specs_from_json(data: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(
            dtype=spec["dtype"], shape=None if spec["shape"] is None else tuple(spec["shape"])
        )
        for name, spec in data.items()
    }
