"""How much a metric moves when nothing but time has changed: the noise of repeated configurations.

A load stage's own interval tells what a longer stage would have narrowed. It can't tell what
differs from one trial of a configuration to the next: a fresh server, a warmer machine, a neighbour.
Repeats tell both together. As in a one-way analysis of variance (random effects), their spread
around each configuration's mean is pooled over all configurations, so that two repeats of each of
ten configurations already give ten degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import chdtrc, stdtr

from tuner.analysis.open_bounds import counted
from tuner.analysis.tables import numbers
from tuner.measurement import configuration_key

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

Z_95 = 1.959964
DISCORD = 0.05
"""Chance of calling any configuration of a study discordant where all are sound."""


@dataclass(frozen=True)
class Noise:
    """The noise of one metric in one study.

    Deviations are shares of the configuration's mean where ``relative`` (every value is positive),
    else in the metric's unit.
    """

    metric: str
    relative: bool
    configurations: int
    """Configurations measured more than once."""
    degrees: int
    """Degrees of freedom of ``deviation``: repeats beyond each configuration's first."""
    deviation: float
    """Standard deviation of one trial around its configuration's mean."""
    within: float | None
    """Root mean square of the trials' own standard errors; ``None`` where no interval is known."""
    between: float
    """Standard deviation from trial to trial beyond ``within``: ``sqrt(deviation² − within²)``."""
    drift: float
    """Change over the time that the repeats span, by least squares on time."""
    drift_p_value: float | None
    """Two-sided t-test of no drift; ``None`` for fewer than two degrees of freedom."""
    studies: int = 1
    """How many studies of one recording it is pooled over; ``drift`` is that of the first."""

    def to_json(self) -> dict[str, object]:
        return {key: value for key, value in vars(self).items()}


def same_configuration(table: pd.DataFrame, parameters: Sequence[str]) -> Codes:
    """One integer a row, equal where all parameters are, in order of first appearance; (n,)."""
    columns = [table[name].tolist() for name in parameters]
    keys: dict[object, int] = {}
    ids = []
    for place in range(len(table)):
        held = {n: c[place] for n, c in zip(parameters, columns) if not pd.isna(c[place])}
        ids.append(keys.setdefault(configuration_key(held), len(keys)))
    return np.array(ids, dtype=np.int64)


def standard_errors(table: pd.DataFrame, metric: str, *, relative: bool) -> Floats:
    """Standard error of each row's value from its 95 % interval, NaN where unknown; (n,).

    An upper end that is not known counts as ``open_bounds.counted`` says.
    """
    low, high = counted(table, metric)
    errors = (high - low) / (2 * Z_95)
    return errors / numbers(table, metric) if relative else errors


def noise_of(table: pd.DataFrame, metric: str, ids: Codes) -> Noise | None:
    """The noise of a metric over a table of trials; ``None`` without a repeated configuration.

    ``ids`` says which rows are of one configuration, (n,); rows without a finite value are left
    out.
    """
    y = numbers(table, metric)
    known = np.isfinite(y)
    frame = pd.DataFrame({"id": ids[known], "y": y[known], "at": _times(table)[known]})
    frame["error"] = 0.0
    relative = bool(len(frame)) and bool((frame["y"] > 0).all())
    frame["error"] = standard_errors(table[known], metric, relative=relative)
    frame = frame[frame.groupby("id")["id"].transform("size") > 1]
    degrees = len(frame) - frame["id"].nunique()
    if not degrees:
        return None
    scaled = np.log(frame["y"]) if relative else frame["y"]
    rest = (scaled - scaled.groupby(frame["id"]).transform("mean")).to_numpy()
    at = (frame["at"] - frame.groupby("id")["at"].transform("mean")).to_numpy()
    variance = float(rest @ rest) / degrees
    within = None
    if frame["error"].notna().any():
        within = float(np.sqrt(np.nanmean(frame["error"] ** 2)))
    drift, chance = _slope(at, rest, degrees, float(np.ptp(frame["at"])))
    return Noise(
        metric=metric, relative=relative, configurations=int(frame["id"].nunique()),
        degrees=degrees, deviation=variance**0.5, within=within,
        between=max(0.0, variance - (within or 0.0) ** 2) ** 0.5,
        drift=float(np.expm1(drift)) if relative else drift, drift_p_value=chance,
    )


def pooled_noise(noises: Sequence[Noise | None]) -> Noise | None:
    """One noise of one metric in several studies, weighted by their degrees of freedom.

    The first is the study's own. Noises that are relative and those that are not don't mix: what is
    unlike the first known one is left out. ``None`` where none is known.
    """
    known = [noise for noise in noises if noise is not None]
    known = [noise for noise in known if noise.relative == known[0].relative]
    if not known:
        return None
    own = known[0] is noises[0]
    weights = np.array([noise.degrees for noise in known], dtype=float)
    variance = float(np.average([noise.deviation**2 for noise in known], weights=weights))
    told = [(n.within, w) for n, w in zip(known, weights) if n.within is not None]
    within = None
    if told:
        squares = np.average([held**2 for held, _ in told], weights=[w for _, w in told])
        within = float(squares) ** 0.5
    return Noise(
        metric=known[0].metric, relative=known[0].relative,
        configurations=sum(noise.configurations for noise in known), degrees=int(weights.sum()),
        deviation=variance**0.5, within=within,
        between=max(0.0, variance - (within or 0.0) ** 2) ** 0.5,
        drift=known[0].drift if own else 0.0,
        drift_p_value=known[0].drift_p_value if own else None, studies=len(known),
    )


def discordant(table: pd.DataFrame, metric: str, ids: Codes) -> frozenset[int]:
    """Configurations whose repeats differ by more than their own intervals explain.

    Cochran's Q of the repeats, each weighted by its standard error, against chi-squared; the
    bound ``DISCORD`` is divided by the number of repeated configurations (Bonferroni).
    """
    errors = standard_errors(table, metric, relative=False)
    y = numbers(table, metric)
    known = np.isfinite(y) & np.isfinite(errors) & (errors > 0)
    chances = {}
    for which in np.unique(ids[known]):
        rows = known & (ids == which)
        if rows.sum() > 1:
            weights = errors[rows] ** -2.0
            centre = (weights @ y[rows]) / weights.sum()
            statistic = float(weights @ (y[rows] - centre) ** 2)
            chances[int(which)] = float(chdtrc(rows.sum() - 1, statistic))
    return frozenset(k for k, chance in chances.items() if chance < DISCORD / len(chances))


def _times(table: pd.DataFrame) -> Floats:
    """When each trial started, seconds; its place in the study where nothing says so."""
    if "started" in table.columns and table["started"].notna().all() and len(table):
        at = pd.to_datetime(table["started"])
        return np.asarray((at - at.min()).dt.total_seconds(), dtype=float)
    return np.arange(len(table), dtype=float)


def _slope(at: Floats, rest: Floats, degrees: int, span: float) -> tuple[float, float | None]:
    """Change over the span by least squares through the configurations' means, and its p-value."""
    power = float(at @ at)
    if power <= 0:
        return 0.0, None
    slope = float(at @ rest) / power
    if degrees < 2:
        return slope * span, None
    left = float(((rest - slope * at) ** 2).sum()) / (degrees - 1)
    if left <= 0:
        return slope * span, 0.0 if slope else 1.0
    statistic = abs(slope) / np.sqrt(left / power)
    return slope * span, float(2 * stdtr(degrees - 1, -statistic))
