"""Build one model of the catalogue: ``python -m tuner.models.builder NAME FOLDER CACHE``.

Writes the SavedModel to FOLDER/1 and what is known of it to FOLDER/made.json; each line it prints
says what it does now. A program of its own, so that nobody else has to import TensorFlow.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.models.process import end_with_caller

VERSION = 1


@dataclass(frozen=True)
class Made:
    """What a maker gives: the network as a function of named tensors, and where it comes from.

    ``function`` takes one tensor for each entry of ``inputs`` (name -> (shape with the batch
    first, dtype)) and returns named tensors; ``variables`` are those it reads.
    """

    function: Callable[..., Mapping[str, Any]]
    inputs: Mapping[str, tuple[tuple[int | None, ...], str]]
    variables: list[Any]
    weights: str
    accuracy: float | None = None


def save(made: Made, folder: Path) -> None:
    """Write ``made`` as a SavedModel whose only signature is ``serving_default``.

    Keras's own ``Model.export`` traces a second, training endpoint and takes four times as long.
    """
    import tensorflow as tf

    specs = [tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in made.inputs.items()]
    serve = tf.function(made.function).get_concrete_function(*specs)
    module = tf.Module()
    module.parameters = made.variables  # what a module does not hold is not saved
    tf.saved_model.save(module, str(folder), signatures=serve)


def main(name: str, folder: Path, cache: Path) -> None:
    from tuner.models.catalogue import recipe
    from tuner.models.cost import count

    chosen = recipe(name)
    module, function = chosen.maker.split(":")
    print("loading TensorFlow", flush=True)
    arguments: dict[str, Any] = dict(chosen.arguments)
    if located := chosen.located(cache):
        arguments["weights"] = located
    made = getattr(importlib.import_module(module), function)(**arguments)
    print("saving", flush=True)
    target = folder / str(VERSION)
    save(made, target)
    print("counting operations", flush=True)
    found = {"weights": made.weights, "accuracy": made.accuracy, **count(str(target))}
    (folder / "made.json").write_text(json.dumps(found))


if __name__ == "__main__":
    end_with_caller()
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
