"""Numbers on the command line: argparse types that take what ``tuner.quantities`` allows."""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import dataclass

from tuner import quantities
from tuner.quantities import Quantity

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", re.ASCII)
_UNIT_S = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Whole:
    """Digits, with a sign where the quantity may be below 0."""

    quantity: Quantity

    def __call__(self, text: str) -> int:
        # Twenty digits are beyond every quantity, and int() takes thousands only slowly or not.
        if not re.fullmatch(r"-?\d{1,20}", text, re.ASCII):
            raise argparse.ArgumentTypeError(f"{_short(text)} should be {self.quantity.words}")
        _refuse(self.quantity, int(text), text)
        return int(text)


@dataclass(frozen=True)
class Real:
    """A number as Python writes it."""

    quantity: Quantity

    def __call__(self, text: str) -> float:
        try:
            value = float(text) if text.isascii() else math.nan
        except ValueError:
            value = math.nan
        _refuse(self.quantity, value, text)
        return value


@dataclass(frozen=True)
class Duration:
    """``90``, ``90s``, ``30m`` or ``2h`` in seconds."""

    quantity: Quantity = quantities.SECONDS

    def __call__(self, text: str) -> float:
        match = _DURATION.fullmatch(text.strip())
        if not match:
            raise argparse.ArgumentTypeError(
                f"{_short(text)} should be a time such as 90s, 30m or 2h"
            )
        value = float(match[1]) * _UNIT_S[match[2]]
        _refuse(self.quantity, value, text)
        return value


positive_int, index, seed, port = (
    Whole(q) for q in (quantities.COUNT, quantities.INDEX, quantities.SEED, quantities.PORT)
)
duration_s, wait_s, pause_s = Duration(), Duration(quantities.PAUSE), Real(quantities.PAUSE)
seconds = Real(quantities.SECONDS)
rate, any_rate = Real(quantities.RATE), Real(quantities.ANY_RATE)
watts, precision = Real(quantities.WATTS), Real(quantities.PRECISION)
share, some_share = Real(quantities.SHARE), Real(quantities.SOME_SHARE)


def jobs(text: str) -> int:
    """How many processes: -1 for every core, else at least 1."""
    return -1 if text == "-1" else positive_int(text)


def _refuse(quantity: Quantity, value: float, text: str) -> None:
    if (why := quantity.refusal(value)) is not None:
        raise argparse.ArgumentTypeError(f"{_short(text)} {why}")


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
