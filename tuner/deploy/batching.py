"""Batching knobs -> the text of a ``BatchingParameters`` file, by TensorFlow Serving's rules."""

from __future__ import annotations

from tuner.deploy.knob import BATCHING
from tuner.deploy.knobs import KNOBS, has_effect, knob_value
from tuner.measurement import Configuration

_PLAIN = ("allowed_batch_sizes", "pad_variable_length_inputs")
"""Fields that are plain; all others are wrapper messages, ``field { value: … }``."""


def allowed_sizes(rule: str, largest: int) -> tuple[int, ...]:
    """The sizes that batches are padded up to; empty = every size is allowed.

    ``rule`` is ``all``, ``powers_of_two`` (1, 2, 4 … ``largest``), ``quarters`` (each quarter of
    ``largest``) or rising sizes, ``1,2,4``. The last size always equals ``largest``, as
    TensorFlow Serving demands; larger ones are left out.
    """
    if rule == "all":
        return ()
    if rule == "powers_of_two":
        sizes = [2**i for i in range(largest.bit_length())]
    elif rule == "quarters":
        sizes = [largest * i // 4 for i in (1, 2, 3)]
    else:
        sizes = [int(part) for part in rule.split(",")]
    return (*sorted({size for size in sizes if 0 < size < largest}), largest)


def max_batch_size(configuration: Configuration) -> int:
    """Most rows in a batch: the configuration's, else TensorFlow Serving's default."""
    return int(knob_value(configuration, "max_batch_size") or 1)


def batching_parameters(configuration: Configuration) -> str | None:
    """The file's text, ``None`` when batching is off.

    ``max_batch_size`` is always written, since splitting and allowed sizes need it;
    ``max_execution_batch_size`` is lowered to it where it is larger, which TensorFlow Serving
    would refuse.
    """
    if not knob_value(configuration, "enable_batching"):
        return None
    largest = max_batch_size(configuration)
    lines = []
    for name, knob in KNOBS.items():
        if knob.applied != BATCHING or not has_effect(name, configuration):
            continue
        value = largest if name == "max_batch_size" else configuration.get(name)
        if value is None:
            continue
        if name == "allowed_batch_sizes":
            lines += [f"{name}: {size}" for size in allowed_sizes(str(value), largest)]
            continue
        if name == "max_execution_batch_size":
            value = min(int(value), largest)
        text = _text(value)
        lines.append(f"{name}: {text}" if name in _PLAIN else f"{name} {{ value: {text} }}")
    return "".join(f"{line}\n" for line in lines)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
