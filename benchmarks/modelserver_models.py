"""The benchmark's two models as SavedModels, and what they do in process, by executor."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import predict_pb2

SHAPES = {"mobilenet_v2": (224, 224, 3), "cnn_1d": (29, 12)}
"""Rows: an ImageNet picture; a recording of the data set JapaneseVowels."""
_FRESH = 32


def build(name: str, folder: Path) -> None:
    """Export a model with seeded weights to ``folder/1`` and a one-row request beside it."""
    import keras

    keras.utils.set_random_seed(1)
    if name == "mobilenet_v2":
        model = keras.applications.MobileNetV2(weights=None)
    else:
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input(SHAPES[name]),
                layers.Conv1D(32, 5, activation="relu", padding="same"),
                layers.MaxPooling1D(2),
                layers.Conv1D(64, 3, activation="relu", padding="same"),
                layers.MaxPooling1D(2),
                layers.Conv1D(64, 3, activation="relu", padding="same"),
                layers.GlobalAveragePooling1D(),
                layers.Dense(9, activation="softmax"),
            ]
        )
    model.export(folder / "1", verbose=False)
    key = next(
        iter(
            tf.saved_model.load(folder / "1")
            .signatures["serving_default"]
            .structured_input_signature[1]
        )
    )
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "default"
    request.inputs[key].CopyFrom(tf.make_tensor_proto(_rows(name, 1)))
    (folder / "request.pb").write_bytes(request.SerializeToString())


def measure(name: str, folder: Path, seconds: float, all_executors: bool) -> dict[str, float]:
    """Rows per second in process, for batches of 1 and 8, through the server's executor or three."""
    from tuner.modelserver.saved_model import SavedModelSession

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    session = SavedModelSession(folder / "1", ["serve"])
    session.start(
        config_pb2.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    )
    definition = session.signatures["serving_default"]
    feeds = [info.name for info in definition.inputs.values()]
    fetches = [info.name for info in definition.outputs.values()]
    executors: dict[str, Callable[[np.ndarray], Any]] = {
        "DirectSession callable": session.callable(feeds, fetches)
    }
    if all_executors:
        function = tf.saved_model.load(folder / "1").signatures["serving_default"]
        (key,) = function.structured_input_signature[1]
        executors["Session.make_callable"] = session.session.make_callable(fetches, feeds)
        executors["tf.function"] = lambda rows: {
            k: v.numpy() for k, v in function(**{key: tf.constant(rows)}).items()
        }
    answer = {}
    for label, run in executors.items():
        for size in (1, 8):
            rows = _rows(name, size * _FRESH).reshape(_FRESH, size, *SHAPES[name])
            answer[f"{label}, batches of {size}"] = _rate(run, rows, seconds)
    return answer


def _rows(name: str, count: int) -> np.ndarray:
    return np.random.default_rng(1).random((count, *SHAPES[name]), np.float32)


def _rate(run: Callable[[np.ndarray], Any], batches: np.ndarray, seconds: float) -> float:
    """Rows per second; each call has another batch, as each request brings its own memory."""
    for batch in batches[:3]:
        run(batch)
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        run(batches[calls % len(batches)])
        calls += 1
    return calls * batches.shape[1] / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("build", "measure"))
    parser.add_argument("name", choices=tuple(SHAPES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--all-executors", action="store_true")
    args = parser.parse_args()
    if args.action == "build":
        build(args.name, args.folder)
    else:
        print(json.dumps(measure(args.name, args.folder, args.seconds, args.all_executors)))


if __name__ == "__main__":
    main()
