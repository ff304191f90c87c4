"""Message classes that the package ``tensorflow-serving-api`` does not ship.

Described here field by field, so that protobuf itself parses and checks the text files. The
descriptors live in a pool of their own: a package that ships the same messages does not clash.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from google.protobuf.message import Message

from tuner.modelserver.status import Code, ServingError, invalid_argument

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"int64": _Field.TYPE_INT64, "bool": _Field.TYPE_BOOL, "string": _Field.TYPE_STRING}
_WRAPPERS = "google.protobuf."

_MESSAGES: dict[str, list[tuple[int, str, str]]] = {
    "tensorflow.serving.BatchingParameters": [
        (1, "max_batch_size", _WRAPPERS + "Int64Value"),
        (2, "batch_timeout_micros", _WRAPPERS + "Int64Value"),
        (3, "max_enqueued_batches", _WRAPPERS + "Int64Value"),
        (4, "num_batch_threads", _WRAPPERS + "Int64Value"),
        (5, "thread_pool_name", _WRAPPERS + "StringValue"),
        (6, "allowed_batch_sizes", "repeated int64"),
        (7, "pad_variable_length_inputs", "bool"),
        (8, "enable_large_batch_splitting", _WRAPPERS + "BoolValue"),
        (9, "max_execution_batch_size", _WRAPPERS + "Int64Value"),
    ],
    "tensorflow.serving.PrometheusConfig": [(1, "enable", "bool"), (2, "path", "string")],
    "tensorflow.serving.MonitoringConfig": [
        (1, "prometheus_config", "tensorflow.serving.PrometheusConfig"),
    ],
    "tensorflow.serving.SSLConfig": [
        (1, "server_key", "string"),
        (2, "server_cert", "string"),
        (3, "custom_ca", "string"),
        (4, "client_verify", "bool"),
    ],
    "grpc.health.v1.HealthCheckRequest": [(1, "service", "string")],
    # An enum on the wire is an int64 on the wire: UNKNOWN 0, SERVING 1, NOT_SERVING 2,
    # SERVICE_UNKNOWN 3.
    "grpc.health.v1.HealthCheckResponse": [(1, "status", "int64")],
}


def _build_classes() -> dict[str, type[Message]]:
    pool = descriptor_pool.DescriptorPool()
    wrappers = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers)
    pool.Add(wrappers)
    for full_name, fields in _MESSAGES.items():
        package, name = full_name.rsplit(".", 1)
        file = descriptor_pb2.FileDescriptorProto(
            name=f"tuner/modelserver/{full_name}.proto", package=package, syntax="proto3"
        )
        message = file.message_type.add(name=name)
        for number, field_name, kind in fields:
            repeated = kind.startswith("repeated ")
            kind = kind.removeprefix("repeated ")
            field = message.field.add(
                name=field_name,
                number=number,
                label=_Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL,
            )
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
                continue
            field.type, field.type_name = _Field.TYPE_MESSAGE, "." + kind
            needed = (
                wrappers.name if kind.startswith(_WRAPPERS) else f"tuner/modelserver/{kind}.proto"
            )
            if needed not in file.dependency:
                file.dependency.append(needed)
        pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
        for name in _MESSAGES
    }


_CLASSES = _build_classes()
BatchingParameters = _CLASSES["tensorflow.serving.BatchingParameters"]
MonitoringConfig = _CLASSES["tensorflow.serving.MonitoringConfig"]
SSLConfig = _CLASSES["tensorflow.serving.SSLConfig"]
HealthCheckRequest = _CLASSES["grpc.health.v1.HealthCheckRequest"]
HealthCheckResponse = _CLASSES["grpc.health.v1.HealthCheckResponse"]

M = TypeVar("M", bound=Message)


def read_nonempty(path: str | Path) -> str:
    """The text of a file, UTF-8.

    Raises:
        ServingError: it cannot be read, or is empty.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        code = Code.NOT_FOUND if missing else Code.FAILED_PRECONDITION
        raise ServingError(code, f"{path}; {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise invalid_argument(f"Invalid protobuf file: '{path}': {error}") from None
    if not text:
        raise invalid_argument(f"{path}; Invalid argument: the file is empty")
    return text


def read_text_proto(path: str | Path, message: M) -> M:
    """Fill ``message`` from a text-format file and return it.

    Raises:
        ServingError: NOT_FOUND, INVALID_ARGUMENT: it names the file, and line and column where it
            is wrong. TensorFlow Serving does not take an empty file either.
    """
    text = read_nonempty(path)
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise invalid_argument(f"Invalid protobuf file: '{path}': {error}") from None
