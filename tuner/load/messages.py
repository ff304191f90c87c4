"""The few TensorFlow Serving messages that load needs, without importing TensorFlow.

``tensorflow_serving.apis`` imports all of TensorFlow (3 s, 570 MB). These classes are built from
descriptors with the same names, field numbers and types, so the bytes are the same; they live in
a descriptor pool of their own and never clash with TensorFlow's, imported or not. Only the fields
that a client of Predict and GetModelMetadata needs are described: others pass as unknown fields.

Sources: tensorflow/core/framework/{tensor,tensor_shape,types}.proto,
tensorflow/core/protobuf/meta_graph.proto, tensorflow_serving/apis/{model,predict,
get_model_metadata}.proto.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto

_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
    "int64": _Field.TYPE_INT64,
    "string": _Field.TYPE_STRING,
    # DataType is an enum; an open enum and an int32 have the same wire format.
    "DataType": _Field.TYPE_INT32,
}

_MESSAGES: dict[str, list[tuple[int, str, str]]] = {
    "Dim": [(1, "size", "int64"), (2, "name", "string")],
    "TensorShapeProto": [(2, "dim", "repeated Dim"), (3, "unknown_rank", "bool")],
    "TensorProto": [
        (1, "dtype", "DataType"),
        (2, "tensor_shape", "TensorShapeProto"),
        (4, "tensor_content", "bytes"),
        (8, "string_val", "repeated bytes"),
    ],
    "Int64Value": [(1, "value", "int64")],
    "ModelSpec": [
        (1, "name", "string"),
        (2, "version", "Int64Value"),
        (3, "signature_name", "string"),
    ],
    "PredictRequest": [
        (1, "model_spec", "ModelSpec"),
        (2, "inputs", "map TensorProto"),
        (3, "output_filter", "repeated string"),
    ],
    "PredictResponse": [(1, "outputs", "map TensorProto"), (2, "model_spec", "ModelSpec")],
    "TensorInfo": [
        (1, "name", "string"),
        (2, "dtype", "DataType"),
        (3, "tensor_shape", "TensorShapeProto"),
    ],
    "SignatureDef": [
        (1, "inputs", "map TensorInfo"),
        (2, "outputs", "map TensorInfo"),
        (3, "method_name", "string"),
        (4, "defaults", "map TensorProto"),
    ],
    "SignatureDefMap": [(1, "signature_def", "map SignatureDef")],
    "Any": [(1, "type_url", "string"), (2, "value", "bytes")],
    "GetModelMetadataRequest": [
        (1, "model_spec", "ModelSpec"),
        (2, "metadata_field", "repeated string"),
    ],
    "GetModelMetadataResponse": [(1, "model_spec", "ModelSpec"), (2, "metadata", "map Any")],
}

_PACKAGE = "tuner.load.wire"


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="tuner/load/wire.proto", package=_PACKAGE, syntax="proto3"
    )
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for number, name, kind in fields:
            repeated, _, base = kind.rpartition(" ")
            field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
            if repeated == "map":
                entry = message.nested_type.add(name=name.title().replace("_", "") + "Entry")
                entry.options.map_entry = True
                for entry_number, entry_name, entry_kind in (
                    (1, "key", "string"),
                    (2, "value", base),
                ):
                    part = entry.field.add(
                        name=entry_name, number=entry_number, label=_Field.LABEL_OPTIONAL
                    )
                    _set_type(part, entry_kind)
                base = f"{message_name}.{entry.name}"
            if repeated:
                field.label = _Field.LABEL_REPEATED
            _set_type(field, base)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


def _set_type(field: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"


_CLASSES = _build()

GetModelMetadataRequest = _CLASSES["GetModelMetadataRequest"]
GetModelMetadataResponse = _CLASSES["GetModelMetadataResponse"]
PredictRequest = _CLASSES["PredictRequest"]
PredictResponse = _CLASSES["PredictResponse"]
SignatureDefMap = _CLASSES["SignatureDefMap"]
TensorProto = _CLASSES["TensorProto"]

PREDICT_METHOD = "/tensorflow.serving.PredictionService/Predict"
METADATA_METHOD = "/tensorflow.serving.PredictionService/GetModelMetadata"

DATA_TYPES = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "string": 7,
    "complex64": 8,
    "int64": 9,
    "bool": 10,
    "bfloat16": 14,
    "uint16": 17,
    "complex128": 18,
    "float16": 19,
    "uint32": 22,
    "uint64": 23,
}
"""NumPy's name of a type -> ``DataType`` of tensorflow/core/framework/types.proto."""

DATA_TYPE_NAMES = {number: name for name, number in DATA_TYPES.items()}
