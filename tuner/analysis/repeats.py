"""Trials of one configuration pooled into one row: means, intervals, and what does not agree.

The pooled value of a metric is the arithmetic mean of the repeats that gave a measurement. Of two
repeats, the usual number, the median is the same; of more, the mean has the narrower interval, and a
disturbed stage has been measured anew already. Its interval holds both what the stages could not
tell and what differs from trial to trial:

    variance of the mean = (mean of the trials' own variances + variance between trials) / repeats

with the variance between trials pooled over the study (``noise.Noise``) and Student's quantile for
its degrees of freedom. A metric whose stages know no interval, as throughput, gets one in this way.
**A measurement that other work disturbed counts only where its configuration has no undisturbed one**
(``left_out``), however long it was: its numbers are not the server's alone. What ``tuner measure``
found later counts as well: a measurement longer than all others of its
configuration together stands for it, since a finalist was chosen because its numbers looked good;
a shorter one is a further repeat.

Where a study has fewer than five degrees of freedom, the variance is pooled over the studies of its
recording, which hold the same configurations at other load levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.analysis.again import with_later
from tuner.analysis.noise import (
    Z_95,
    Noise,
    discordant,
    noise_of,
    pooled_noise,
    same_configuration,
    standard_errors,
)
from tuner.analysis.open_bounds import open_metrics, opened
from tuner.analysis.ranks import requests_by_former_rule
from tuner.analysis.tables import numbers
from tuner.measurement import METRICS, NOT_THE_SERVERS, interval_names

Codes = NDArray[np.int64]

ENOUGH_DEGREES = 5
"""From here on the noise of the repeats is also believed of configurations measured once."""

Sisters = Callable[[], Sequence[pd.DataFrame]]


def pool(table: pd.DataFrame, sisters: Sisters | None = None) -> pd.DataFrame:
    """A study's table of trials with one row for each configuration.

    Args:
        table: as ``store.table_of`` gives it; ``attrs`` names its ``parameters``.
        sisters: gives the tables of the recording's other studies (``recording.sisters``); asked
            where this one tells less than five degrees of freedom of some metric's noise.

    Returns:
        The same columns, and ``trials`` (numbers of all finished trials, a tuple), ``repeats`` (how
        many of them gave a measurement), ``failures`` (how often the server failed), ``again`` (how
        many later measurements by ``tuner measure`` count), ``again_s`` (seconds of those that stand
        for all others; else NaN), ``discord`` (metrics whose repeats differ by more than their intervals
        say, a tuple), ``interval_open`` (metrics whose upper bound is not known, a tuple; their
        upper end is infinite), ``disturbed_by`` (what disturbed the measurements that the values
        come from, in words, a tuple), ``left_out`` (the same of measurements that do not count beside
        undisturbed ones), ``again_left_out`` (how many of those are later ones), ``former_rule``
        (requests of each of those whose p99 is by the former rank rule, a tuple) and ``measurements`` (how many they are). ``number`` is the
        first trial with a measurement, or the one whose later measurement stands for it;
        ``requests`` and ``window_s`` are sums. A configuration is ``valid`` as ``without_failure``
        says, and ``feasible`` when it is valid and more than half of its trials are feasible.
        ``attrs["noise"]`` lists ``Noise`` records as JSON; ``attrs["noise_unknown"]`` the metrics
        of whose noise less than five degrees are known.
    """
    parameters = table.attrs.get("parameters") or []
    if "number" not in table.columns:
        table = table.assign(number=range(len(table)))
    metrics = [m for m in dict.fromkeys([*METRICS, *_bounded(table)]) if m in table.columns]
    attrs = table.attrs
    table = opened(with_later(table, metrics))
    table.attrs = {}  # pandas copies them, deeply, at every step
    ids = same_configuration(table, parameters)
    table[LEFT_OUT] = _beside_undisturbed(table, ids)
    table, ids, longest = _standing(table, ids)
    once = len(np.unique(ids)) == len(table)
    noises: dict[str, Noise | None] = dict.fromkeys(metrics) if once else _noises(table, metrics, ids)
    told = [m for m in metrics if np.isfinite(numbers(table, m)).any()]
    if sisters is not None and any(_is_thin(noises[m]) for m in told):
        others = [
            _noises(_bare(opened(t)), metrics, same_configuration(t, parameters)) for t in sisters()
            if set(parameters) <= set(t.columns)
        ]
        for m in told:
            if _is_thin(noises[m]):
                noises[m] = pooled_noise([noises[m], *(other[m] for other in others)])
    if once and not longest and not any(noises.values()):
        pooled = _unpooled(table)
    else:
        pooled = _grouped(table, ids, longest, metrics, noises, parameters)
    pooled["interval_open"] = open_metrics(pooled, metrics)
    pooled.attrs.update(
        attrs,
        noise=[n.to_json() for n in noises.values() if n is not None],
        noise_unknown=[m for m in metrics if _is_thin(noises[m])],
    )
    return pooled


def _beside_undisturbed(table: pd.DataFrame, ids: Codes) -> NDArray[np.bool_]:
    """Measured rows that were disturbed, of configurations that have an undisturbed one; (n,)."""
    words = table["disturbed"].tolist() if "disturbed" in table.columns else [None] * len(table)
    disturbed = np.array([isinstance(w, str) and bool(w) for w in words], dtype=bool)
    measured = table["valid"].fillna(False).astype(bool).to_numpy()
    return np.asarray(disturbed & measured & np.isin(ids, ids[measured & ~disturbed]))


def _counting(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Rows whose values count: measured, and not left out; (n,)."""
    measured = table["valid"].fillna(False).astype(bool).to_numpy()
    return np.asarray(measured & ~table[LEFT_OUT].to_numpy() if LEFT_OUT in table.columns else measured)


def _standing(
    table: pd.DataFrame, ids: Codes
) -> tuple[pd.DataFrame, Codes, dict[int, pd.DataFrame]]:
    """Take out the later measurements that stand for their configuration: one that is longer than
    all others together, else all of them where together they are longer than the trials.

    Returns the table without them, its configurations, and configuration -> those rows.
    """
    later = table["again_s"].notna().to_numpy()
    if not later.any():
        return table, ids, {}
    seconds = np.nan_to_num(numbers(table, "window_s")) if "window_s" in table.columns else (
        np.nan_to_num(table["again_s"].to_numpy(dtype=float)))
    seconds = np.where(_counting(table), seconds, 0.0)
    later = later & _counting(table)
    kept, standing = np.ones(len(table), dtype=bool), {}
    for which in np.unique(ids[later]):
        mine = ids == which
        longest = int(np.argmax(np.where(mine & later, seconds, -1.0)))
        if 2 * seconds[longest] > seconds[mine].sum():
            standing[int(which)] = table.iloc[[longest]]
            kept[longest] = False
        elif seconds[mine & later].sum() > seconds[mine & ~later].sum():
            standing[int(which)] = table[mine & later]
            kept[mine & later] = False
    return table[kept], ids[kept], standing


def _grouped(
    table: pd.DataFrame,
    ids: Codes,
    longest: Mapping[int, pd.DataFrame],
    metrics: Sequence[str],
    noises: Mapping[str, Noise | None],
    parameters: Sequence[str],
) -> pd.DataFrame:
    measured = _counting(table)
    discords = {m: discordant(table[measured], m, ids[measured]) for m in metrics}
    rows = []
    for which in range(ids.max(initial=-1) + 1):
        part = table[ids == which]
        row = _row(part, metrics, noises)
        row["discord"] = tuple(m for m in metrics if which in discords[m])
        if which in longest:
            _let_stand(row, longest[which], metrics, noises)
        rows.append(row)
    columns = [*table.columns, *(c for m in metrics for c in interval_names(m)), "trials",
               "repeats", "failures", "again", "discord", "again_left_out", *_ORIGINS]
    pooled = pd.DataFrame(rows, columns=list(dict.fromkeys(columns)))
    for name in parameters:
        pooled[name] = pd.Series([r[name] for r in rows], index=pooled.index, dtype=object)
    return pooled


def _bare(table: pd.DataFrame) -> pd.DataFrame:
    """The table without what is known of its study: pandas copies ``attrs``, deeply, at every step."""
    bare = table.copy(deep=False)
    bare.attrs = {}
    return bare


def without_failure(measured: Iterable[bool], reasons: Iterable[Any]) -> bool:
    """Whether a configuration is valid: measured, and none of its trials failed.

    Failures that are not the server's doing (``NOT_THE_SERVERS``) don't count.

    Args:
        measured: of each of its finished trials, whether it gave a measurement.
        reasons: why each failed.
    """
    counted = [held for held, why in zip(measured, reasons) if held or why not in NOT_THE_SERVERS]
    return bool(counted) and all(counted)


def _failures(measured: Iterable[bool], reasons: Iterable[Any]) -> int:
    return sum(not held and why not in NOT_THE_SERVERS for held, why in zip(measured, reasons))


def _noises(
    table: pd.DataFrame, metrics: Sequence[str], ids: Codes
) -> dict[str, Noise | None]:
    measured = _counting(table)
    held = table[measured]
    return {m: noise_of(held, m, ids[measured]) if m in held.columns else None for m in metrics}


def _is_thin(noise: Noise | None) -> bool:
    return noise is None or noise.degrees < ENOUGH_DEGREES


LEFT_OUT = "left_out"
_ORIGINS = ("disturbed_by", "former_rule", "measurements")


def _origins(kept: pd.DataFrame) -> dict[str, Any]:
    """What stands behind a value that is pooled of these measured rows."""
    words = kept["disturbed"] if "disturbed" in kept.columns else ()
    return {
        "disturbed_by": tuple(str(w) for w in words if isinstance(w, str) and w),
        "former_rule": requests_by_former_rule(kept),
        "measurements": len(kept),
    }


def _unpooled(table: pd.DataFrame) -> pd.DataFrame:
    """Each trial is a configuration of its own; the columns say so."""
    found, measured = table.copy(), table["valid"].fillna(False).astype(bool)

    def tuples(held: Iterable[tuple[Any, ...]]) -> pd.Series:
        return pd.Series(list(held), table.index, dtype=object)

    found["trials"] = tuples((int(n),) for n in table["number"])
    reasons = table["reason"] if "reason" in table.columns else [None] * len(table)
    found["repeats"] = measured.astype(int)
    found["failures"] = [_failures([held], [why]) for held, why in zip(measured, reasons)]
    found["again"], found["measurements"] = 0, measured.astype(int)
    found[LEFT_OUT], found["again_left_out"] = tuples([()] * len(table)), 0
    found["discord"] = tuples([()] * len(table))
    words = table["disturbed"].tolist() if "disturbed" in table.columns else [None] * len(table)
    found["disturbed_by"] = tuples(
        (w,) if held and isinstance(w, str) and w else () for w, held in zip(words, measured)
    )
    former = iter(requests_by_former_rule(table[measured], each=True))
    found["former_rule"] = tuples(next(former) if held else () for held in measured)
    return found


def _bounded(table: pd.DataFrame) -> list[str]:
    """Metrics that have interval columns, known to ``METRICS`` or not."""
    return [str(c) for c in table.columns if interval_names(str(c))[0] in table.columns]


def _row(
    part: pd.DataFrame, metrics: Sequence[str], noises: Mapping[str, Noise | None]
) -> dict[str, Any]:
    measured = part["valid"].fillna(False).astype(bool)
    left_out = part[LEFT_OUT]
    kept = part[measured & ~left_out]
    row: dict[str, Any] = dict((kept if len(kept) else part).iloc[0])
    reasons = part["reason"] if "reason" in part.columns else [None] * len(part)
    row["valid"] = without_failure(measured, reasons)
    for metric in metrics:
        row.update(_pooled(kept, metric, noises[metric]))
    if "feasible" in part.columns:
        # A later measurement of before does not say whether it kept the constraints.
        judged = part[part["feasible"].notna() & (left_out.all() | ~left_out)]
        row["feasible"] = row["valid"] and _most(judged, judged["feasible"].astype(bool))
    if "reason" in part.columns:
        told = part["reason"].dropna()
        row["reason"] = None if row["valid"] or told.empty else told.mode().iloc[0]
    for name in ("window_s", "requests"):
        if name in part.columns:
            row[name] = float(numbers(kept, name)[np.isfinite(numbers(kept, name))].sum())
    later = part["again_s"].notna()
    row["trials"] = tuple(int(n) for n in part.loc[~later, "number"])
    row["repeats"] = int((measured & ~later).sum())
    row["failures"] = _failures(measured, reasons)
    row["again"], row["again_s"] = int((measured & later & ~left_out).sum()), np.nan
    row[LEFT_OUT] = tuple(part.loc[left_out, "disturbed"]) if left_out.any() else ()
    row["again_left_out"] = int((later & left_out).sum())
    row.update(_origins(kept))
    return row


def _most(part: pd.DataFrame, holds: pd.Series) -> bool:
    counts = holds.copy()
    if "reason" in part.columns:
        counts = holds[holds | ~part["reason"].isin(NOT_THE_SERVERS)]
    return bool(len(counts)) and counts.mean() > 0.5


def _believed(noise: Noise | None, count: int) -> bool:
    return noise is not None and (count > 1 or noise.degrees >= ENOUGH_DEGREES)


def _pooled(kept: pd.DataFrame, metric: str, noise: Noise | None) -> dict[str, float]:
    values = numbers(kept, metric)
    finite = np.isfinite(values)
    count = int(finite.sum())
    mean = float(values[finite].mean()) if count else np.nan
    low_name, high_name = interval_names(metric)
    found = {metric: mean, low_name: np.nan, high_name: np.nan}
    if not count:
        return found
    stored = {c: kept[c].to_numpy()[finite] for c in (low_name, high_name) if c in kept.columns}
    if noise is None or not _believed(noise, count):
        if stored and count == 1:
            found.update({c: float(held[0]) if pd.notna(held[0]) else np.nan
                          for c, held in stored.items()})
        return found
    # Short windows miss the same slow requests: how little repeats differ does not tell how large
    # the percentile may be. An end that one of them does not know stays unknown.
    is_open = any(np.isposinf(np.asarray(held, dtype=float)).any() for held in stored.values())
    errors = standard_errors(kept[finite], metric, relative=noise.relative)
    known = errors[np.isfinite(errors)]
    if len(known) == count:
        variance = float((known**2).mean()) + noise.between**2
        if is_open:
            variance = max(variance, noise.deviation**2)
        quantile = _student(noise.degrees) if noise.between > 0 else Z_95
    else:
        variance, quantile = noise.deviation**2, _student(noise.degrees)
    half = quantile * (variance / count) ** 0.5
    if noise.relative:
        found.update({low_name: mean * np.exp(-half), high_name: mean * np.exp(half)})
    else:
        found.update({low_name: mean - half, high_name: mean + half})
    if is_open:
        found[high_name] = np.inf
    return found


def _student(degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))


def _let_stand(
    row: dict[str, Any],
    later: pd.DataFrame,
    metrics: Sequence[str],
    noises: Mapping[str, Noise | None],
) -> None:
    """Let later measurements, rows of their own, stand for the trials."""
    for metric in metrics:
        row.update(_pooled(later, metric, noises[metric]))
    held = later.to_dict(orient="records")
    row["number"] = int(held[-1]["number"])
    row["again_s"] = float(np.nansum(later["again_s"].to_numpy(dtype=float)))
    row["valid"], row["reason"], row["again"] = True, None, row["again"] + len(held)
    for name in ("window_s", "requests"):
        if name in row:
            row[name] = held[0][name] if len(held) == 1 else float(np.nansum(numbers(later, name)))
    told = [bool(one["feasible"]) for one in held if one.get("feasible") is not None]
    if told and "feasible" in row:
        row["feasible"] = sum(told) > len(told) / 2
    if held[-1].get("energy_basis"):
        row["energy_basis"] = held[-1]["energy_basis"]
    row.update(_origins(later))
