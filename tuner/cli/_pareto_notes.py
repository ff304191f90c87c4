"""What a person should know of a Pareto set beside its numbers: how far they can be trusted."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from tuner.cli import _format
from tuner.cli._pareto_choice import limit_notes
from tuner.measurement import METRICS, interval_names

DRIFTED = 0.01
"""p-value below which a metric is said to have drifted over the study."""


def study_notes(marked: Any) -> list[str]:
    """What holds of the whole study: disturbed trials, percentiles by the former rank rule, what a
    later measurement refuted."""
    return [
        *_conditions(marked),
        *_former_rule(marked),
        *_former_rest(marked),
        *refuted_notes(marked),
    ]


def pareto_notes(members: Any) -> list[str]:
    """One line for each thing worth saying of the members of a front (``cli.pareto.members``)."""
    return [
        *_certainty(members),
        *limit_notes(members),
        *_same_choice(members),
        *_measured_again(members),
        *_failed_repeats(members),
        *_disagreeing(members),
        *_noise(members.attrs["noise"]),
        *_unknown_noise(members),
    ]


def bounds(row: Any, metric: str, shown: Collection[str]) -> str:
    """`` [9.1–11.4]``, the 95 % interval of a metric; `` [9.1–?]`` where no upper bound is known.

    Of an objective also that nothing is known of it.
    """
    if metric in row["interval_unknown"]:
        return " [unknown]"
    low, high = (row.get(name) for name in interval_names(metric))
    if metric not in shown or low is None or math.isnan(low):
        return ""
    return f" [{_format.number(low)}–{'?' if math.isinf(high) else _format.number(high)}]"


def _conditions(marked: Any) -> list[str]:
    """Under what the trials were measured: other work, a drift of the latencies in the window."""
    told, entries = marked.attrs["counts"], marked.attrs.get("measured_again") or ()
    disturbed, again = told["disturbed"], sum(bool(e.get("disturbed")) for e in entries)
    beside = marked[[bool(words) for words in marked["left_out"]]]
    lines = []
    if disturbed:
        words = [w for column in ("disturbed_by", "left_out") for held in marked[column] for w in held]
        lines.append(
            f"{disturbed} of {told['finished']} trials were disturbed by other work (marked !)"
            f"{f', as: {words[0]}' if words else ''}; their numbers are not the server's alone"
        )
    if again:
        lines.append(f"{again} of {len(entries)} later measurements (tuner measure) were disturbed by "
                     "other work")
    if len(beside):
        count = sum(map(len, beside["left_out"]))
        lines.append(f"{count} disturbed measurement{'s' if count > 1 else ''} left out beside "
                     f"undisturbed ones of the same configuration: {_trials(beside['number'])}")
    if drifted := told.get("drifted") or {}:
        first, *others = drifted
        lines.append(f"trial {first}: {drifted[first]}"
                     + (f" (and in {_trials(others)})" if others else ""))
    return lines


def _trials(numbers: Collection[int]) -> str:
    """``trials 3, 7``, the first eight."""
    shown = ", ".join(str(int(n)) for n in list(numbers)[:8])
    return f"trial{'s' if len(numbers) > 1 else ''} {shown}{', …' if len(numbers) > 8 else ''}"


def _former_rest(marked: Any) -> list[str]:
    if "former_rest" not in marked.columns or not marked["former_rest"].eq(True).any():
        return []
    told = marked[marked["former_rest"].eq(True)]
    return [
        (f"{_trials(told['number'])}: measured over the embedded server's former REST front, on which "
        "REST cost three to five times what it costs on TensorFlow Serving; what they say of REST "
        "beside gRPC does not carry over (docs/modelserver.md)")
    ]


def _former_rule(marked: Any) -> list[str]:
    return former_rule_note([n for held in marked["former_rule"] for n in held])


def former_rule_note(requests: Collection[int]) -> list[str]:
    """That measurements of so many answered requests took their p99 by the former rank rule.

    None where there are none; see ``analysis.ranks``.
    """
    from tuner.analysis.ranks import expected_shortfall, former_rank, right_rank

    asked = sorted(requests)
    low = [n for n in asked if former_rank(n) < right_rank(n)]
    if not asked:
        return []
    lead = (f"{len(asked)} measurements were recorded with the former rank rule, and with intervals "
            "of the p99 that are too narrow where requests queue (docs/measuring.md)")
    if not low:
        return [f"{lead}; at their numbers of requests it takes the right rank for the p99"]
    told = " and ".join(
        f"of {n:,} requests the {former_rank(n):,}th value instead of the {right_rank(n):,}th, "
        f"about {100 * expected_shortfall(n):.2g} % too low"
        for n in dict.fromkeys((low[0], low[-1]))
    )
    return [(f"{lead}: for {len(low)} of them the p99 is one rank too low ({told}; an estimate for "
            "an exponential tail, the single latencies were not kept)")]


def refuted_notes(marked: Any) -> list[str]:
    """What later measurements changed, one line for each configuration measured again."""
    lines = []
    for told in marked.attrs["refuted"]:
        moved = ("left the front" if told["left"] else "joined the front" if told["joined"]
                 else "was measured again")
        changes = []
        for metric, held in told["metrics"].items():
            if all(math.isnan(held[k][0]) for k in ("then", "again", "now")):
                continue
            then, again, now = (_point(metric, held[k]) for k in ("then", "again", "now"))
            last = f" (the last of {told['again']})" if told["again"] > 1 else ""
            known = f", {now} of all {told['measurements']}" if told["measurements"] > 1 else ""
            changes.append(f"{metric} {then} in the study, {again} measured again{last}{known}")
        lines.append(
            f"trial {told['trial']} {moved}: {'; '.join(changes)}"
            + (f"; beyond {', '.join(told['beyond'])} now" if told["beyond"] else "")
        )
    for _, row in marked[marked["again_left_out"] > 0].iterrows():
        lines.append(
            f"trial {int(row['number'])} was measured again, disturbed by other work: left out, since "
            f"an undisturbed measurement of it is known ({int(row['measurements'])} in all)"
        )
    return lines


def _point(metric: str, held: tuple[float, float, float]) -> str:
    value, low, high = held
    names = interval_names(metric)
    span = {metric: value, names[0]: low, names[1]: high, "interval_unknown": ()}
    return _format.metric(metric, value) + bounds(span, metric, {metric})


def _certainty(members: Any) -> list[str]:
    objectives = members.attrs["objectives"]
    certain = [str(int(n)) for n in members.loc[members["certain"].astype(bool), "number"]]
    limited = ", its limits with as much" if members.attrs["limits"] else ""
    lines = [f"certain to be on the front (at least 95 %{limited}): {', '.join(certain) or 'none'}"]
    unknown = {name: None for names in members["interval_unknown"] for name in names}
    if unknown:
        lines.append(
            f"interval unknown: {', '.join(unknown)}; P(front) marked ? does not count that error, "
            "repeats: in the space would tell it"
        )
    open_ends = {n for names in members["interval_open"] for n in names} & set(objectives)
    if open_ends:
        lines.append(
            f"upper bound unknown: {', '.join(sorted(open_ends))} (–?], too few requests in a "
            "stage): P(front) takes it to be as far above as the lower bound is below; no such "
            "member is certain"
        )
    return lines


def _same_choice(members: Any) -> list[str]:
    told = []
    for _, part in members.groupby("group", sort=False):
        if len(part) > 1:
            told.append("trials " + ", ".join(str(int(n)) for n in part["number"]))
    if not told:
        return []
    return [f"one choice each, since their intervals do not tell them apart: {'; '.join(told)}"]


def _measured_again(members: Any) -> list[str]:
    lines = [
        f"trial {int(row['number'])}: values of its longer measurement "
        f"({_format.seconds(row['again_s'])}, tuner measure)"
        for _, row in members[members["again_s"].notna()].iterrows()
    ]
    lines += [
        f"trial {int(row['number'])}: {int(row['again'])} later measurements (tuner measure) are "
        "pooled with its trials"
        for _, row in members[members["again_s"].isna() & (members["again"] > 0)].iterrows()
    ]
    return lines


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
