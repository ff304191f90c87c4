"""A search space: knobs with conditions, fixed settings, factors, objectives, service levels."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tuner.errors import SpaceError
from tuner.measurement import Configuration, Scalar

MAX_ENUMERATED = 200_000
"""Spaces with more configurations than this are not enumerated."""
MAX_STEPS = 2 * MAX_ENUMERATED
"""Nor are those where so many steps, mostly to what is excluded, don't get to the end."""
MAX_LEVELS = 1024
"""An integer range with more values than this needs ``step`` or ``levels`` to be enumerated."""


@dataclass(frozen=True)
class Where:
    """Where in the file something was said, for error messages."""

    file: str | None = None
    line: int | None = None
    key: str | None = None

    def error(self, message: str) -> SpaceError:
        return SpaceError(message, file=self.file, line=self.line, key=self.key)


def same(a: Scalar, b: Scalar) -> bool:
    """Equality that keeps ``True`` apart from ``1`` and lets ``1`` equal ``1.0``."""
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def _holds(clause: Mapping[str, tuple[Scalar, ...]], chosen: Configuration) -> bool:
    """Whether all that a clause names is chosen, with one of its values."""
    return all(
        name in chosen and any(same(chosen[name], v) for v in values)
        for name, values in clause.items()
    )


@dataclass(frozen=True)
class Parameter:
    """A knob that proposers may choose.

    Exactly one of ``choices`` (any scalars; ``ordered`` when they are a rising list of numbers)
    and the range ``low``..``high`` is given. ``when`` maps other parameters to the values under
    which this one is active; all must hold.
    """

    name: str
    kind: str
    """``categorical``, ``int`` or ``float``."""
    choices: tuple[Scalar, ...] = ()
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    n_levels: int | None = None
    """Into how many levels a range is cut for enumeration (``levels:`` in the file)."""
    ordered: bool = False
    when: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    where: Where = field(default=Where(), compare=False)

    @property
    def bounds(self) -> tuple[float, float]:
        """``(low, high)`` of a range. Raises ValueError for a list of choices."""
        if self.low is None or self.high is None:
            raise ValueError(f"{self.name} has choices, not a range")
        return self.low, self.high

    @property
    def is_discrete(self) -> bool:
        """Whether ``levels()`` holds every value that the parameter may take."""
        if self.choices or self.step is not None:
            return True
        return self.kind == "int" and not self.log and self.n_levels is None

    def levels(self) -> tuple[Scalar, ...]:
        """The discretised values, rising for a range.

        A range with ``levels: n`` is cut evenly (evenly in the logarithm with ``log``); with
        ``step`` it is stepped through; an integer range gives every integer, or the powers of
        two (and both ends) with ``log``.

        Raises:
            SpaceError: the range says neither ``step`` nor ``levels`` and is too wide for that.
        """
        if self.choices:
            return self.choices
        assert self.low is not None and self.high is not None
        if self.n_levels is not None:
            values = self._even_levels(self.n_levels)
        elif self.step is not None:
            count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
            if count > MAX_LEVELS:
                raise self.where.error(f"{count} steps are too many; say levels: N (<= {MAX_LEVELS})")
            values = [self.low + i * self.step for i in range(count)]
        elif self.kind == "int" and self.log:
            first = math.ceil(math.log2(self.low))
            last = math.floor(math.log2(self.high))
            values = [self.low, *(2.0**k for k in range(first, last + 1)), self.high]
        elif self.kind == "int":
            if self.high - self.low + 1 > MAX_LEVELS:
                raise self.where.error(
                    f"{int(self.high - self.low + 1)} values are too many to enumerate; "
                    "say step: or levels:"
                )
            values = list(range(int(self.low), int(self.high) + 1))
        else:
            raise self.where.error(
                "a continuous range cannot be enumerated; say levels: N (or step:)"
            )
        if self.kind == "int":
            return tuple(sorted({round(v) for v in values}))
        return tuple(sorted({float(v) for v in values}))

    def _even_levels(self, count: int) -> list[float]:
        assert self.low is not None and self.high is not None
        if count == 1:
            return [self.low]
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        points = [low + (high - low) * i / (count - 1) for i in range(count)]
        if self.log:
            points = [math.exp(p) for p in points]
        return [min(max(p, self.low), self.high) for p in points]

    def contains(self, value: Scalar) -> bool:
        """Whether ``value`` is one that this parameter may take."""
        if self.choices:
            return any(same(value, choice) for choice in self.choices)
        if isinstance(value, (bool, str)) or not math.isfinite(value):
            return False
        assert self.low is not None and self.high is not None
        if self.kind == "int" and value != int(value):
            return False
        if not self.low - 1e-12 <= value <= self.high + 1e-12:
            return False
        if self.step is None:
            return True
        steps = (value - self.low) / self.step
        return abs(steps - round(steps)) < 1e-6


@dataclass(frozen=True)
class Objective:
    """A metric to be made small or large."""

    name: str
    direction: str
    """``minimize`` or ``maximize``."""

    def to_minimise(self, value: float) -> float:
        return value if self.direction == "minimize" else -value


@dataclass(frozen=True)
class Constraint:
    """A service level: a metric with a bound."""

    metric: str
    maximum: float | None = None
    minimum: float | None = None

    @property
    def key(self) -> str:
        if self.maximum is not None:
            return f"{self.metric} <= {self.maximum:.15g}"
        return f"{self.metric} >= {self.minimum:.15g}"

    def violation(self, value: float) -> float:
        """How far ``value`` is beyond the bound, relative to it; <= 0 means kept."""
        if self.maximum is not None:
            return (value - self.maximum) / (abs(self.maximum) or 1.0)
        assert self.minimum is not None
        return (self.minimum - value) / (abs(self.minimum) or 1.0)


@dataclass(frozen=True)
class Settings:
    """What a space may say of the stage around the knobs; the command line overrides it."""

    model: str = "mobilenet_v2"
    requests: str = "default"
    """Where requests come from: ``default`` (the model's workload), ``random``, or a path."""
    signature: str = "serving_default"
    """Which of the model's signatures is asked."""
    deployer: str = "embedded"
    load: str | float = "medium"
    """``light``, ``medium``, ``high`` (shares of the calibrated capacity) or a rate in requests/s;
    says nothing where ``pattern`` is ``closed``."""
    pattern: str = "poisson"
    clients: int = 1
    """Concurrent requests of a closed loop."""
    popularity: str = "each_once"
    rows: int = 1
    min_duration_s: float = 4.0
    max_duration_s: float = 10.0
    precision: float = 0.10
    energy: str = "auto"
    repeats: int = 1
    start_timeout_s: float = 60.0

    @property
    def is_closed(self) -> bool:
        """Whether clients, and not a rate, set the load."""
        return self.pattern == "closed"


@dataclass(frozen=True)
class Space:
    """What may vary and what is held fixed; parents stand before their children."""

    name: str
    parameters: tuple[Parameter, ...]
    objectives: tuple[Objective, ...] = (
        Objective("latency_p99_ms", "minimize"),
        Objective("energy_per_request_j", "minimize"),
    )
    constraints: tuple[Constraint, ...] = (Constraint("error_rate", maximum=0.01),)
    fixed: Mapping[str, Scalar] = field(default_factory=dict)
    factors: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    exclude: tuple[Mapping[str, tuple[Scalar, ...]], ...] = ()
    """Partial configurations that are not valid: all named values together."""
    settings: Settings = Settings()
    file: str | None = field(default=None, compare=False)
    places: Mapping[str, Where] = field(default_factory=dict, compare=False)
    """Where the file says what: ``fixed.<knob>``, ``factors.<name>`` and the settings' keys."""

    def place(self, key: str) -> Where:
        """Where the file says ``key``; without a file, just the key."""
        return self.places.get(key, Where(self.file, None, key))

    def parameter(self, name: str) -> Parameter:
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise KeyError(name)

    def active(self, chosen: Configuration, parameter: Parameter) -> bool:
        """Whether ``parameter`` applies, given values for its parents (absent = inactive)."""
        return all(
            name in chosen and any(same(chosen[name], v) for v in values)
            for name, values in parameter.when.items()
        )

    @property
    def conditional(self) -> tuple[str, ...]:
        """The knobs that apply under a condition only."""
        return tuple(p.name for p in self.parameters if p.when)

    @property
    def deciding(self) -> tuple[str, ...]:
        """The knobs of two values on which it depends whether others apply: each value is a branch
        of its own. With more values some would be of one branch, which is not told here."""
        asked = {name for p in self.parameters for name in p.when}
        return tuple(p.name for p in self.parameters if p.name in asked and len(p.choices) == 2)

    def is_valid(self, configuration: Configuration) -> bool:
        """Whether exactly the active knobs are given, within range, and nothing excluded holds."""
        expected = [p for p in self.parameters if self.active(configuration, p)]
        if {p.name for p in expected} != set(configuration):
            return False
        if not all(p.contains(configuration[p.name]) for p in expected):
            return False
        return not self.excluded(configuration)

    def excluded(self, configuration: Configuration) -> bool:
        """Whether an ``exclude`` clause holds (a clause on an inactive knob never does)."""
        return any(_holds(clause, configuration) for clause in self.exclude)

    def configurations(self) -> Iterator[dict[str, Scalar]]:
        """Every valid configuration of the discretised space once, in a fixed order.

        Raises:
            SpaceError: a range says neither ``step`` nor ``levels`` and cannot be enumerated.
        """
        return (dict(chosen) for chosen in self._walk() if chosen is not None)

    def _walk(self) -> Iterator[dict[str, Scalar] | None]:
        """The valid configurations, and ``None`` for each way that ends in an excluded one.

        The dictionary is changed by the next step; copy what is to be kept.
        """
        levels = [p.levels() for p in self.parameters]
        clauses_of: dict[str, list[Mapping[str, tuple[Scalar, ...]]]] = {}
        order = {p.name: index for index, p in enumerate(self.parameters)}
        for clause in self.exclude:
            clauses_of.setdefault(max(clause, key=order.__getitem__), []).append(clause)

        def extend(index: int, chosen: dict[str, Scalar]) -> Iterator[dict[str, Scalar] | None]:
            if index == len(self.parameters):
                yield chosen
                return
            parameter = self.parameters[index]
            if not self.active(chosen, parameter):
                yield from extend(index + 1, chosen)
                return
            clauses = clauses_of.get(parameter.name, ())
            for value in levels[index]:
                chosen[parameter.name] = value
                # As soon as all that a clause names is chosen, what follows can't save it.
                if any(_holds(clause, chosen) for clause in clauses):
                    yield None
                else:
                    yield from extend(index + 1, chosen)
            del chosen[parameter.name]

        yield from extend(0, {})

    @cached_property
    def size(self) -> int:
        """Number of valid configurations of the discretised space.

        Exact up to ``MAX_ENUMERATED``; beyond it ``MAX_ENUMERATED + 1``, "too many to count".

        Raises:
            SpaceError: as ``configurations``.
        """
        count = 0
        for steps, chosen in enumerate(self._walk()):
            count += chosen is not None
            if count > MAX_ENUMERATED or steps > MAX_STEPS:
                return MAX_ENUMERATED + 1
        return count

    @cached_property
    def is_finite(self) -> bool:
        """Whether the enumeration holds every configuration there is, and is small enough."""
        try:
            return all(p.is_discrete for p in self.parameters) and self.size <= MAX_ENUMERATED
        except SpaceError:
            return False

    def violations(self, metrics: Mapping[str, float | None]) -> dict[str, float]:
        """Constraint -> violation (<= 0 kept). A bound on a metric not measured counts as broken."""
        out = {}
        for constraint in self.constraints:
            value = metrics.get(constraint.metric)
            out[constraint.key] = 1.0 if value is None else constraint.violation(value)
        return out

    def describe(self) -> dict[str, object]:
        """The space as JSON: what must be equal for two runs to belong to one study."""
        return {
            "parameters": [
                {
                    "name": p.name, "kind": p.kind, "choices": list(p.choices), "low": p.low,
                    "high": p.high, "step": p.step, "log": p.log, "levels": p.n_levels,
                    "ordered": p.ordered, "when": {k: list(v) for k, v in p.when.items()},
                }
                for p in self.parameters
            ],
            "objectives": [[o.name, o.direction] for o in self.objectives],
            "constraints": [c.key for c in self.constraints],
            "fixed": dict(self.fixed),
            "factors": {k: list(v) for k, v in self.factors.items()},
            "exclude": [{k: list(v) for k, v in clause.items()} for clause in self.exclude],
        }

    def fingerprint(self) -> str:
        """Hash of ``describe()``; a study keeps it and refuses another space."""
        text = json.dumps(self.describe(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load(file: str | Path) -> Space:
    """Read a space from a YAML file, or by name from the spaces that ship with tuner.

    Raises:
        SpaceError: with file, line and key, and what would be right.
    """
    from tuner.space_file import read

    return read(file)
