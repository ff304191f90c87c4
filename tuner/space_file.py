"""Reads a search space from YAML: safely, with file, line and key in every error."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tuner import space_questions
from tuner.errors import SpaceError
from tuner.measurement import METRICS, Scalar
from tuner.quantities import COUNT, INDEX, POSITIVE, PRECISION, RATE, SECONDS, Quantity
from tuner.space import Constraint, Objective, Parameter, Settings, Space, Where, same

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_ITEMS = 1024
"""Longest list in a space file."""
_MOST_STEPS = 2**53
"""Floating-point numbers cannot tell more steps of one range apart."""
LOAD_LEVELS = ("light", "medium", "high")
PATTERNS = ("closed", "constant", "poisson", "burst", "ramp", "staircase")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
SHIPPED = Path(__file__).resolve().parent.parent / "search_spaces"


class Node:
    """A YAML node that knows where it stands; every accessor checks the type it promises."""

    def __init__(self, node: yaml.Node, file: str, key: str) -> None:
        self.node, self.file, self.key = node, file, key

    @property
    def where(self) -> Where:
        return Where(self.file, self.node.start_mark.line + 1, self.key or None)

    def error(self, message: str) -> SpaceError:
        return self.where.error(message)

    def mapping(self, allowed: Iterable[str] | None = None) -> dict[str, Node]:
        """Key -> node. Duplicate keys, keys that are not text and keys not allowed are errors."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(f"should be a mapping (key: value), not {self._seen()}")
        allowed = None if allowed is None else tuple(allowed)
        out: dict[str, Node] = {}
        for key_node, value_node in self.node.value:
            here = Node(key_node, self.file, self.key)
            if not isinstance(key_node, yaml.ScalarNode):
                raise here.error("a key should be plain text")
            name = key_node.value
            child = Node(value_node, self.file, f"{self.key}.{name}" if self.key else name)
            named = Node(key_node, self.file, child.key)
            if name in out:
                raise named.error("is given twice; keep one")
            if allowed is not None and name not in allowed:
                raise named.error(f"unknown key; {did_you_mean(name, allowed)}")
            out[name] = child
        return out

    def sequence(self) -> list[Node]:
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error(f"should be a list [a, b, …], not {self._seen()}")
        if not self.node.value:
            raise self.error("should not be empty")
        if len(self.node.value) > MAX_ITEMS:
            raise self.error(f"is too long: {len(self.node.value)} items, at most {MAX_ITEMS}")
        return [Node(n, self.file, f"{self.key}[{i}]") for i, n in enumerate(self.node.value)]

    @property
    def is_sequence(self) -> bool:
        return isinstance(self.node, yaml.SequenceNode)

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.node, yaml.MappingNode)

    def scalar(self) -> Scalar:
        """A bool, int, finite float or text."""
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.error(f"should be one value, not {self._seen()}")
        tag = self.node.tag.rsplit(":", 1)[-1]
        if tag not in ("bool", "int", "float", "str"):
            raise self.error(f"should be true/false, a number or text, not {self._seen()}")
        constructor = yaml.constructor.SafeConstructor()
        try:
            value = getattr(constructor, f"construct_yaml_{tag}")(self.node)
        except (ValueError, LookupError, OverflowError, yaml.YAMLError):
            raise self.error(f"{self.node.value[:40]!r} cannot be read as {tag}") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise self.error("should be a finite number")
        if isinstance(value, int) and abs(value) > 2**62:
            raise self.error("is too large a number")
        if isinstance(value, str) and not value.isprintable():
            raise self.error(f"should be one line of printable text, not {value[:40]!r}")
        return value

    def number(self) -> int | float:
        value = self.scalar()
        if isinstance(value, (bool, str)):
            raise self.error(f"should be a number, not {value!r}")
        return value

    def quantity(self, quantity: Quantity) -> float:
        value = self.number()
        if (why := quantity.refusal(value)) is not None:
            raise self.error(f"{why}, not {value!r}")
        return float(value)

    def seconds(self) -> float:
        return self.quantity(SECONDS)

    def count(self, quantity: Quantity = COUNT) -> int:
        value = self.scalar()
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(f"should be a whole number, not {value!r}")
        return int(self.quantity(quantity))

    def boolean(self) -> bool:
        value = self.scalar()
        if not isinstance(value, bool):
            raise self.error(f"should be true or false, not {value!r}")
        return value

    def text(self) -> str:
        value = self.scalar()
        if not isinstance(value, str) or not value:
            raise self.error(f"should be text, not {value!r}")
        return value

    def one_of(self, allowed: Iterable[str]) -> str:
        allowed = tuple(allowed)
        value = self.scalar()
        if value not in allowed:
            raise self.error(f"should be one of {', '.join(allowed)}, not {value!r}")
        return str(value)

    def scalars(self) -> tuple[Scalar, ...]:
        """A value or a list of distinct values."""
        nodes = self.sequence() if self.is_sequence else [self]
        values: list[Scalar] = []
        for node in nodes:
            value = node.scalar()
            if any(same(value, v) for v in values):
                raise node.error(f"{value!r} is given twice; keep one")
            values.append(value)
        return tuple(values)

    def _seen(self) -> str:
        if isinstance(self.node, yaml.MappingNode):
            return "a mapping"
        if isinstance(self.node, yaml.SequenceNode):
            return "a list"
        return f"{self.node.value[:40]!r}" if self.node.value else "nothing"


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """The nearest allowed name, or all of them."""
    allowed = tuple(allowed)
    near = difflib.get_close_matches(name, allowed, n=1)
    return f"did you mean {near[0]}?" if near else f"allowed are {', '.join(sorted(allowed))}"


def find(file: str | Path) -> Path:
    """The file itself, or a shipped space of that name (with or without ``.yaml``)."""
    path = Path(file)
    candidates = [path]
    if path.name == str(file):
        candidates += [SHIPPED / path.name, SHIPPED / f"{path.name}.yaml"]
    for candidate in candidates:
        try:
            if candidate.is_file():
                return candidate
        except (OSError, ValueError):
            continue
    shipped = sorted(p.stem for p in SHIPPED.glob("*.yaml"))
    raise SpaceError(f"no such file, nor a shipped space ({', '.join(shipped)})", file=str(file))


def read(file: str | Path) -> Space:
    """Read and check a space. Raises SpaceError with file, line and key."""
    path = find(file)
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpaceError(f"is not UTF-8 text (byte {error.start})", file=str(file)) from None
    except OSError as error:
        raise SpaceError(f"cannot be read: {error.strerror}", file=str(file)) from None
    if len(raw) > MAX_BYTES:
        raise SpaceError(f"is larger than {MAX_BYTES} bytes", file=str(file))
    return parse(text, file=str(file), default_name=path.stem)


def parse(
    text: str, *, file: str = "<text>", default_name: str = "space", stored: bool = False
) -> Space:
    """A space from YAML text. Raises SpaceError with file, line and key.

    Args:
        stored: the text was kept with a study: what no measurement can answer is let be, as it
            was asked before that was refused.
    """
    root = Node(_compose(text, file), file, "")
    top = root.mapping(_TOP_LEVEL)
    if "parameters" not in top:
        raise root.error("has no parameters: nothing to tune; say parameters: {max_batch_size: …}")
    parameters = _parameters(top["parameters"])
    names = {p.name for p in parameters}
    fixed = {}
    for name, node in (top["fixed"].mapping() if "fixed" in top else {}).items():
        if name in names:
            raise node.error("is a parameter as well; keep it in one place")
        fixed[_identifier(name, node)] = node.scalar()
    factors = _factors(top.get("factors"), names | set(fixed))
    space_name = default_name
    if "name" in top:
        space_name = top["name"].text()
        if not _NAME.fullmatch(space_name):
            raise top["name"].error("should be letters, digits, _ . - (at most 64)")
    defaults = Space(name=space_name, parameters=())
    space = Space(
        name=space_name,
        parameters=parameters,
        objectives=_objectives(top["objectives"]) if "objectives" in top else defaults.objectives,
        constraints=_constraints(top.get("constraints"), defaults.constraints),
        fixed=fixed,
        factors=factors,
        exclude=_exclude(top.get("exclude"), parameters),
        settings=_settings(top),
        file=file,
        places=_places(top),
    )
    if not stored:
        space_questions.refuse_meaningless(top, space)
    return space


def _places(top: Mapping[str, Node]) -> dict[str, Where]:
    places = {key: node.where for key, node in top.items()}
    for group in ("fixed", "factors"):
        if group in top:
            places |= {child.key: child.where for child in top[group].mapping().values()}
    return places


def _compose(text: str, file: str) -> yaml.Node:
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise SpaceError(
                    "is nested too deeply", file=file, line=event.start_mark.line + 1
                )
            if isinstance(event, yaml.AliasEvent):
                raise SpaceError(
                    "aliases (*name) are not read; write the value out",
                    file=file, line=event.start_mark.line + 1,
                )
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        raise SpaceError(f"is not YAML: {error.problem or error.context}", file=file, line=line) from None
    except yaml.YAMLError as error:
        raise SpaceError(f"is not YAML: {' '.join(str(error).split())[:120]}", file=file) from None
    except (ValueError, OverflowError):  # An escape such as "\UFFFFFFFF".
        raise SpaceError("is not YAML: an escape names no character", file=file) from None
    except RecursionError:
        raise SpaceError("is nested too deeply", file=file) from None
    if node is None:
        raise SpaceError("is empty; say parameters: {…}", file=file)
    return node


def _identifier(name: str, node: Node) -> str:
    if not _IDENTIFIER.fullmatch(name):
        raise node.error("a knob's name should be letters, digits and _ (at most 64)")
    return name


def _parameters(node: Node) -> tuple[Parameter, ...]:
    children = node.mapping()
    if not children:
        raise node.error("should not be empty")
    parsed = {name: _parameter(_identifier(name, child), child) for name, child in children.items()}
    for name, parameter in parsed.items():
        for parent, values in parameter.when.items():
            place = children[name].mapping()["when"].mapping()[parent]
            if parent not in parsed:
                raise place.error(f"is not a parameter; {did_you_mean(parent, parsed)}")
            for value in values:
                if not parsed[parent].contains(value):
                    raise place.error(f"{value!r} is not a value that {parent} can take")
    ordered = _parents_first(parsed, children)
    _refuse_impossible(ordered, children)
    return ordered


def _refuse_impossible(ordered: tuple[Parameter, ...], nodes: Mapping[str, Node]) -> None:
    """Refuse conditions that contradict those of the knobs they depend on.

    A knob is active when its own conditions and those of all knobs they name hold; so for each
    knob above it the values that these allow must have one in common.
    """
    allowed: dict[str, dict[str, tuple[Scalar, ...]]] = {}
    for parameter in ordered:
        needs: dict[str, tuple[Scalar, ...]] = {}
        for demands in (parameter.when, *(allowed[parent] for parent in parameter.when)):
            for name, values in demands.items():
                both = tuple(v for v in needs.get(name, values) if any(same(v, w) for w in values))
                if not both:
                    raise nodes[parameter.name].mapping()["when"].error(
                        f"can never hold: {name} would have to take two values at once"
                    )
                needs[name] = both
        allowed[parameter.name] = needs


def _parents_first(parsed: Mapping[str, Parameter], nodes: Mapping[str, Node]) -> tuple[Parameter, ...]:
    done: dict[str, Parameter] = {}
    waiting = dict(parsed)
    while waiting:
        ready = (n for n, p in waiting.items() if all(parent in done for parent in p.when))
        name = next(ready, None)
        if name is None:
            raise nodes[next(iter(waiting))].error("its condition leads back to itself")
        done[name] = waiting.pop(name)
    return tuple(done.values())


_PARAMETER_KEYS = ("choices", "values", "low", "high", "step", "log", "levels", "type", "when")


def _parameter(name: str, node: Node) -> Parameter:
    if node.is_sequence:
        return _choices(name, node, node, {})
    keys = node.mapping(_PARAMETER_KEYS)
    when = {}
    if "when" in keys:
        for parent, values in keys["when"].mapping().items():
            if parent == name:
                raise values.error("a parameter cannot depend on itself")
            when[parent] = values.scalars()
    listed = [k for k in ("choices", "values") if k in keys]
    ranged = [k for k in ("low", "high", "step", "log", "levels", "type") if k in keys]
    if len(listed) == 2 or (listed and ranged):
        other = "values" if len(listed) == 2 else ranged[0]
        raise keys[other].error(f"does not go with {listed[0]}; keep one of them")
    if listed:
        return _choices(name, node, keys[listed[0]], when, numbers=listed[0] == "values")
    for bound in ("low", "high"):
        if bound not in keys:
            raise node.error(f"has no {bound}; say choices: […], values: […], or low: and high:")
    return _range(name, node, keys, when)


def _choices(
    name: str, node: Node, listed: Node, when: Mapping[str, tuple[Scalar, ...]], numbers: bool = False
) -> Parameter:
    if not listed.is_sequence:
        listed.sequence()
    values = listed.scalars()
    numeric = not any(isinstance(v, (bool, str)) for v in values)
    if numbers and not numeric:
        raise listed.error("values: should be numbers; for others say choices:")
    rising = numeric and list(values) == sorted(values)  # type: ignore[type-var]
    if numbers and not rising:
        raise listed.error("values: should rise")
    return Parameter(
        name, "categorical", choices=values, ordered=rising and len(values) > 1,
        when=when, where=node.where,
    )


def _range(
    name: str, node: Node, keys: Mapping[str, Node], when: Mapping[str, tuple[Scalar, ...]]
) -> Parameter:
    low, high = keys["low"].number(), keys["high"].number()
    whole = all(isinstance(v, int) for v in (low, high))
    kind = keys["type"].one_of(("int", "float")) if "type" in keys else ("int" if whole else "float")
    if kind == "int" and not whole:
        raise node.error("type: int needs whole numbers for low and high")
    if low > high:
        raise keys["low"].error(f"low {low} is above high {high}; swap them")
    if not math.isfinite(high - low):
        raise keys["low"].error(f"the range from {low:g} to {high:g} is too wide")
    log = keys["log"].boolean() if "log" in keys else False
    if log and low <= 0:
        raise keys["low"].error(f"log needs low above 0, not {low}")
    step = None
    if "step" in keys:
        if log:
            raise keys["step"].error("does not go with log; say levels: instead")
        step = keys["step"].quantity(POSITIVE)
        if kind == "int" and step != int(step):
            raise keys["step"].error("should be a whole number for an integer range")
        if (high - low) / step > _MOST_STEPS:
            raise keys["step"].error(f"{step:g} is too small for the range from {low:g} to {high:g}")
        if step > high - low:
            raise keys["step"].error(
                f"{step:g} is larger than the range from {low:g} to {high:g}: only {low:g} is left"
            )
    levels = keys["levels"].count() if "levels" in keys else None
    if levels is not None and step is not None:
        raise keys["levels"].error("does not go with step; keep one of them")
    if levels is not None and levels > 1024:
        raise keys["levels"].error("should be at most 1024")
    return Parameter(
        name, kind, low=low, high=high, step=step, log=log, n_levels=levels, ordered=True,
        when=when, where=node.where,
    )


def _load_level(node: Node) -> str | float:
    value = node.scalar()
    if isinstance(value, str):
        return node.one_of(LOAD_LEVELS)
    if isinstance(value, bool) or RATE.refusal(value) is not None:
        raise node.error(f"should be light, medium, high or {RATE.words}, not {value!r}")
    return float(value)


def _factors(node: Node | None, taken: set[str]) -> dict[str, tuple[Scalar, ...]]:
    if node is None:
        return {}
    out: dict[str, tuple[Scalar, ...]] = {}
    for name, child in node.mapping(("load", "other_models")).items():
        if name in taken:
            raise child.error("is a parameter or fixed as well; keep it in one place")
        child.scalars()
        nodes = child.sequence() if child.is_sequence else [child]
        if name == "load":
            out[name] = tuple(_load_level(n) for n in nodes)
        else:
            out[name] = tuple(n.count(INDEX) for n in nodes)
    return out


def _objectives(node: Node) -> tuple[Objective, ...]:
    out: list[Objective] = []
    for item in node.sequence():
        if item.is_mapping:
            pairs = item.mapping()
            if len(pairs) != 1:
                raise item.error("should be one metric, e.g. throughput_rps: maximize")
            name, direction_node = next(iter(pairs.items()))
            direction = direction_node.one_of(("minimize", "maximize"))
        else:
            name, direction = item.text(), None
        if name not in METRICS:
            raise item.error(f"{name} is not a metric; {did_you_mean(name, METRICS)}")
        if name in [o.name for o in out]:
            raise item.error(f"{name} is given twice; keep one")
        out.append(Objective(name, direction or METRICS[name].direction))
    return tuple(out)


def _constraints(
    node: Node | None, defaults: tuple[Constraint, ...]
) -> tuple[Constraint, ...]:
    """The constraints given, and the defaults on metrics that the file does not bound."""
    if node is None:
        return defaults
    out: list[Constraint] = []
    for metric, child in node.mapping(METRICS).items():
        bounds = child.mapping(("max", "min"))
        if not bounds:
            raise child.error("should say max: or min:")
        values = {side: _bound(metric, side, bound) for side, bound in bounds.items()}
        if len(values) == 2 and values["min"] > values["max"]:
            raise bounds["min"].error(
                f"min {values['min']:g} is above max {values['max']:g}; nothing can keep both"
            )
        out += [
            Constraint(metric, maximum=value) if side == "max"
            else Constraint(metric, minimum=value) for side, value in values.items()
        ]
    bounded = {c.metric for c in out}
    return (*out, *(c for c in defaults if c.metric not in bounded))


def _bound(metric: str, side: str, node: Node) -> float:
    """A bound that some measurement keeps and some other one doesn't."""
    value = float(node.number())
    if metric == "error_rate" and not 0 <= value <= 1:
        raise node.error(f"error_rate is a share: should be 0 to 1, e.g. 0.01 for 1 %, not {value:g}")
    if value < 0 or (value == 0 and metric != "error_rate"):
        raise node.error(f"should be above 0: {metric} always is")
    return value


def _exclude(node: Node | None, parameters: tuple[Parameter, ...]) -> tuple[Mapping[str, Any], ...]:
    if node is None:
        return ()
    known = {p.name: p for p in parameters}
    clauses = []
    for item in node.sequence():
        clause = {}
        for name, child in item.mapping(known).items():
            clause[name] = child.scalars()
            for value in clause[name]:
                if not known[name].contains(value):
                    raise child.error(f"{value!r} is not a value that {name} can take")
        if not clause:
            raise item.error("should name at least one parameter")
        clauses.append(clause)
    return tuple(clauses)


def _zipf(node: Node) -> str:
    value = node.text()
    if value != "each_once" and not re.fullmatch(r"zipf:\d+(\.\d+)?", value):
        raise node.error(f"should be each_once or zipf:<exponent>, e.g. zipf:1.1, not {value!r}")
    return value


_SETTINGS = {
    "model": Node.text,
    "requests": Node.text,
    "signature": Node.text,
    "deployer": lambda node: node.one_of(("embedded", "binary", "docker", "fake")),
    "load": _load_level,
    "pattern": lambda node: node.one_of(PATTERNS),
    "clients": Node.count,
    "popularity": _zipf,
    "rows": Node.count,
    "min_duration_s": Node.seconds,
    "max_duration_s": Node.seconds,
    "precision": lambda node: node.quantity(PRECISION),
    "energy": Node.text,
    "repeats": Node.count,
    "start_timeout_s": Node.seconds,
}
_TOP_LEVEL = (
    "name", "description", "parameters", "fixed", "factors", "objectives", "constraints",
    "exclude", "duration_s", *_SETTINGS,
)


def _settings(top: Mapping[str, Node]) -> Settings:
    given: dict[str, Any] = {k: read_one(top[k]) for k, read_one in _SETTINGS.items() if k in top}
    if "duration_s" in top:
        for bound in ("min_duration_s", "max_duration_s"):
            if bound in top:
                raise top[bound].error("does not go with duration_s; keep one of them")
            given[bound] = top["duration_s"].seconds()
    settings = Settings(**given)
    if settings.min_duration_s > settings.max_duration_s:
        place = top.get("min_duration_s") or top["max_duration_s"]
        raise place.error(
            f"min_duration_s {settings.min_duration_s:g} is above "
            f"max_duration_s {settings.max_duration_s:g}"
        )
    return settings
