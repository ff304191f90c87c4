"""What a person should know of a Pareto set beside its numbers: how far they can be trusted."""

from __future__ import annotations

from typing import Any

from tuner.cli import _format
from tuner.measurement import METRICS

DRIFTED = 0.01
"""p-value below which a metric is said to have drifted over the study."""


def pareto_notes(members: Any) -> list[str]:
    """One line for each thing worth saying of the members of a front (``cli.pareto.members``)."""
    return [
        *_certainty(members),
        *_measured_again(members),
        *_failed_repeats(members),
        *_disagreeing(members),
        *_noise(members.attrs["noise"]),
        *_unknown_noise(members),
    ]


def _certainty(members: Any) -> list[str]:
    objectives = members.attrs["objectives"]
    certain = [str(int(n)) for n in members.loc[members["certain"].astype(bool), "number"]]
    lines = [f"certain to be on the front (at least 95 %): {', '.join(certain) or 'none'}"]
    unknown = {name: None for names in members["interval_unknown"] for name in names}
    if unknown:
        lines.append(
            f"interval unknown: {', '.join(unknown)}; P(front) marked ? does not count that error, "
            "repeats: in the space would tell it"
        )
    guessed = {n for names in members["interval_open"] for n in names} & set(objectives)
    if guessed:
        lines.append(
            f"upper bound unknown: {', '.join(sorted(guessed))} (marked ?, too few requests in a "
            "stage): taken to be as far above as the lower bound is below; no such member is certain"
        )
    return lines


def _measured_again(members: Any) -> list[str]:
    return [
        f"trial {int(row['number'])}: values of its longer measurement "
        f"({_format.seconds(row['again_s'])}, tuner measure)"
        for _, row in members[members["again_s"].notna()].iterrows()
    ]


def _failed_repeats(members: Any) -> list[str]:
    return [
        f"trial {int(row['number'])}: {int(row['failures'])} of {len(row['trials'])} repeats failed"
        for _, row in members[members["failures"] > 0].iterrows()
    ]


def _disagreeing(members: Any) -> list[str]:
    return [
        f"trial {int(row['number'])}: repeats (trials {', '.join(map(str, row['trials']))}) differ "
        f"in {', '.join(row['discord'])} by more than their intervals say"
        for _, row in members.iterrows() if row["discord"]
    ]


def _noise(noises: Any) -> list[str]:
    lines = []
    objectives = {n["metric"]: n for n in noises if n["metric"] in METRICS}
    for name in ("latency_p99_ms", "energy_per_request_j"):
        noise = objectives.get(name)
        if noise is None:
            continue
        within = noise["within"]
        own = "" if within is None else f", of which {_amount(noise, within)} inside the stages"
        lines.append(
            f"repeats: {name} varies by {_amount(noise, noise['deviation'])} from trial to trial"
            f"{own} ({noise['configurations']} configurations repeated"
            + (f" in {noise['studies']} studies of the recording)" if noise["studies"] > 1 else ")")
        )
    lines += [
        f"drift: {name} changed by {_amount(noise, noise['drift'], sign='+')} over the study "
        f"(p = {noise['drift_p_value']:.2g})"
        for name, noise in objectives.items()
        if noise["drift_p_value"] is not None and noise["drift_p_value"] < DRIFTED
    ]
    return lines


def _unknown_noise(members: Any) -> list[str]:
    thin = [o for o in members.attrs["objectives"] if o in members.attrs["noise_unknown"]]
    if not thin:
        return []
    return [
        f"noise from trial to trial unknown: {', '.join(thin)} (fewer than five repeats tell it); a "
        + "configuration measured once has the interval of its stage, and P(front) counts no more"
    ]


def _amount(noise: Any, value: float, sign: str = "") -> str:
    if noise["relative"]:
        return f"{100 * value:{sign}.2g} %"
    return f"{value:{sign}.2g} {METRICS[noise['metric']].unit}".strip()
