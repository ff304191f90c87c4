"""Refuses a space before its first trial: unknown knobs, wrong values, knobs this machine lacks."""

from __future__ import annotations

from collections.abc import Iterable

from tuner.deploy.knob import FACTOR
from tuner.deploy.knobs import KNOBS, nearest
from tuner.deploy.offers import Offers, inspect
from tuner.errors import UnavailableError
from tuner.measurement import Scalar
from tuner.space import Parameter, Space, Where

_THREADS = tuple(f"tensorflow_{kind}_parallelism" for kind in ("session", "intra_op", "inter_op"))


def check_space(space: Space, offers: Offers | None = None) -> None:
    """Look at every value that a space can propose or holds fixed.

    Args:
        space: the space; ``space.settings.deployer`` decides what can be turned.
        offers: what the machine offers; inspected when not given.

    Raises:
        SpaceError: an unknown knob, a value it does not take, a knob that can have no effect.
        UnavailableError: a knob or value that this machine cannot turn, why, and what is nearest.
            Both name file, line and key.
    """
    offers = inspect() if offers is None else offers
    for name, values, where in _named(space):
        if name not in KNOBS:
            raise where.error(nearest(name))
        knob = KNOBS[name]
        if knob.applied == FACTOR and name not in space.factors:
            raise where.error(f"{name} is a factor, which no sampler chooses: put it under factors")
        if knob.ours and space.settings.deployer != "embedded":
            raise _unavailable(
                where,
                "TensorFlow Serving has no such setting, only the embedded server: "
                "use deployer embedded",
            )
        if knob.not_embedded and space.settings.deployer == "embedded":
            raise _unavailable(
                where,
                f"{name} does nothing on the embedded server ({knob.not_embedded}): "
                "use deployer binary or docker",
            )
        for value in values:
            problem = knob.problem(value)
            if problem:
                raise where.error(problem)
            refusal = offers.refusal(name, value, space.settings.deployer)
            if refusal:
                raise _unavailable(where, f"{name} {value!r} cannot be had here: {refusal}")
        _check_needs(space, name, where)
    _check_threads(space)


def joining_note(space: Space, rows: int) -> str | None:
    """What to know before the first trial where the space's batching may join the requests of a
    model that takes exactly ``rows`` rows at once; ``None`` where it joins none.

    TensorFlow Serving runs a batch as large as the requests in it come to, which such a model
    refuses.
    """
    values = {name: found for name, found, _ in _named(space)}
    if not any(value is True for value in values.get("enable_batching", (False,))):
        return None
    largest = max(map(int, values.get("max_batch_size", (KNOBS["max_batch_size"].default or 0,))))
    if largest <= rows:
        return None
    return (
        f"the model takes exactly {rows} row{'s' if rows != 1 else ''} at once, and batching joins "
        f"requests up to max_batch_size {largest}: a configuration that joins any will fail with "
        f"errors; keep max_batch_size at {rows}, or export the model with a free batch dimension"
    )


def _named(space: Space) -> Iterable[tuple[str, tuple[Scalar, ...], Where]]:
    for parameter in space.parameters:
        yield parameter.name, _extremes(parameter), parameter.where
    for name, value in space.fixed.items():
        yield name, (value,), space.place(f"fixed.{name}")
    for name, levels in space.factors.items():
        if name != "load":
            yield name, levels, space.place(f"factors.{name}")


def _extremes(parameter: Parameter) -> tuple[Scalar, ...]:
    """The values to check: all choices, or both ends of a range."""
    if parameter.choices:
        return parameter.choices
    assert parameter.low is not None and parameter.high is not None
    kind = int if parameter.kind == "int" else float
    return kind(parameter.low), kind(parameter.high)


def _check_needs(space: Space, name: str, where: Where) -> None:
    """A knob whose condition can never hold would be tuned in vain."""
    tuned = {parameter.name: parameter for parameter in space.parameters}
    for other, wanted in KNOBS[name].needs.items():
        if other in tuned:
            if any(tuned[other].contains(value) for value in wanted):
                continue
        elif space.fixed.get(other, KNOBS[other].default) in wanted:
            continue
        text = " or ".join(str(value).lower() for value in wanted)
        raise where.error(f"{name} has no effect unless {other} is {text}; add that to the space")


def _check_threads(space: Space) -> None:
    tuned = {parameter.name: parameter for parameter in space.parameters}
    if all(name in tuned or space.fixed.get(name) for name in _THREADS) and not space.exclude:
        first = next((tuned[name].where for name in _THREADS if name in tuned), Where(space.file))
        raise first.error(
            f"{_THREADS[0]} sets both other thread counts: leave it out, or exclude what the "
            "server refuses"
        )


def _unavailable(where: Where, message: str) -> UnavailableError:
    return UnavailableError(str(where.error(message)))

