"""Classify and Regress: tf.Examples in, labels, scores and values out, by TensorFlow Serving's rules."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import input_pb2

from tuner.modelserver.status import Code, ServingError, invalid_argument
from tuner.modelserver.tensors import length_delimited

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
_MOST_CONTEXT_BYTES = 1 << 28
_LABEL, _SCORE, _VALUE = 1, 0x15, 0x0D
"""Class.label (a field), Class.score and Regression.value (tags of 32 bits)."""


@dataclass(frozen=True)
class Classified:
    """Of each example its classes, shape (n examples, n classes)."""

    signature_name: str
    labels: np.ndarray | None
    """Bytes, of any encoding; ``None`` where the signature has none: each label is empty."""
    scores: np.ndarray | None
    """``None`` where the signature has none: each score is 0."""

    def rows(self) -> list[list[tuple[bytes, float]]]:
        """(label, score) of each class of each example."""
        some = self.labels if self.labels is not None else self.scores
        assert some is not None
        labels = np.full(some.shape, b"", object) if self.labels is None else self.labels
        scores = np.zeros(some.shape, np.float32) if self.scores is None else self.scores
        return [list(zip(*row)) for row in zip(list(labels), scores.astype(float).tolist())]

    def serialised(self) -> bytes:
        """A ClassificationResult. By hand: protobuf for Python refuses labels that are no UTF-8."""
        return b"".join(
            length_delimited(1, b"".join(length_delimited(1, _class(*item)) for item in row))
            for row in self.rows()
        )


@dataclass(frozen=True)
class Regressed:
    """Of each example its value."""

    signature_name: str
    values: Sequence[float]

    def serialised(self) -> bytes:
        """A RegressionResult."""
        return b"".join(length_delimited(1, _single(_VALUE, value)) for value in self.values)


def serialised(given: input_pb2.Input) -> np.ndarray:
    """Serialised tf.Examples, shape (n,); a context is merged into each by joining the bytes.

    Raises:
        ServingError: INVALID_ARGUMENT where there are none; RESOURCE_EXHAUSTED where a context, once
            for each example, makes far more of a request than it is.
    """
    kind = given.WhichOneof("kind")
    found = getattr(given, kind).examples if kind else ()
    if not found:
        raise invalid_argument("Input is empty.")
    context = b""
    if kind == "example_list_with_context":
        context = given.example_list_with_context.context.SerializeToString()
        if len(context) * len(found) > _MOST_CONTEXT_BYTES:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"A context of {len(context)} bytes for each of {len(found)} examples is more than "
                f"{_MOST_CONTEXT_BYTES} bytes",
            )
    array = np.empty(len(found), dtype=object)
    array[:] = [context + example.SerializeToString() for example in found]
    return array


def check_classification(definition: Any, check_method: bool) -> None:
    """Whether a signature can be asked to classify.

    Raises:
        ServingError: INVALID_ARGUMENT, why not.
    """
    _check_method(definition, check_method, "classification", CLASSIFY)
    _check_input(definition)
    if len(definition.outputs) not in (1, 2):
        raise invalid_argument(
            f"Expected one or two output Tensors, found {len(definition.outputs)}"
        )
    if "inputs" not in definition.inputs:
        raise invalid_argument(f"No classification inputs found in SignatureDef: {definition}")
    if not {"classes", "scores"} & set(definition.outputs):
        raise invalid_argument(
            "Expected classification signature outputs to contain at least one of "
            f'"classes" or "scores". Signature was: {definition}'
        )


def check_regression(definition: Any, check_method: bool) -> None:
    """Whether a signature can be asked for a regression.

    Raises:
        ServingError: INVALID_ARGUMENT, why not.
    """
    _check_method(definition, check_method, "regression", REGRESS)
    _check_input(definition)
    if len(definition.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    for side, name in ((definition.inputs, "inputs"), (definition.outputs, "outputs")):
        if name not in side:
            raise invalid_argument(f"No regression {name} found in SignatureDef: {definition}")


def classes_and_scores(
    outputs: Mapping[str, np.ndarray], count: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Classes and scores of ``count`` examples among a signature's outputs.

    Raises:
        ServingError: INVALID_ARGUMENT, they are none of ``count`` examples.
    """
    classes, scores = outputs.get("classes"), outputs.get("scores")
    for name, array, wanted in (
        ("classes", classes, types_pb2.DT_STRING),
        ("scores", scores, types_pb2.DT_FLOAT),
    ):
        if array is None:
            continue
        if array.ndim != 2:
            raise invalid_argument(
                f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}"
            )
        if _type(array) != wanted:
            raise invalid_argument(
                f"Expected {name} Tensor of {types_pb2.DataType.Name(wanted)}. "
                f"Got: {types_pb2.DataType.Name(_type(array))}"
            )
        if len(array) != count:
            raise invalid_argument(
                f"Expected {name} output batch size of {count}. Got: {len(array)}"
            )
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise invalid_argument(
            "Tensors class and score should match in dim_size(1). "
            f"Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    return classes, scores


def values(outputs: np.ndarray, count: int) -> list[float]:
    """The values of ``count`` examples in a regression's output.

    Raises:
        ServingError: INVALID_ARGUMENT, they are none of ``count`` examples.
    """
    if outputs.ndim != 1 and not (outputs.ndim == 2 and outputs.shape[1] == 1):
        raise invalid_argument(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{_shape(outputs)}"
        )
    if len(outputs) != count:
        raise invalid_argument(
            f"Input batch size did not match output batch size: {count} vs. {len(outputs)}"
        )
    if _type(outputs) != types_pb2.DT_FLOAT:
        raise invalid_argument(
            f"Expected output Tensor of DT_FLOAT.  Got: {types_pb2.DataType.Name(_type(outputs))}"
        )
    found: list[float] = outputs.ravel().tolist()
    return found


def _check_method(definition: Any, check: bool, kind: str, wanted: str) -> None:
    if check and definition.method_name != wanted:
        raise invalid_argument(
            f"Expected {kind} signature method_name to be {wanted}. Was: {definition.method_name}"
        )


def _check_input(definition: Any) -> None:
    if len(definition.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")


def _type(array: np.ndarray) -> int:
    if array.dtype == object:
        return types_pb2.DT_STRING
    return int(tf.dtypes.as_dtype(array.dtype).as_datatype_enum)


def _shape(array: np.ndarray) -> str:
    return "[" + ",".join(map(str, array.shape)) + "]"


def _class(label: bytes, score: float) -> bytes:
    return (length_delimited(_LABEL, label) if label else b"") + _single(_SCORE, score)


def _single(tag: int, value: float) -> bytes:
    """A float field, which is left out where it is 0 (and not -0)."""
    packed = struct.pack("<f", value)
    return bytes((tag,)) + packed if any(packed) else b""
