"""The choice in words, and with what its limits hold."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from tuner.cli import _format


def choice_sentence(marked: Any) -> str:
    """Which configuration to take, and by which rule."""
    attrs, chosen = marked.attrs, marked.attrs["choice"]
    row = marked.iloc[chosen.row]
    first, *others = attrs["objectives"]
    lead = f"choice: trial {int(row['number'])}"
    if not attrs["limits"]:
        among = f"of {_count(chosen.kept)}"
    elif chosen.sure:
        among = f"of {_count(chosen.kept)} that keep every limit with at least 90 %"
    else:
        among = (f"no configuration is known to keep every limit with 90 % (this one: "
                 f"{_known_chance(row, attrs['limits'])}); of {_count(chosen.kept)} likeliest to")
    best = "greatest" if attrs["directions"][0] == "maximize" else "least"
    if chosen.equal == 1:
        return (f"{lead}, since {among}, it has the {best} {first} "
                f"({_format.metric(first, chosen.least)}) and no other is within 5 % of it")
    told = (f"{lead}, since {among}, {chosen.equal} are within 5 % of the {best} {first} "
            f"({_format.metric(first, chosen.least)}) and count as equal")
    if others:
        ways = dict(zip(attrs["objectives"], attrs["directions"]))
        best = " and ".join(
            f"the {'most' if ways[o] == 'maximize' else 'least'} {o}" for o in others
        )
        told += f"; of these it has {best}"
    if chosen.thrifty > 1:
        told += (f", as have {chosen.thrifty - 1} more" if others else "") + (
            f", and is the nearest to the server's defaults ({chosen.differing} knobs differ)"
        )
    return told


def _known_chance(row: Any, limits: Collection[str]) -> str:
    """With what a configuration keeps all limits; of which it isn't known where it is not."""
    untold = [t for t, p in zip(limits, row["limit_probability"]) if math.isnan(p)]
    if not untold:
        return f"{row['limits_probability']:.0%}"
    others = f", the others {row['limits_presence']:.0%}" if len(untold) < len(limits) else ""
    return f"{', '.join(untold)} unknown{others}"


def chance(row: Any, limit: str, probability: float) -> str:
    """With what a limit holds: ``97%``; ``97%?`` by an assumption, ``?`` where nobody knows."""
    mark = "?" if limit in row["limit_unknown"] else ""
    return mark if mark and math.isnan(probability) else percent(probability) + mark


def percent(probability: float) -> str:
    """A probability; what is not quite certain or impossible is not rounded to it."""
    if math.isnan(probability):
        return "-"
    if 0.995 <= probability < 0.9995 or 0.0005 < probability < 0.005:
        return f"{probability:.1%}"
    if 0.9995 <= probability < 1:
        return ">99.9%"
    return "<0.1%" if 0 < probability <= 0.0005 else f"{probability:.0%}"


def _count(number: int) -> str:
    return f"{number} configuration{'s' if number != 1 else ''}"


def limit_notes(members: Any) -> list[str]:
    """What the mark ? on the probability of a limit means, where there is one."""
    unknown: set[str] = set()
    assumed: set[str] = set()
    for _, row in members.iterrows():
        for text, held in zip(members.attrs["limits"], row["limit_probability"]):
            if text in row["limit_unknown"]:
                (unknown if math.isnan(held) else assumed).add(text)
    lines = []
    if assumed:
        lines.append(f"P({'), P('.join(sorted(assumed))}) marked ?: no upper bound is known; the "
                     "unknown side is taken to have a heavy tail (Cauchy); never certain")
    if unknown:
        lines.append(f"P({'), P('.join(sorted(unknown))}) is ? where nothing is known of the error: the "
                     "measured value keeps the limit, and how surely nobody knows; never certain")
    return lines
