"""The request rows for a model: from real data, a file or folder of the user's, or random."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import numpy as np

from tuner import rows
from tuner.errors import ModelError, UnavailableError
from tuner.models.cache import cache_folder, locked
from tuner.models.record import ModelRecord, TensorSpec
from tuner.workloads import photographs, random, text, timeseries

DEFAULT_COUNT = {
    "photographs": 64,
    "japanese_vowels": 370,
    "movie_reviews": 1000,
    "images": 64,
    "random": 64,
}
"""Distinct rows by kind: enough that no answer can be remembered, few enough to keep in memory."""

_PACKAGES = {
    "photographs": ("scikit-learn", "scikit-image", "pillow"),
    "japanese_vowels": ("sktime",),
    "movie_reviews": ("movie-reviews",),
    "images": ("pillow",),
    "random": ("numpy",),
}
_SERIES = {"japanese_vowels": timeseries.shuffled, "movie_reviews": text.shuffled}
_REVISION = 1
"""Goes up whenever the same request for rows would give other rows."""


def requests_file(
    model: ModelRecord,
    *,
    source: str = "default",
    seed: int = 0,
    count: int | None = None,
    per_request: int | None = None,
    cache: Path | None = None,
) -> Path:
    """A ``.npz`` with one array for each input of the model, distinct rows along the first axis.

    Args:
        source: ``default`` for the model's own workload; the path of an ``.npz`` or of a folder of
            them, which is checked against the signature and used as it is, or of a folder of images;
            or ``random``.
        seed: which crops, which series or which numbers; the same seed gives the same rows.
        count: distinct rows; by default as many as ``DEFAULT_COUNT`` says. Not for an ``.npz``.
        per_request: rows in a request, where it is known: a signature may take just so many.

    Raises:
        ModelError: the source is missing or does not fit the model's inputs.
        UnavailableError: a package that ships the data is not installed.
    """
    if count is not None and count < 1:
        raise ModelError(f"requests: count must be at least 1, not {count}")
    kind = _kind(model, source)
    if kind == "npz":
        file = Path(source).resolve()
        rows.check(
            file, rows.read(file), model.inputs, model.signature, optional=model.optional,
            per_request=per_request,
        )
        return file
    count = count or DEFAULT_COUNT[kind]
    for name, spec in model.inputs.items():
        fixed = spec.shape[0] if spec.shape else None
        if per_request is not None and fixed is not None and fixed != per_request:
            raise ModelError(rows.rows_wanted(model.signature, name, fixed, per_request))
    file = cache_folder(cache) / "requests" / f"{kind}-{_key(model, kind, source, seed, count)}.npz"
    with locked(file.parent):
        if not file.exists():
            rows.write(file, _rows(model, kind, source, seed, count))
    return file


def _kind(model: ModelRecord, source: str) -> str:
    if source == "random":
        return "random"
    if source == "default":
        if model.workload is None:
            raise ModelError(
                f"model {model.name!r} is the user's own: say what to send it with "
                "--requests FILE.npz, a folder of images, or random"
            )
        return model.workload
    path = Path(source)
    if path.is_dir():
        return "npz" if rows.files_of(path) else "images"
    if path.is_file():
        return "npz"
    raise ModelError(
        f"{source}: no such requests; give an .npz file, a folder of them or of images, or the word "
        "random"
    )


def _key(model: ModelRecord, kind: str, source: str, seed: int, count: int) -> str:
    """Identifies what the rows are made of: data, versions, shapes, seed and number."""
    data: object = {package: _version(package) for package in _PACKAGES[kind]}
    if kind == "images":
        files = sorted(file for file in Path(source).resolve().iterdir() if file.is_file())
        data = [data, [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files]]
    shapes = {name: str(spec) for name, spec in model.inputs.items()}
    text = json.dumps([_REVISION, kind, data, shapes, seed, count], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise UnavailableError(
            f"these requests come with the package {package}: pip install {package}"
        ) from None


def _rows(
    model: ModelRecord, kind: str, source: str, seed: int, count: int
) -> Mapping[str, np.ndarray]:
    if kind == "random":
        return random.random_rows(model.inputs, count=count, seed=seed)
    if kind in _SERIES:
        name, _ = _only_input(model, f"a model for {kind}")
        return {name: _SERIES[kind](count=count, seed=seed)}
    name, spec = _only_input(model, "an image model")
    height, width = _image_size(model, spec)
    images = (
        photographs.packaged() if kind == "photographs" else photographs.from_folder(Path(source))
    )
    pixels = photographs.rows(images, height=height, width=width, count=count, seed=seed)
    return {name: pixels.astype(spec.dtype)}


def _only_input(model: ModelRecord, what: str) -> tuple[str, TensorSpec]:
    if len(model.inputs) != 1:
        raise ModelError(
            f"{what} has one input, but {model.name!r} has {', '.join(model.inputs)}; "
            "give requests in an .npz file"
        )
    return next(iter(model.inputs.items()))


def _image_size(model: ModelRecord, spec: TensorSpec) -> tuple[int, int]:
    row = spec.row_shape
    if len(row) == 3 and row[2] == 3 and row[0] and row[1] and spec.dtype in ("float32", "uint8"):
        return row[0], row[1]
    raise ModelError(
        f"images need an input of float32 or uint8 [?, height, width, 3], but {model.name!r} "
        f"takes {spec}; give requests in an .npz file"
    )
