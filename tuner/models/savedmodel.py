"""Read a SavedModel's signature from its ``saved_model.pb`` without importing TensorFlow.

Only the few messages on the way to the signature are declared here; protobuf skips the rest.
Field numbers are those of tensorflow/core/protobuf/{saved_model,meta_graph}.proto and
tensorflow/core/framework/{tensor_shape,types}.proto.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from tuner.errors import ModelError
from tuner.models.record import TensorSpec

SERVE_TAG = "serve"
DTYPES: Mapping[int, str] = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string",
    9: "int64", 10: "bool", 14: "bfloat16", 17: "uint16", 19: "float16", 22: "uint32",
    23: "uint64",
}  # fmt: skip

_MESSAGES: Mapping[str, tuple[tuple[str, int, str], ...]] = {
    "SavedModel": (("meta_graphs", 2, "repeated MetaGraph"),),
    "MetaGraph": (("info", 1, "Info"), ("signatures", 5, "repeated SignatureEntry")),
    "Info": (("tags", 4, "repeated string"),),
    "SignatureEntry": (("key", 1, "string"), ("value", 2, "Signature")),
    "Signature": (("inputs", 1, "repeated TensorEntry"), ("outputs", 2, "repeated TensorEntry")),
    "TensorEntry": (("key", 1, "string"), ("value", 2, "Tensor")),
    "Tensor": (("dtype", 2, "int32"), ("shape", 3, "Shape")),
    "Shape": (("dims", 2, "repeated Dim"), ("unknown_rank", 3, "bool")),
    "Dim": (("size", 1, "int64"),),
}
"""Message -> (field, number, type). A map field is a repeated entry of key and value."""


@dataclass(frozen=True)
class Signature:
    """The named tensors that one signature takes and gives."""

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


def read_signature(folder: Path, name: str = "serving_default") -> Signature:
    """The signature ``name`` of the SavedModel in ``folder``.

    Raises:
        ModelError: no SavedModel there, it cannot be read, or it has no such signature.
    """
    file = folder / "saved_model.pb"
    if not file.is_file():
        raise ModelError(f"{folder}: no SavedModel here: saved_model.pb is missing")
    saved_model = _message_class("SavedModel")()
    try:
        saved_model.ParseFromString(file.read_bytes())
    except message.DecodeError:
        raise ModelError(
            f"{file}: not a SavedModel: the file is damaged or cut short; export the model again"
        ) from None
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror}") from None
    graphs = [graph for graph in saved_model.meta_graphs if SERVE_TAG in graph.info.tags]
    if not graphs:
        tags = sorted({tag for graph in saved_model.meta_graphs for tag in graph.info.tags})
        raise ModelError(
            f"{file}: no graph tagged {SERVE_TAG!r}"
            + (f" (its tags: {', '.join(tags)})" if tags else "")
            + "; export the model for serving, with model.export(folder)"
        )
    signatures = {entry.key: entry.value for entry in graphs[0].signatures}
    if name not in signatures or not signatures[name].inputs:
        usable = sorted(key for key, value in signatures.items() if value.inputs)
        raise ModelError(
            f"{file}: no signature {name!r} with inputs "
            f"(it has {', '.join(usable) or 'none'}); pass signatures= to tf.saved_model.save"
        )
    found = signatures[name]
    return Signature(name, _specs(found.inputs, file), _specs(found.outputs, file))


def _specs(entries: Any, file: Path) -> dict[str, TensorSpec]:
    specs = {}
    for entry in sorted(entries, key=lambda entry: entry.key):
        dtype, shape = DTYPES.get(entry.value.dtype), entry.value.shape
        if dtype is None:
            raise ModelError(
                f"{file}: tensor {entry.key!r} has TensorFlow's type {entry.value.dtype}, which "
                f"requests cannot carry; usable are {', '.join(DTYPES.values())}"
            )
        sizes = tuple(None if dim.size < 0 else dim.size for dim in shape.dims)
        specs[entry.key] = TensorSpec(dtype, None if shape.unknown_rank else sizes)
    return specs


@cache
def _message_class(name: str) -> Any:
    """The generated class of one of ``_MESSAGES``, in a pool apart from TensorFlow's own."""
    file = descriptor_pb2.FileDescriptorProto(name="tuner_savedmodel.proto", package="tuner")
    file.syntax = "proto3"
    scalars = descriptor_pb2.FieldDescriptorProto
    for message_name, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message_name)
        for field_name, number, kind in fields:
            *repeated, kind = kind.split()
            field = declared.field.add(name=field_name, number=number)
            field.label = scalars.LABEL_REPEATED if repeated else scalars.LABEL_OPTIONAL
            if kind in _MESSAGES:
                field.type, field.type_name = scalars.TYPE_MESSAGE, f".tuner.{kind}"
            else:
                field.type = getattr(scalars, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tuner.{name}"))
