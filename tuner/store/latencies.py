"""Every latency of a recorded study in one small file beside its database.

``latencies-<study>.npz`` holds for each trial ``<number>.latency_ms`` (float32 of 12 significant
bits, so within 0.025 %; NaN where no answer came), ``<number>.failed`` (which requests were answered
with an error) and ``<number>.due``, the name of its array of due times: microseconds from one
request to the next, the first from the window's opening. Trials of one study share their arrivals,
so most share that array too. ``read`` puts them together.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuner.errors import StudyError

PREFIX = "latencies-"
_KEPT_BITS = 11
"""Explicit mantissa bits of a latency; the others would be noise that no compression takes away."""
_DUE_US = 1e-6


@dataclass(frozen=True)
class Latencies:
    """The requests of one trial's measured window, in due order."""

    due_s: np.ndarray
    """Shape (n,), float64, seconds from the window's opening, to a microsecond."""
    latency_ms: np.ndarray
    """Shape (n,), float32, from the intended send time; NaN: never answered."""
    failed: np.ndarray
    """Shape (n,), bool: answered with an error."""


def file_of(database: Path, study: str) -> Path:
    """The file of one study's latencies, beside its database."""
    return database.with_name(f"{PREFIX}{study}.npz")


def keep(file: Path, samples: Iterable[tuple[int, Path]]) -> list[int]:
    """Add trials' samples (``load.window.write_samples``) to a study's file; other trials stay.

    The file is replaced in one step, so a kill leaves it as it was; samples that are gone or cut
    short are passed over.

    Returns:
        The numbers of the trials that the file holds now, those of before included.
    """
    held = _read(file) if file.exists() else {}
    added = False
    for number, path in samples:
        try:
            with np.load(path) as told:
                due, latency, status = (told[k] for k in ("due_s", "latency_ms", "status"))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            continue
        held |= {
            f"{number}.latency_ms": _rounded(latency),
            f"{number}.failed": np.flatnonzero(~np.isnan(latency) & (status != 0)).astype(np.uint32),
            f"{number}.due": np.array(_shared(held, np.rint(due / _DUE_US).astype(np.int64))),
        }
        added = True
    if added:
        _write(file, held)
    return _numbers(held)


def reference(study: str, number: int) -> str:
    """What a trial's record says of where its latencies are."""
    return f"{PREFIX}{study}.npz#{number}"


def numbers(file: Path) -> list[int]:
    """The trials whose latencies a study's file holds; none where there is no such file."""
    if not file.exists():
        return []
    with zipfile.ZipFile(file) as archive:
        return _numbers(name.removesuffix(".npy") for name in archive.namelist())


def read(file: Path, number: int) -> Latencies:
    """The requests of one trial.

    Raises:
        StudyError: the file is not there, or does not hold the trial.
    """
    if number not in numbers(file):
        raise StudyError(f"{file}: holds no latencies of trial {number}")
    with np.load(file) as held:
        latency = held[f"{number}.latency_ms"]
        failed = np.zeros(len(latency), bool)
        failed[held[f"{number}.failed"]] = True
        steps = held[str(held[f"{number}.due"])][: len(latency)]
        return Latencies(np.cumsum(steps, dtype=np.int64) * _DUE_US, latency, failed)


def _numbers(names: Iterable[str]) -> list[int]:
    return sorted(
        int(name.removesuffix(".latency_ms")) for name in names if name.endswith(".latency_ms")
    )


def _rounded(latency_ms: np.ndarray) -> np.ndarray:
    """Float32 with only its first mantissa bits, to the nearest."""
    dropped = 23 - _KEPT_BITS
    bits = latency_ms.astype(np.float32).view(np.uint32)
    nearest = (bits + np.uint32(1 << (dropped - 1))) & np.uint32(~((1 << dropped) - 1) & 0xFFFFFFFF)
    return np.where(np.isnan(latency_ms), np.float32("nan"), nearest.view(np.float32))


def _shared(held: dict[str, Any], due_us: np.ndarray) -> str:
    """The name of an array of due times that begins with these; a new one where there is none."""
    steps = np.diff(due_us, prepend=0).astype(np.int32)
    names = [name for name in held if name.startswith("due.")]
    for name in names:
        common = min(len(held[name]), len(steps))
        # The same arrivals, rounded from two openings of a window, may be a microsecond apart.
        apart = np.cumsum(held[name][:common], dtype=np.int64) - due_us[:common]
        if not common or np.abs(apart).max() <= 1:
            if len(steps) > common:
                held[name] = steps
            return name
    name = f"due.{len(names)}"
    held[name] = steps
    return name


def _read(file: Path) -> dict[str, Any]:
    with np.load(file) as held:
        return dict(held)


def _write(file: Path, held: dict[str, Any]) -> None:
    partial = file.with_name(f"{file.name}.partial")
    with open(partial, "wb") as opened:
        np.savez_compressed(opened, **held)
    os.replace(partial, file)
