"""One knob: what it turns, how it is applied, which values it takes and when it means anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tuner.measurement import Scalar

FLAG = "flag"
"""A command-line flag of ``tensorflow_model_server``."""
BATCHING = "batching field"
"""A field of the batching parameters file."""
ENVIRONMENT = "environment variable"
"""A variable of the server's process."""
RESOURCE = "resource"
"""What the machine gives the server: CPUs, memory, clock."""
CLIENT = "client"
"""How requests are sent; the server only has to offer it."""
MODELS = "models"
"""What the server serves besides one copy of the model."""
FACTOR = "factor"
"""Varied but never chosen: proposals and fronts are made for each level."""

WAYS = (FLAG, BATCHING, ENVIRONMENT, RESOURCE, CLIENT, MODELS, FACTOR)


@dataclass(frozen=True)
class Knob:
    """One setting.

    ``default`` is what holds when a configuration does not name the knob; ``None`` = the server
    or the machine decides (TensorFlow Serving's 0 = automatic is kept as 0). ``low`` and ``high``
    are the limits of what is valid, not the range worth searching. ``needs`` maps other knobs to
    the values under which this one means anything.
    """

    name: str
    kind: type
    default: Scalar | None
    turns: str
    applied: str
    low: float | None = None
    high: float | None = None
    choices: tuple[Scalar, ...] | None = None
    needs: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    ours: bool = False
    """TensorFlow Serving has no such setting; only the embedded server knows it."""
    not_embedded: str = ""
    """Why the embedded server accepts and ignores it; empty where it does not."""

    def problem(self, value: object) -> str | None:
        """Why ``value`` cannot be this knob's value and what would be right, else ``None``."""
        fits = isinstance(value, self.kind) or (self.kind is float and isinstance(value, int))
        if not fits or (isinstance(value, bool) and self.kind is not bool):
            return f"{self.name} takes {_NOUNS[self.kind]}, not {value!r}"
        if self.choices is not None and value not in self.choices:
            return f"{self.name} takes one of {_listed(self.choices)}, not {value!r}"
        if isinstance(value, (int, float)):
            if self.low is not None and value < self.low:
                return f"{self.name} must be at least {self.low:g}, not {value!r}"
            if self.high is not None and value > self.high:
                return f"{self.name} must be at most {self.high:g}, not {value!r}"
        if self.name == "allowed_batch_sizes":
            return _sizes_problem(str(value))
        return None


_NOUNS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
SIZE_RULES = ("all", "powers_of_two", "quarters")
"""Named ways to derive ``allowed_batch_sizes`` from ``max_batch_size``; see ``batching.py``."""


def _listed(values: tuple[Scalar, ...]) -> str:
    return ", ".join("''" if value == "" else str(value) for value in values)


def _sizes_problem(text: str) -> str | None:
    if text in SIZE_RULES:
        return None
    parts = text.replace(" ", "").split(",")
    if all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        sizes = [int(part) for part in parts]
        if sizes == sorted(set(sizes)):
            return None
    return (
        f"allowed_batch_sizes takes {', '.join(SIZE_RULES)} or rising sizes such as '1,2,4,8', "
        f"not {text!r}"
    )
