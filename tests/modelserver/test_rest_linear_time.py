"""What REST reads and writes costs in proportion to its size: twice as much, at most three times."""

from __future__ import annotations

import gc
import gzip
import json
import math
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tuner.modelserver import json_answer, json_request, json_tensor, json_text
from tuner.modelserver.http1.body import Chunked, Sized, unpacked
from tuner.modelserver.http1.connection import Connection
from tuner.modelserver.http1.response import Response
from tuner.modelserver.status import ServingError

FLOATS = {"x": json_tensor.kind_of(tf.float32.as_datatype_enum)}
STRINGS = {"x": json_tensor.kind_of(tf.string.as_datatype_enum)}

Run = Callable[[], object]


def cpu_s(run: Run) -> float:
    begun = time.thread_time()
    run()
    return time.thread_time() - begun


def refused(work: Run) -> Run:
    def run() -> None:
        with pytest.raises(ServingError):
            work()

    return run


def document(body: bytes, kinds: json_tensor.Kinds = FLOATS) -> Run:
    return lambda: json_request.predict_inputs(json_request.parse(body), kinds)


def rows_of(row: str, count: int, last: str = "") -> bytes:
    return ('{"instances": [' + ",".join([row] * count + ([last] if last else [])) + "]}").encode()


JSON: dict[str, tuple[Callable[[int], Run], int]] = {
    "numbers": (lambda n: document(rows_of("0.123456", n)), 200_000),
    "numbers by column": (
        lambda n: document(json.dumps({"inputs": [0.123456] * n}).encode()), 200_000),
    "pixels": (lambda n: document(rows_of("[[[1],[2]],[[3],[4]]]", n)), 12_000),
    "rows that are objects": (lambda n: document(rows_of('{"x": 1.5}', n)), 40_000),
    "not a number": (lambda n: document(rows_of("NaN", n)), 100_000),
    "the real parser's own not a number": (lambda n: document(rows_of("-Inf", n)), 20_000),
    "strings": (lambda n: document(rows_of('"abc"', n), STRINGS), 100_000),
    "one long string": (lambda n: document(rows_of(f'"{"a" * n}"', 1), STRINGS), 10_000_000),
    "one string of escapes": (lambda n: document(rows_of(r'"%s"' % (r"\n" * n), 1), STRINGS), 1_000_000),
    "one string of half surrogates": (
        lambda n: document(rows_of(r'"%s"' % (r"\udc00" * n), 1), STRINGS), 50_000),
    "one string of raw bytes": (
        lambda n: document(b'{"instances": ["' + b"\xff" * n + b'"]}', STRINGS), 2_000_000),
    "base64": (lambda n: document(rows_of('{"b64": "AAEC"}', n), STRINGS), 50_000),
    "one long base64": (lambda n: document(rows_of(f'{{"b64": "{"AAEC" * n}"}}', 1), STRINGS), 2_000_000),
    "a wrong number at the end": (lambda n: refused(document(rows_of("[0.5,0.5]", n, '[0.5,"x"]'))), 20_000),
    "a short row at the end": (lambda n: refused(document(rows_of("[0.5,0.5]", n, "[0.5]"))), 20_000),
    "a short list in one row": (
        lambda n: refused(document(rows_of("[" + "[1,2]," * n + "[1]]", 1))), 20_000),
    "an object at the end": (lambda n: refused(document(rows_of("1", n, '{"x": 1}'))), 40_000),
    "another key at the end": (
        lambda n: refused(document(rows_of('{"x": 1}', n, '{"y": 1}'))), 30_000),
    "a wrong string at the end": (
        lambda n: refused(document(rows_of('"a"', n, "5"), STRINGS)), 30_000),
    "bad base64 at the end": (
        lambda n: refused(document(rows_of('{"b64": "AAEC"}', n, '{"b64": "*"}'), STRINGS)), 15_000),
    "a bracket missing": (lambda n: refused(document(rows_of("1.5", n)[:-2])), 30_000),
    "a quotation mark missing": (
        lambda n: refused(document(b'{"instances": ["' + b"a" * n)), 4_000_000),
    "what follows the document": (lambda n: document(rows_of("1", 1) + b" x" * n), 2_000_000),
    "blanks": (lambda n: document(b" " * n + rows_of("1", 1)), 4_000_000),
    "doubled keys": (
        lambda n: document(b'{"instances": [1]' + b', "instances": [1]' * n + b"}"), 50_000),
    "doubled keys of the rows": (lambda n: document(rows_of('{"x": 1, "x": 2}', n)), 20_000),
    "unknown keys": (
        lambda n: document(
            b'{"instances": [1]' + b"".join(b', "k%d": 1' % i for i in range(n)) + b"}"), 50_000),
    "a long number": (lambda n: refused(document(rows_of("1" * n, 1))), 1_000_000),
    "a long fraction": (lambda n: document(rows_of("0." + "1" * n, 1)), 500_000),
    "lists in lists": (lambda n: refused(lambda: json_text.loads(b"[" * n)), 1_000_000),
    "objects in objects": (lambda n: refused(lambda: json_text.loads(b'{"a":' * n)), 1_000_000),
    "a wrong value that is long": (lambda n: refused(document(rows_of("[" + "1," * n + "1]", 1, "2"))), 50_000),
}


def answer_of(array: Any) -> Run:
    return lambda: json_answer.predict_outputs(["y"], [array], True)


ANSWERS: dict[str, tuple[Callable[[int], Run], int]] = {
    "float32": (lambda n: answer_of(np.random.default_rng(0).normal(size=n).astype(np.float32)), 1_000_000),
    "not a number": (lambda n: answer_of(np.full(n, np.nan, np.float32)), 50_000),
    "strings": (lambda n: answer_of(np.array([b"abc"] * n, object)), 200_000),
    "raw bytes": (lambda n: answer_of(np.array([b"\xff"] * n, object)), 100_000),
    "rows of objects": (
        lambda n: lambda: json_answer.predict_outputs(
            ["y", "z"], [np.zeros(n, np.float32), np.zeros((n, 2))], True), 20_000),
}


def chunked(size: int) -> Callable[[int], Run]:
    def made(count: int) -> Run:
        data = b"%x\r\n%s\r\n" % (size, b"a" * size) * count + b"0\r\n\r\n"

        def run() -> None:
            body = Chunked()
            for start in range(0, len(data), 1 << 16):
                body.take(data[start : start + (1 << 16)], 0)
            assert body.complete and len(body.content()) == size * count

        return run

    return made


def sized(count: int) -> Run:
    data = b"a" * count

    def run() -> None:
        body = Sized(count)
        for start in range(0, count, 1000):
            body.take(data[start : start + 1000], 0)
        assert body.complete

    return run


def unpacking(byte: bytes) -> Callable[[int], Run]:
    def made(count: int) -> Run:
        data = byte * count if byte else np.random.default_rng(0).bytes(count)
        packed = gzip.compress(data, 1)
        return lambda: unpacked(packed)

    return made


def served(request: Callable[[int], bytes], part_bytes: int) -> Callable[[int], Run]:
    """A connection that reads it, in parts of that size, and answers it."""

    def made(count: int) -> Run:
        data = request(count)

        def run() -> None:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                ours.setblocking(False)
                answered = []
                connection = Connection(ours, lambda head, body: answered.append(1) or Response(200, b""))
                for start in range(0, len(data), part_bytes):
                    theirs.sendall(data[start : start + part_bytes])
                    assert connection.serve()
                    if start % (part_bytes * 16) == 0 and answered:
                        theirs.recv(1 << 20)
                assert answered

        return run

    return made


HTTP: dict[str, tuple[Callable[[int], Run], int]] = {
    "tiny chunks": (chunked(1), 20_000),
    "large chunks": (chunked(100_000), 200),
    "a body of known length": (sized, 20_000_000),
    "gzip of noise": (unpacking(b""), 20_000_000),
    "many headers": (
        served(lambda n: b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * n + b"\r\n", 1 << 15), 100_000),
    "many headers in small parts": (
        served(lambda n: b"GET / HTTP/1.1\r\n" + b"Ab: cd\r\n" * n + b"\r\n", 50), 40_000),
    "one long header in small parts": (
        served(lambda n: b"GET / HTTP/1.1\r\nA: " + b"b" * n + b"\r\n\r\n", 50), 500_000),
    "a long path": (served(lambda n: b"GET /" + b"a" * n + b" HTTP/1.1\r\n\r\n", 1 << 15), 800_000),
    "pipelined requests": (served(lambda n: b"GET / HTTP/1.1\r\n\r\n" * n, 18 * 20), 10_000),
    "blank lines": (served(lambda n: b"\r\n" * n + b"GET / HTTP/1.1\r\n\r\n", 1 << 15), 200_000),
}

CASES = {f"{group}: {name}": case for group, cases in
         (("json", JSON), ("answer", ANSWERS), ("http", HTTP)) for name, case in cases.items()}


@pytest.fixture
def no_collections() -> Iterator[None]:
    """A collection goes through whatever the other tests left behind."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("name", CASES)
def test_twice_the_size_costs_at_most_three_times_as_much(name: str, no_collections: None) -> None:
    """The least of a few runs each, taken in turn; of more where a neighbour may have disturbed."""
    made, count = CASES[name]
    run_half, run_whole = made(count // 2), made(count)
    half = whole = math.inf
    for tries in range(8):
        half, whole = min(half, cpu_s(run_half)), min(whole, cpu_s(run_whole))
        if tries and whole <= 3 * half + 0.005:
            return
    raise AssertionError(f"{half:.3f} s and {whole:.3f} s")


def test_an_answer_of_22_mb_costs_a_fraction_of_a_second() -> None:
    """json.dumps of its lists took five seconds and 700 MiB."""
    made, _ = ANSWERS["float32"]
    assert cpu_s(made(5_500_000)) < 1.5
