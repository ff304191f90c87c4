"""JSON as TensorFlow Serving's parser, RapidJSON, takes it: its liberties, its words, its offsets.

What is plain JSON goes through orjson. NaN and Infinity are numbers; of doubled keys the first
counts; what follows the document is not looked at; bytes that are not UTF-8 stay as they are (as
surrogate escapes). Whatever a text is, reading it takes time in proportion to its size.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson

from tuner.modelserver.status import ServingError, invalid_argument

_BOM = b"\xef\xbb\xbf"
_DEEPEST = 1000
_SPACE = re.compile(rb"[ \t\n\r]*")
_DIGITS = re.compile(rb"[0-9]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_HEX = re.compile(rb"[0-9a-fA-F]{4}")
_WORDS = {b"n": (b"null", None), b"t": (b"true", True), b"f": (b"false", False)}
_ESCAPES = {
    b'"': b'"', b"\\": b"\\", b"/": b"/", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r",
    b"t": b"\t",
}


def loads(body: bytes | bytearray) -> Any:
    """The value that ``body`` starts with.

    Raises:
        ServingError: INVALID_ARGUMENT, with what is wrong and at which byte.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        value = orjson.loads(body)
        if not _may_have_doubles(body, value):
            return value
    except orjson.JSONDecodeError:
        pass
    if rb"\u" not in body:
        try:  # NaN, and large numbers
            return json.loads(
                body.decode(), object_pairs_hook=_first, parse_float=_finite, parse_int=_whole
            )
        except (ValueError, RecursionError):
            pass
    return _read(bytes(body))


def _may_have_doubles(body: bytes | bytearray, value: Any) -> bool:
    """Whether some object may name a key twice: there are more colons than keys."""
    if not isinstance(value, dict):
        return False
    keys = len(value)
    for item in value.values():
        for row in item if isinstance(item, list) else (item,):
            if isinstance(row, dict):
                keys += len(row) + sum(len(v) for v in row.values() if isinstance(v, dict))
            else:
                break
    return body.count(b":") > keys


def _first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else dict(reversed(pairs))


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(text)
    return value


def _whole(text: str) -> int | float:
    value = int(text) if len(text) <= 20 else _finite(text)
    return value if -(2**63) <= value < 2**64 else float(value)


def _refused(what: str, at: int) -> ServingError:
    return invalid_argument(f"JSON Parse error: {what} at offset: {at}")


def _read(body: bytes) -> Any:
    at = _space(body, len(_BOM) if body.startswith(_BOM) else 0)
    if body[at : at + 1] in (b"", b"\0"):
        raise _refused("The document is empty.", at)
    open_containers: list[tuple[Any, str]] = []
    while True:
        first = body[at : at + 1]
        if first in (b"{", b"["):
            at = _space(body, at + 1)
            if body[at : at + 1] == (b"}" if first == b"{" else b"]"):
                value: Any = {} if first == b"{" else []
                at += 1
            else:
                key = ""
                if first == b"{":
                    key, at = _name(body, at)
                open_containers.append(({} if first == b"{" else [], key))
                if len(open_containers) > _DEEPEST:
                    raise _refused("Too many levels.", at)
                continue
        elif first == b'"':
            value, at = _string(body, at)
        elif first in _WORDS:
            value, at = _word(body, at)
        else:
            value, at = _number(body, at)
        while open_containers:  # as many as end here
            container, key = open_containers[-1]
            is_object = isinstance(container, dict)
            if is_object:
                container.setdefault(key, value)
            else:
                container.append(value)
            at = _space(body, at)
            follows = body[at : at + 1]
            if follows == b",":
                at = _space(body, at + 1)
                if is_object:
                    key, at = _name(body, at)
                    open_containers[-1] = (container, key)
                break
            if follows != (b"}" if is_object else b"]"):
                what = "'}' after an object member" if is_object else "']' after an array element"
                raise _refused(f"Missing a comma or {what}.", at)
            value = container
            open_containers.pop()
            at += 1
        else:
            return value


def _space(body: bytes, at: int) -> int:
    found = _SPACE.match(body, at)
    assert found is not None
    return found.end()


def _name(body: bytes, at: int) -> tuple[str, int]:
    if body[at : at + 1] != b'"':
        raise _refused("Missing a name for object member.", at)
    name, at = _string(body, at)
    at = _space(body, at)
    if body[at : at + 1] != b":":
        raise _refused("Missing a colon after a name of object member.", at)
    return name, _space(body, at + 1)


def _common(body: bytes, at: int, word: bytes) -> int:
    """How much of ``word`` stands at ``at``."""
    count = 0
    while count < len(word) and body[at + count : at + count + 1] == word[count : count + 1]:
        count += 1
    return count


def _word(body: bytes, at: int) -> tuple[Any, int]:
    word, value = _WORDS[body[at : at + 1]]
    count = _common(body, at, word)
    if count < len(word):
        raise _refused("Invalid value.", at + count)
    return value, at + count


def _number(body: bytes, start: int) -> tuple[int | float, int]:
    at = start + (body[start : start + 1] == b"-")
    first = body[at : at + 1]
    if first in (b"N", b"I"):
        return _not_finite(body, start, at)
    if not first.isdigit():
        raise _refused("Invalid value.", at)
    at = at + 1 if first == b"0" else _digits(body, at)
    is_float = False
    if body[at : at + 1] == b".":
        is_float, end = True, _digits(body, at + 1)
        if end == at + 1:
            raise _refused("Miss fraction part in number.", end)
        at = end
    if body[at : at + 1] in (b"e", b"E"):
        is_float = True
        at += 2 if body[at + 1 : at + 2] in (b"+", b"-") else 1
        end = _digits(body, at)
        if end == at:
            raise _refused("Miss exponent in number.", end)
        at = end
    text = body[start:at].decode()
    try:
        return (_finite(text) if is_float else _whole(text)), at
    except ValueError:
        raise _refused("Number too big to be stored in double.", start) from None


def _digits(body: bytes, at: int) -> int:
    found = _DIGITS.match(body, at)
    assert found is not None
    return found.end()


def _not_finite(body: bytes, start: int, at: int) -> tuple[float, int]:
    for word, value, shortest in ((b"NaN", math.nan, 3), (b"Infinity", math.inf, 3)):
        count = _common(body, at, word)
        if count in (shortest, len(word)):
            return (-value if at > start else value), at + count
        if count:
            raise _refused("Invalid value.", at + count)
    raise _refused("Invalid value.", at)


def _string(body: bytes, at: int) -> tuple[str, int]:
    parts: list[bytes] = []
    at += 1
    while True:
        found = _PLAIN.match(body, at)
        assert found is not None
        parts.append(found[0])
        at = found.end()
        stop = body[at : at + 1]
        if stop == b'"':
            return b"".join(parts).decode(errors="surrogateescape"), at + 1
        if stop in (b"", b"\0"):
            raise _refused("Missing a closing quotation mark in string.", at)
        escape = body[at + 1 : at + 2]
        if stop == b"\\" and escape == b"u":
            part, at = _code_point(body, at)
        elif stop == b"\\" and escape in _ESCAPES:
            part, at = _ESCAPES[escape], at + 2
        else:
            raise _refused("Invalid escape character in string.", at)
        parts.append(part)


def _code_point(body: bytes, at: int) -> tuple[bytes, int]:
    def unit(start: int) -> int:
        found = _HEX.match(body, start)
        if found is None:
            raise _refused("Incorrect hex digit after \\u escape in string.", at)
        return int(found[0], 16)

    code, end = unit(at + 2), at + 6
    if 0xD800 <= code <= 0xDBFF:
        low = unit(end + 2) if body[end : end + 2] == rb"\u" else 0
        if not 0xDC00 <= low <= 0xDFFF:
            raise _refused("The surrogate pair in string is invalid.", at)
        code, end = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00), end + 6
    return chr(code).encode(errors="surrogatepass"), end
