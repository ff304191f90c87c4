"""Judge samplers that were run for real: there is no whole table, so they are judged together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tuner.analysis.pareto import non_dominated
from tuner.errors import TableError
from tuner.replay.compare import Report, held, report
from tuner.replay.yardstick import Yardstick

Values = tuple[float, ...] | None
"""A trial's objective values, minimised; ``None`` where it failed or broke a service level."""


def judge(
    runs: Mapping[str, Sequence[Sequence[Values]]],
    trials: int,
    weights: Mapping[str, Mapping[str, tuple[float, ...]]] | None = None,
) -> dict[str, Report]:
    """Compare samplers by the trials of their runs.

    Hypervolume is relative to the front of all runs of all samplers together, each objective
    scaled over all that they measured; ``front_share`` is the share of that front that one run
    found, mean of the runs. Both say who did better, not how much better one could do.

    Args:
        runs: sampler -> one sequence of trials a run, in their order.
        trials: length of the curves.
        weights: sampler -> source -> its weight by trial.

    Raises:
        TableError: not one trial gave a result.
    """
    found = [value for repeats in runs.values() for run in repeats for value in run if value]
    if not found:
        raise TableError("no trial of any sampler gave a result that keeps the service levels")
    measured = np.array(found, dtype=float)
    yardstick = Yardstick.over(measured)
    front = {tuple(row) for row in measured[non_dominated(measured)].tolist()}
    reports = {}
    for name, repeats in runs.items():
        curves = [held(yardstick.curve(run), trials) for run in repeats]
        shares = [len(front & {tuple(v) for v in run if v}) / len(front) for run in repeats]
        reports[name] = report(curves, float(np.mean(shares)), (weights or {}).get(name, {}))
    return reports
