"""A client of a few lines for the doubling model, without TensorFlow in the test's process."""

from __future__ import annotations

import struct

import grpc

from tuner.deploy.readiness import fields, varint

INPUT, OUTPUT = "x", "y"


def chunk(number: int, body: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(body)) + body


def request(name: str, rows: list[float]) -> bytes:
    """``PredictRequest`` with one float column."""
    dimensions = b"".join(chunk(2, b"\x08" + varint(size)) for size in (len(rows), 1))
    content = struct.pack(f"<{len(rows)}f", *rows)
    tensor = b"\x08\x01" + chunk(2, dimensions) + chunk(4, content)
    entry = chunk(1, INPUT.encode()) + chunk(2, tensor)
    return chunk(1, chunk(1, name.encode())) + chunk(2, entry)


def answer(response: bytes) -> list[float]:
    """The floats of the one output of a ``PredictResponse``."""
    outputs = [dict(fields(body)) for number, body in fields(response) if number == 1]
    tensor = dict(fields(outputs[0][2]))
    packed = tensor.get(4) or tensor.get(5)
    return list(struct.unpack(f"<{len(packed) // 4}f", packed))


def predict_raw(address: str, name: str, rows: list[float], timeout_s: float = 10.0) -> bytes:
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        return call(request(name, rows), timeout=timeout_s)


def predict_doubled(address: str, name: str) -> None:
    """Ask the doubling model and insist on the right answer."""
    assert answer(predict_raw(address, name, [1.5, -2.0])) == [3.0, -4.0]
