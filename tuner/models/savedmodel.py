"""Read a SavedModel's signature from its file, binary or text, without importing TensorFlow.

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

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message,
    message_factory,
    text_format,
)

from tuner.errors import ModelError
from tuner.models.record import TensorSpec

BINARY, TEXT = "saved_model.pb", "saved_model.pbtxt"
SERVE_TAG = "serve"
OTHER = "other"
"""Type of an answer's tensor that no request carries."""
DTYPES: Mapping[int, str] = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string",
    9: "int64", 10: "bool", 14: "bfloat16", 17: "uint16", 18: "complex128", 19: "float16", 22: "uint32",
    23: "uint64",
}  # fmt: skip

_NAMES = {"float16": "half", "float32": "float", "float64": "double"}

_MESSAGES: Mapping[str, tuple[tuple[str, int, str], ...]] = {
    "SavedModel": (("meta_graphs", 2, "repeated MetaGraph"),),
    "MetaGraph": (("meta_info_def", 1, "Info"), ("signature_def", 5, "repeated SignatureEntry")),
    "Info": (("tags", 4, "repeated string"),),
    "SignatureEntry": (("key", 1, "string"), ("value", 2, "Signature")),
    "Signature": (
        ("inputs", 1, "repeated TensorEntry"), ("outputs", 2, "repeated TensorEntry"),
        ("defaults", 4, "repeated DefaultEntry"),
    ),
    "TensorEntry": (("key", 1, "string"), ("value", 2, "Tensor")),
    "DefaultEntry": (("key", 1, "string"),),
    "Tensor": (("name", 1, "string"), ("dtype", 2, "DataType"), ("tensor_shape", 3, "Shape")),
    "Shape": (("dim", 2, "repeated Dim"), ("unknown_rank", 3, "bool")),
    "Dim": (("size", 1, "int64"),),
}
"""Message -> (field, number, type), named as TensorFlow's are, since a text file has the names. A map
field is a repeated entry of key and value."""


@dataclass(frozen=True)
class Signature:
    """The named tensors that one signature takes and gives."""

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    optional: tuple[str, ...] = ()
    """Inputs that have a default, which a request may leave out."""


def read_signature(folder: Path, name: str | None = "serving_default") -> Signature:
    """The signature ``name`` of the SavedModel in ``folder``; ``None``: ``serving_default``, or else
    the first one that takes inputs.

    Raises:
        ModelError: no SavedModel there, it cannot be read, or it has no such signature.
    """
    file = folder / BINARY if (folder / BINARY).is_file() else folder / TEXT
    if not file.is_file():
        raise ModelError(f"{folder}: no SavedModel here: {BINARY} is missing")
    saved_model = _message_class("SavedModel")()
    try:
        if file.name == BINARY:
            saved_model.ParseFromString(file.read_bytes())
        else:
            text_format.Parse(file.read_text(), saved_model, allow_unknown_field=True)
    except (message.DecodeError, text_format.ParseError, UnicodeDecodeError):
        raise ModelError(
            f"{file}: not a SavedModel: the file is damaged or cut short; export the model again"
        ) from None
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror}") from None
    # TensorFlow Serving takes the graph that has this tag and no other.
    graphs = [graph for graph in saved_model.meta_graphs if set(graph.meta_info_def.tags) == {SERVE_TAG}]
    if not graphs:
        held = [",".join(sorted(graph.meta_info_def.tags)) for graph in saved_model.meta_graphs]
        raise ModelError(
            f"{file}: no graph whose only tag is {SERVE_TAG!r}"
            + (f" (it has graphs tagged {'; '.join(held)})" if any(held) else "")
            + "; export the model for serving, with model.export(folder)"
        )
    signatures = {entry.key: entry.value for entry in graphs[0].signature_def}
    usable = sorted(key for key, value in signatures.items() if value.inputs)
    plain = [key for key in usable if not _composites(signatures[key])]
    if name is None:
        some = plain or usable
        name = "serving_default" if "serving_default" in some or not some else some[0]
    if name not in usable:
        raise ModelError(
            f"{file}: no signature {name!r} with inputs (it has {', '.join(usable) or 'none'})"
            + (f"; say --signature {usable[0]}" if usable else "; pass signatures= to tf.saved_model.save")
        )
    found = signatures[name]
    if held := _composites(found):
        raise ModelError(
            f"{file}: signature {name!r} cannot be served: {', '.join(map(repr, held))} "
            f"{'has' if len(held) == 1 else 'have'} several components (ragged or sparse), which "
            "TensorFlow Serving neither takes nor gives; export a signature of the components"
            + (f", or say --signature {plain[0]}" if plain else "")
        )
    return Signature(
        name, _specs(found.inputs, file), _specs(found.outputs, file, refuse=False),
        tuple(sorted(entry.key for entry in found.defaults)),
    )


def _composites(signature: Any) -> list[str]:
    """Inputs and outputs that are no single tensor of the graph: they have no name there, and a
    server that fetches or feeds the empty name is told that there is no such tensor."""
    entries = [*signature.inputs, *signature.outputs]
    return sorted(entry.key for entry in entries if not entry.value.name)


def _specs(entries: Any, file: Path, *, refuse: bool = True) -> dict[str, TensorSpec]:
    """Args: refuse: raise ModelError for a tensor that no request can carry (answers may)."""
    specs = {}
    for entry in sorted(entries, key=lambda entry: entry.key):
        dtype, shape = DTYPES.get(entry.value.dtype), entry.value.tensor_shape
        if dtype is None and refuse:
            raise ModelError(
                f"{file}: tensor {entry.key!r} has TensorFlow's type {entry.value.dtype}, which "
                f"requests cannot carry; usable are {', '.join(DTYPES.values())}"
            )
        dtype = dtype or OTHER
        sizes = tuple(None if dim.size < 0 else dim.size for dim in shape.dim)
        specs[entry.key] = TensorSpec(dtype, None if shape.unknown_rank else sizes)
    return specs


@cache
def _message_class(name: str) -> Any:
    """The generated class of one of ``_MESSAGES``, in a pool apart from TensorFlow's own."""
    file = descriptor_pb2.FileDescriptorProto(name="tuner_savedmodel.proto", package="tuner")
    file.syntax = "proto3"
    scalars = descriptor_pb2.FieldDescriptorProto
    types = file.enum_type.add(name="DataType")
    types.value.add(name="DT_INVALID", number=0)
    for number, dtype in DTYPES.items():
        types.value.add(name=f"DT_{_NAMES.get(dtype, dtype).upper()}", number=number)
    for message_name, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message_name)
        for field_name, number, kind in fields:
            *repeated, kind = kind.split()
            field = declared.field.add(name=field_name, number=number)
            field.label = scalars.LABEL_REPEATED if repeated else scalars.LABEL_OPTIONAL
            if kind == "DataType":
                field.type, field.type_name = scalars.TYPE_ENUM, ".tuner.DataType"
            elif kind in _MESSAGES:
                field.type, field.type_name = scalars.TYPE_MESSAGE, f".tuner.{kind}"
            else:
                field.type = getattr(scalars, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tuner.{name}"))
