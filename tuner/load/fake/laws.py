"""Delay laws: how long a scripted server takes, as a function of time and of the request's number."""

from __future__ import annotations

import math
import random
from dataclasses import asdict, dataclass
from typing import Any, Protocol


class Law(Protocol):
    """The delay of a request."""

    def delay_s(self, arrived_s: float, number: int) -> float:
        """Seconds of service.

        Args:
            arrived_s: when it arrived, on CLOCK_MONOTONIC.
            number: how many requests came before it.
        """


def _drawn(seed: int, number: int) -> random.Random:
    """What chance holds for one request: the same whenever it is asked."""
    return random.Random(seed * 1_000_003 + number)


@dataclass(frozen=True)
class Instant:
    """Answers at once."""

    def delay_s(self, arrived_s: float, number: int) -> float:
        return 0.0


@dataclass(frozen=True)
class Constant:
    """Always the same delay."""

    delay_ms: float = 5.0

    def delay_s(self, arrived_s: float, number: int) -> float:
        return self.delay_ms / 1e3


@dataclass(frozen=True)
class Bimodal:
    """Mostly fast, at times slow, independently for each request number."""

    fast_ms: float = 2.0
    slow_ms: float = 50.0
    slow_share: float = 0.2
    seed: int = 0

    def delay_s(self, arrived_s: float, number: int) -> float:
        slow = _drawn(self.seed, number).random() < self.slow_share
        return (self.slow_ms if slow else self.fast_ms) / 1e3


@dataclass(frozen=True)
class Stall:
    """Stands still at the beginning of every period; what arrives then waits for its end."""

    stall_ms: float = 200.0
    period_s: float = 1.0
    otherwise_ms: float = 0.0

    def delay_s(self, arrived_s: float, number: int) -> float:
        into = arrived_s % self.period_s
        return max(0.0, self.stall_ms / 1e3 - into) + self.otherwise_ms / 1e3


@dataclass(frozen=True)
class Lognormal:
    """Service times of a lognormal law; with one request at a time the server is an M/G/1 queue."""

    mean_ms: float = 5.0
    sigma: float = 0.8
    seed: int = 0

    def delay_s(self, arrived_s: float, number: int) -> float:
        drawn = _drawn(self.seed, number).gauss(0.0, self.sigma)
        return self.mean_ms / 1e3 * math.exp(drawn - self.sigma**2 / 2)


LAWS = {law.__name__: law for law in (Instant, Constant, Bimodal, Stall, Lognormal)}


def to_json(law: Any) -> dict[str, Any]:
    """A law as plain values, for another process."""
    return {"law": type(law).__name__, **asdict(law)}


def from_json(values: dict[str, Any]) -> Law:
    """The law that ``to_json`` wrote."""
    law: Law = LAWS[values["law"]](**{k: v for k, v in values.items() if k != "law"})
    return law
