"""The transfer metrics of environments: of one pair, and of every pair among many."""

from __future__ import annotations

from collections.abc import Sequence

from threadpoolctl import threadpool_limits

from tuner.analysis.environments import LEAST_COMMON, Environment, compare
from tuner.analysis.transfer import Metrics, Profiles, transfer_metrics

ON_ALL = ("common", "M15", "M16", "M17", "M18")
"""What rests on all configurations, not only on those valid in both."""


def compare_environments(
    source: Environment,
    target: Environment,
    *,
    top: float = 0.10,
    profiles: Profiles | None = None,
) -> Metrics:
    """All metrics of two environments on the configurations they share; see ``compare``.

    Where fewer than ``LEAST_COMMON`` are valid in both, M1 to M14 are ``None``.
    """
    shared = compare(source, target)
    # The matrices are small: on a busy machine, threads of BLAS waiting for each other cost more
    # than the arithmetic.
    with threadpool_limits(1, user_api="blas"):
        found = transfer_metrics(
            shared.table,
            shared.options,
            shared.source,
            shared.target,
            source_valid=shared.source_valid,
            target_valid=shared.target_valid,
            top=top,
            profiles=profiles,
        )
    enough = (found["common"] or 0) >= LEAST_COMMON
    return {name: v if enough or name in ON_ALL else None for name, v in found.items()}


def transfer_matrix(
    environments: Sequence[Environment], *, top: float = 0.10
) -> dict[tuple[int, int], Metrics]:
    """The metrics of every ordered pair (source, target), indices into ``environments``.

    The diagonal compares each environment with itself: what full transfer looks like.
    """
    size = range(len(environments))
    shared = len({id(environment.table) for environment in environments}) == 1
    profiles: Profiles | None = {} if shared else None  # tables joined for one pair never recur
    return {
        (i, j): compare_environments(environments[i], environments[j], top=top, profiles=profiles)
        for i in size
        for j in size
    }
