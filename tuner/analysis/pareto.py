"""Pareto fronts: who is on, how good the front is, where its knee lies, and how sure that is.

Every objective is minimised and every array of objective values has shape (n points, k
objectives). A row with a NaN is a point that was not measured: it dominates nothing and is never
a member.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.analysis.resample import spreads

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_BLOCK = 256  # rows compared at once: keeps the comparison array in cache


def _points(values: ArrayLike) -> Floats:
    points = np.asarray(values, dtype=float)
    if points.ndim != 2:
        raise ValueError(f"objective values need shape (points, objectives), got {points.shape}")
    return points


def non_dominated(values: ArrayLike) -> Bools:
    """Which points no other point dominates, shape (n,).

    A point dominates another when it is no worse in every objective and better in at least one;
    equal points therefore stand on the front together.
    """
    points = _points(values)
    known = ~np.isnan(points).any(axis=1)
    member = np.zeros(len(points), dtype=bool)
    if not known.any():
        return member
    if points.shape[1] == 1:
        member[known] = points[known, 0] == points[known, 0].min()
    elif points.shape[1] == 2:
        member[known] = _staircase(points[known])
    else:
        # np.unique sorts rows by the first objective, then the second, …: only earlier rows can
        # dominate later ones.
        unique, inverse = np.unique(points[known], axis=0, return_inverse=True)
        member[known] = _sweep(unique)[inverse.ravel()]
    return member


def _staircase(points: Floats) -> Bools:
    """Members among points of two objectives, shape (n,)."""
    on: Bools = _staircases(points[None])[0]
    return on


def _staircases(sets: Floats) -> Bools:
    """Members of each of several sets of points of two objectives, shape (sets, n).

    By the first objective, each step down of the second is one; equal points are members together.
    """
    order = np.argsort(sets[:, :, 0], axis=1)
    first = np.take_along_axis(sets[:, :, 0], order, axis=1)
    if not ((first[:, 1:] == first[:, :-1]) & (first[:, 1:] < np.inf)).any():
        # No ties, as where values are drawn; absent points, infinite, need no order.
        second = np.take_along_axis(sets[:, :, 1], order, axis=1)
        step = np.ones(order.shape, dtype=bool)
        step[:, 1:] = second[:, 1:] < np.minimum.accumulate(second, axis=1)[:, :-1]
        on = np.empty(order.shape, dtype=bool)
        np.put_along_axis(on, order, step, axis=1)
        return on
    order = np.lexsort((sets[:, :, 1], sets[:, :, 0]), axis=-1)
    first = np.take_along_axis(sets[:, :, 0], order, axis=1)
    second = np.take_along_axis(sets[:, :, 1], order, axis=1)
    is_new = np.ones(order.shape, dtype=bool)
    is_new[:, 1:] = (first[:, 1:] != first[:, :-1]) | (second[:, 1:] != second[:, :-1])
    step = is_new.copy()
    step[:, 1:] &= second[:, 1:] < np.minimum.accumulate(second, axis=1)[:, :-1]
    first_of_equals = np.maximum.accumulate(np.where(is_new, np.arange(order.shape[1]), 0), axis=1)
    on = np.empty(order.shape, dtype=bool)
    np.put_along_axis(on, order, np.take_along_axis(step, first_of_equals, axis=1), axis=1)
    return on


def _sweep(unique: Floats) -> Bools:
    """Members among distinct, lexicographically sorted points, block by block."""
    on = np.zeros(len(unique), dtype=bool)
    front = np.empty_like(unique)
    size = 0
    for start in range(0, len(unique), _BLOCK):
        block = unique[start : start + _BLOCK]
        alive = np.ones(len(block), dtype=bool)
        for first in range(0, size, 4 * _BLOCK):
            part = front[first : min(first + 4 * _BLOCK, size)]
            rows = np.flatnonzero(alive)
            alive[rows] = ~_covers(block[rows], part).any(axis=1)
        rows = np.flatnonzero(alive)
        # Points of a block are distinct, so each is covered by itself and by its dominators.
        alive[rows] = _covers(block[rows], block[rows]).sum(axis=1) == 1
        kept = block[alive]
        front[size : size + len(kept)] = kept
        size += len(kept)
        on[start : start + len(block)] = alive
    return on


def _covers(points: Floats, others: Floats) -> Bools:
    """Whether others[j] <= points[i] in every objective, shape (len(points), len(others))."""
    result: Bools = others[None, :, 0] <= points[:, 0, None]
    for objective in range(1, points.shape[1]):
        result &= others[None, :, objective] <= points[:, objective, None]
    return result


def hypervolume(values: ArrayLike, reference: ArrayLike) -> float:
    """Volume dominated by the points and bounded by the reference point (Zitzler & Thiele 1998).

    ``reference`` has shape (k,) and is the worst corner; points that do not beat it in every
    objective add nothing. Exact: a sweep for one or two objectives, moocore's algorithms (LGPL, C)
    for more. The unit is the product of the objectives' units.
    """
    points, corner = _points(values), np.asarray(reference, dtype=float)
    if corner.shape != (points.shape[1],):
        raise ValueError(f"reference needs {points.shape[1]} values, got shape {corner.shape}")
    inside = points[(points < corner).all(axis=1)]
    if not len(inside):
        return 0.0
    front = np.unique(inside[non_dominated(inside)], axis=0)
    if len(corner) == 1:
        return float(corner[0] - front[0, 0])
    if len(corner) == 2:
        ceilings = np.concatenate((corner[1:], front[:-1, 1]))
        return float(((corner[0] - front[:, 0]) * (ceilings - front[:, 1])).sum())
    import moocore

    return float(moocore.hypervolume(front, ref=corner))


def knee(values: ArrayLike) -> int | None:
    """Index of the front's knee, or ``None`` where there is no point.

    The knee is the member farthest, towards the ideal point, from the hyperplane through the
    front's extremes, after every objective is scaled to [0, 1] between the front's best and worst
    value (the normal-boundary intersection of Das, "On characterizing the 'knee' of the Pareto
    curve", 1999): the member with the smallest sum of scaled objectives. Ties go to the member
    that is best in the first objective, then the second, and so on. A front of one or two members
    has no bend; the same rule then picks the better first objective.
    """
    points = _points(values)
    members = np.flatnonzero(non_dominated(points))
    if not len(members):
        return None
    front = points[members]
    low, span = front.min(axis=0), np.ptp(front, axis=0)
    scaled = (front - low) / np.where(span > 0, span, 1.0)
    distance = np.round(scaled.sum(axis=1), 12)  # rounding makes ties ties
    return int(members[np.lexsort((*front.T[::-1], distance))[0]])


def membership_probability(
    values: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    presence: ArrayLike | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Floats:
    """Probability of each point to be on the front, given its measurement error, shape (n,).

    Monte Carlo over the stored intervals: each draw replaces every value by one from a two-piece
    normal distribution whose median is the value and whose (1 ± level)/2 quantiles are ``low`` and
    ``high``, independent between points and objectives, and recomputes the front. ``low`` and
    ``high`` have the shape of ``values``; NaN there means that no interval is known and the value
    is taken as exact, so errors that were not measured are not counted. ``presence``, shape (n,),
    is the probability that a point may be chosen at all, as its limits hold: in a draw without it
    the point neither is a member nor dominates; independent of its values. A point counts as always
    there from 99.9 % on where others are looked at that it dominates for certain. The standard
    error of a probability is at most 0.5/sqrt(draws), 0.011 by default.
    """
    points = _points(values)
    below, above = spreads(points, low, high, level)
    if below.shape != points.shape or above.shape != points.shape:
        raise ValueError(f"intervals need the values' shape {points.shape}")
    there = np.ones(len(points)) if presence is None else np.asarray(presence, dtype=float)
    if there.shape != (len(points),):
        raise ValueError(f"presence needs shape ({len(points)},), got {there.shape}")
    worst = np.where(there[:, None] >= _ALWAYS, points + _FAR * above, np.nan)
    possible = _possible_members(points - _FAR * below, worst)
    points, below, above, there = points[possible], below[possible], above[possible], there[possible]
    known = ~np.isnan(points).any(axis=1)
    random = np.random.default_rng(seed)
    hits = np.zeros(len(possible))
    at_once = max(1, _AT_ONCE // max(points.size, 1))
    for begun in range(0, draws, at_once):
        error = random.standard_normal((min(at_once, draws - begun), *points.shape))
        drawn = points + error * np.where(error > 0, above, below)
        if (there < 1).any():
            absent = random.random(drawn.shape[:2]) >= there
        else:
            absent = np.zeros(drawn.shape[:2], dtype=bool)
        if points.shape[1] == 2:
            absent |= ~known
            drawn[absent] = np.inf
            hits[possible] += (_staircases(drawn) & ~absent).sum(axis=0)
        else:
            drawn[absent] = np.nan
            hits[possible] += sum(map(non_dominated, drawn))
    return hits / draws


_AT_ONCE = 1 << 17
"""Values drawn at a time."""

_FAR = 6.0
"""Standard deviations that no draw reaches: one in 10^9 does."""

_ALWAYS = 0.999
"""Presence from which on a point may rule out those that it dominates for certain."""


def _possible_members(best: Floats, worst: Floats) -> Bools:
    """Points that no other one dominates for certain, shape (n,).

    The others, each dominated at its best by a point at its worst, are on no draw's front, and what
    they dominate that point dominates as well. Of many trials few are left.

    Args:
        best, worst: the ends of what each value may be, shape (n, k).
    """
    front = worst[non_dominated(worst)]
    possible = np.ones(len(best), dtype=bool)
    for start in range(0, len(best), _BLOCK):
        block = best[start : start + _BLOCK]
        better = np.zeros((len(block), len(front)), dtype=bool)
        for objective in range(best.shape[1]):
            better |= front[None, :, objective] < block[:, objective, None]
        possible[start : start + len(block)] = ~(_covers(block, front) & better).any(axis=1)
    return possible
