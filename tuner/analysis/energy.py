"""Energies that were measured in different ways are never compared, inside a study or between two.

An estimate and a hardware counter have no common zero, and neither have two estimates with other
constants: whatever compares them compares the instruments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from tuner.errors import StudyError
from tuner.measurement import OTHERS_TAKEN_OFF

if TYPE_CHECKING:
    from tuner.analysis.environments import Environment

Basis = Mapping[str, Any]

_OF_THE_MACHINE = ("domains", "model_idle_w", "model_max_w")
"""What may differ between two machines, whose responses are compared and never mixed."""


def is_energy(response: str) -> bool:
    """Whether a metric counts energy or power, going by its name."""
    return bool(re.search(r"energy|power|_[jw]$", response))


def bases(table: pd.DataFrame) -> dict[str, list[int]]:
    """How the energies of a study's trials were measured (JSON of a basis) -> those trials.

    Only measured trials count. A table without the column ``energy_basis`` has what its attribute
    ``energy_source`` says, without trials.
    """
    if "energy_basis" not in table.columns:
        named = table.attrs.get("energy_source") or ()
        return {json.dumps({"source": s}): [] for s in ([named] if isinstance(named, str) else named)}
    known = table[table["energy_basis"].notna()]
    if "valid" in known.columns:
        known = known[known["valid"].fillna(False).astype(bool)]
    return {
        str(basis): [int(n) for n in part["number"]]
        for basis, part in known.groupby("energy_basis", sort=False)
    }


def refuse_mixed(table: pd.DataFrame, responses: Sequence[str]) -> None:
    """Raise StudyError where a response is an energy that the table's trials measured differently.

    The message names the trials on each side and what differs.
    """
    counted = [name for name in responses if is_energy(name)]
    held = bases(table)
    if not counted or len(held) < 2:
        return
    (first, mine), (second, others) = list(held.items())[:2]
    rest = f" and {len(held) - 2} further ways" if len(held) > 2 else ""
    sides = f" (trials {_ranges(mine)} and {_ranges(others)})" if mine and others else ""
    raise StudyError(
        f"study {table.attrs.get('name')!r} holds {counted[0]} measured in different ways: "
        f"{_difference(json.loads(first), json.loads(second))}{sides}{rest}; choose a latency, or "
        "measure again in a new study (--name) with one energy: source in its space"
    )


def check_energy(environments: Sequence[Environment]) -> None:
    """Raise StudyError when responses to be compared are energies measured in more than one way.

    Source, method and whether the client's share was taken off must agree; domains and an
    estimate's constants too, unless the two were measured on different machines.
    """
    counted = [e for e in environments if is_energy(e.response)]
    for environment in counted:
        refuse_mixed(environment.table, [environment.response])
    for place, one in enumerate(counted):
        for other in counted[place + 1 :]:
            for left in bases(one.table):
                for right in bases(other.table):
                    ways = [json.loads(left), json.loads(right)]
                    if _other_machine(one, other):
                        ways = [_without_machine(way) for way in ways]
                    if ways[0] != ways[1]:
                        raise StudyError(
                            f"the energies of {one.label} and {other.label} were measured in "
                            f"different ways: {_difference(*ways)}; compare a latency, or studies "
                            "with one energy source"
                        )


def _other_machine(one: Environment, other: Environment) -> bool:
    machines = [(e.table.attrs.get("environment") or {}).get("machine") for e in (one, other)]
    return None not in machines and machines[0] != machines[1]


def _without_machine(basis: Basis) -> Basis:
    return {k: v for k, v in basis.items() if not k.endswith(_OF_THE_MACHINE)}


def _difference(one: Basis, other: Basis) -> str:
    one, other = ({**b, OTHERS_TAKEN_OFF: b.get(OTHERS_TAKEN_OFF, False)} for b in (one, other))
    for aspect in dict.fromkeys([*one, *other]):
        if one.get(aspect) != other.get(aspect):
            return f"{aspect} {one.get(aspect)} and {other.get(aspect)}"
    return "unknown"


def _ranges(numbers: Sequence[int]) -> str:
    """``0-3, 7`` of 0, 1, 2, 3, 7."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
