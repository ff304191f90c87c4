"""How a DNN gains from batching: time of a row alone and in batches, on one thread of one machine.

``python -m tuner.models.speed FOLDER SIGNATURE REQUESTS.npz`` measures and prints one JSON object,
``{"ms_per_row": {"1": …, "2": …, …}}``. A program of its own because it needs TensorFlow, which the
caller should not have to import.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tuner.errors import ModelError
from tuner.models.cache import cache_folder, locked
from tuner.models.process import ProgramFailed, end_with_caller, run_program
from tuner.models.record import ModelRecord
from tuner.rows import read, type_name

BATCHES = (1, 2, 4, 8, 16, 32)
WARM_RUNS, MIN_RUNS, MIN_S = 3, 7, 0.25
"""Runs thrown away, and the least number and time of those that count, for each batch size."""


@dataclass(frozen=True)
class Speed:
    """What one row costs by the size of its batch: median over runs, one thread, in process."""

    machine: str
    """Where it was measured; on another machine it has to be measured again."""
    ms_per_row: Mapping[int, float]
    """Rows in the batch -> milliseconds of compute a row."""

    @property
    def batch_efficiency(self) -> float:
        """How many times less a row costs in the best batch than alone; 1 = batching gains nothing."""
        return self.ms_per_row[1] / min(self.ms_per_row.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            "ms_per_row": {str(rows): ms for rows, ms in self.ms_per_row.items()},
            "batch_efficiency": self.batch_efficiency,
        }


def measure_speed(
    model: ModelRecord,
    requests: Path,
    *,
    machine: str,
    again: bool = False,
    cache: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Speed:
    """A model's speed on this machine: from the cache, else measured now (about 10 s).

    Args:
        requests: rows to run, an ``.npz`` as ``workloads.requests_file`` gives.
        machine: what this machine is, on one line; a speed kept for another one does not count.
        again: measure whatever the cache holds.

    Raises:
        ModelError: TensorFlow cannot run the model on these rows.
    """
    file = cache_folder(cache) / "speed" / f"{model.checksum[:16]}.json"
    with locked(file.parent):
        if not again and (kept := _read(file, machine)):
            return kept
        if progress:
            progress(f"{model.name}: timing batches of {', '.join(map(str, BATCHES))} rows")
        folder = model.path / str(model.version)
        try:
            said = run_program("tuner.models.speed", str(folder), model.signature, str(requests))
        except ProgramFailed as failure:
            raise ModelError(f"model {model.name!r} could not be timed: {failure}") from None
        found = json.loads(said)["ms_per_row"]
        speed = Speed(machine, {int(rows): float(ms) for rows, ms in found.items()})
        part = file.with_suffix(".part")
        part.write_text(json.dumps(speed.to_json(), indent=1) + "\n")
        part.replace(file)
    return speed


def _read(file: Path, machine: str) -> Speed | None:
    try:
        kept = json.loads(file.read_text())
        speed = Speed(kept["machine"], {int(n): float(v) for n, v in kept["ms_per_row"].items()})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return speed if speed.machine == machine and 1 in speed.ms_per_row else None


def time_batches(folder: str, signature: str, requests: str) -> dict[int, float]:
    """Milliseconds a row for each size of ``BATCHES``; rows repeat where the file has too few.

    A model whose batch dimension is fixed is timed at the sizes that it takes.
    """
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    loaded = tf.saved_model.load(folder, tags=["serve"])  # held: the function's variables live as long as it
    function = loaded.signatures[signature]
    held = read(Path(requests))
    # Rows of one shape: that of the first, where the data has several.
    alike = held.alike()
    first = np.flatnonzero(alike == alike[0])
    found = {}
    for rows in BATCHES:
        taken = held.take(np.resize(first, rows))
        chosen = {name: tf.constant(_for_tensorflow(array)) for name, array in taken.items()}
        try:
            for _ in range(WARM_RUNS):
                function(**chosen)
        except (tf.errors.InvalidArgumentError, ValueError):
            if rows == 1:
                raise
            continue
        found[rows] = _median_s(partial(function, **chosen)) * 1e3 / rows
    return found


def _for_tensorflow(array: np.ndarray) -> np.ndarray:
    if type_name(array) != "bfloat16":
        return array
    import ml_dtypes

    return array.view(ml_dtypes.bfloat16)


def _median_s(run: Callable[[], Any]) -> float:
    """Median seconds of a run; the median, since other work on the machine only ever adds."""
    times: list[float] = []
    while len(times) < MIN_RUNS or sum(times) < MIN_S:
        begun = time.perf_counter()
        for value in run().values():
            value.numpy()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


if __name__ == "__main__":
    end_with_caller()
    print(json.dumps({"ms_per_row": time_batches(*sys.argv[1:4])}))
