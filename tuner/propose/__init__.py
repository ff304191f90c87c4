"""Who proposes what to try next: ``make`` builds any proposer by its name."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tuner.errors import UnavailableError, UsageError
from tuner.propose.base import Observation, Proposal, Proposer
from tuner.propose.source import Source
from tuner.space import Space

__all__ = ["LEARNING", "NAMES", "Observation", "Proposal", "Proposer", "Source", "make"]

TPE_CANDIDATES, TPE_MANY = 24, 5_000
"""Candidates that TPE weighs for a proposal (Optuna's default), half of them where more trials than
so many are planned: each one is compared with every trial."""


def make(
    name: str,
    space: Space,
    *,
    seed: int,
    budget: int | None = None,
    sources: Sequence[Source] = (),
    repeats: bool = False,
) -> Proposer:
    """A proposer for one study.

    Args:
        name: one of ``NAMES``.
        seed: makes the proposals repeatable; a resumed study gives the same seed again.
        budget: how many trials the study may take, where known.
        sources: studies of other environments to learn from, by one of ``LEARNING``.
        repeats: whether a configuration of a finite space may be proposed again.

    Raises:
        UsageError: an unknown name.
        UnavailableError: the proposer needs a package that isn't installed.
    """
    if name not in _MAKERS:
        raise UsageError(f"sampler {name!r} is unknown; choose one of {', '.join(NAMES)}")
    return _MAKERS[name](space, seed, budget, sources, repeats)


# Imports are local so that asking for one proposer doesn't load the libraries of all others.


def _random(space: Space, seed: int, budget: Any, sources: Any, repeats: bool) -> Proposer:
    from tuner.propose.enumerating import RandomProposer

    return RandomProposer(space, seed=seed, repeats=repeats)


def _grid(space: Space, seed: int, budget: Any, sources: Any, repeats: bool) -> Proposer:
    from tuner.propose.enumerating import GridProposer

    return GridProposer(space)


def _tpe(space: Space, seed: int, budget: int | None, sources: Any, repeats: bool) -> Proposer:
    from optuna.samplers import TPESampler

    from tuner.propose.mirror import MirrorProposer

    conditional = bool(space.conditional)
    weighed = TPE_CANDIDATES // 2 if (budget or 0) > TPE_MANY else TPE_CANDIDATES
    return MirrorProposer(
        "tpe",
        space,
        lambda derived: TPESampler(
            multivariate=True, group=conditional, constant_liar=True, seed=derived,
            n_ei_candidates=weighed,
        ),
        seed=seed,
        repeats=repeats,
        explanation="tree-structured Parzen estimator, multivariate"
        + (", one group of knobs for each branch of the space" if conditional else ""),
    )


def _nsga2(space: Space, seed: int, budget: int | None, sources: Any, repeats: bool) -> Proposer:
    from optuna.samplers import NSGAIISampler

    from tuner.propose.mirror import MirrorProposer

    size = _population(budget)
    return MirrorProposer(
        "nsga2",
        space,
        lambda derived: NSGAIISampler(population_size=size, seed=derived),
        seed=seed,
        repeats=repeats,
        explanation=f"evolution by non-dominated sorting, generations of {size}",
    )


def _nsga3(space: Space, seed: int, budget: int | None, sources: Any, repeats: bool) -> Proposer:
    from optuna.samplers import NSGAIIISampler

    from tuner.propose.mirror import MirrorProposer

    size = _population(budget)
    return MirrorProposer(
        "nsga3",
        space,
        lambda derived: NSGAIIISampler(population_size=size, seed=derived),
        seed=seed,
        repeats=repeats,
        explanation=f"evolution by reference points, generations of {size}",
    )


def _gp(space: Space, seed: int, budget: Any, sources: Any, repeats: bool) -> Proposer:
    if importlib.util.find_spec("torch") is None:
        raise UnavailableError(
            "sampler 'gp' is Optuna's GPSampler, which needs torch: install tuner[gp], "
            "or take 'auto', whose own Gaussian processes need nothing more"
        )
    from optuna.samplers import GPSampler

    from tuner.propose.mirror import MirrorProposer

    return MirrorProposer(
        "gp",
        space,
        lambda derived: GPSampler(seed=derived, deterministic_objective=False),
        seed=seed,
        repeats=repeats,
        explanation="Optuna's Gaussian process with (log) expected hypervolume improvement",
    )


def _auto(
    space: Space, seed: int, budget: int | None, sources: Sequence[Source], repeats: bool
) -> Proposer:
    from tuner.propose.auto import choose

    return choose(space, seed=seed, budget=budget, sources=sources, repeats=repeats)


def _transfer(
    space: Space, seed: int, budget: int | None, sources: Sequence[Source], repeats: bool
) -> Proposer:
    from tuner.propose.transfer import TransferProposer

    if not sources:
        raise UsageError("sampler 'transfer' needs a source to learn from: say --source STUDY")
    return TransferProposer(space, sources, seed=seed, budget=budget, repeats=repeats)


def _qmc(space: Space, seed: int, budget: Any, sources: Any, repeats: bool) -> Proposer:
    from tuner.propose.designs import SobolProposer

    return SobolProposer(space, seed=seed, repeats=repeats)


def _screening(space: Space, seed: int, budget: Any, sources: Any, repeats: bool) -> Proposer:
    from tuner.propose.designs import screening

    return screening(space)


def _population(budget: int | None) -> int:
    """About five generations of at least ten; twenty where the budget is unknown."""
    return 20 if budget is None else min(max(budget // 5, 10), 50)


_MAKERS: Mapping[str, Callable[[Any, int, Any, Any, bool], Proposer]] = {
    "auto": _auto,
    "random": _random,
    "tpe": _tpe,
    "nsga2": _nsga2,
    "nsga3": _nsga3,
    "grid": _grid,
    "qmc": _qmc,
    "screening": _screening,
    "gp": _gp,
    "transfer": _transfer,
}
NAMES: tuple[str, ...] = tuple(_MAKERS)
LEARNING = ("auto", "transfer")
"""Those that learn from sources; the others ignore them."""
