"""JSON values as TensorFlow Serving's error texts quote them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

_SHOWN = 256


def show(value: Any) -> str:
    """A value as error texts quote it: objects a line for each key, arrays in one; cut when long."""
    text = ""
    for piece in _pieces(value, "\n"):
        text += piece
        if len(text) > _SHOWN:
            return text[:_SHOWN] + "…"
    return text


def _pieces(value: Any, line: str) -> Iterator[str]:
    if len(line) > 4 * 32:
        yield "…"
    elif isinstance(value, dict) and value:
        deeper = line + "    "
        for number, (key, item) in enumerate(value.items()):
            yield f"{',' if number else '{'}{deeper}{_scalar(key)}: "
            yield from _pieces(item, deeper)
        yield line + "}"
    elif isinstance(value, list):
        yield "["
        for number, item in enumerate(value):
            if number:
                yield ", "
            yield from _pieces(item, line + " ")
        yield "]"
    else:
        yield _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""  # RapidJSON's writer has no word for it
        digits, exponential, power = repr(value).partition("e")
        if not exponential:
            return digits
        return f"{value:.0f}.0" if 0 < int(power) < 21 else f"{digits}e{int(power)}"
    return json.dumps(value[:_SHOWN] if isinstance(value, str) else value, ensure_ascii=False)
