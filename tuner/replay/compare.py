"""Let proposers work on a table, many times, and say how fast each came near its front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from joblib import Parallel, delayed, parallel_config
from numpy.typing import NDArray

from tuner.analysis.pareto import non_dominated
from tuner.propose import make
from tuner.propose.base import Proposer
from tuner.propose.source import Source
from tuner.replay.table import Table
from tuner.replay.yardstick import Yardstick

LEVELS = (0.95, 0.99)


@dataclass(frozen=True)
class Run:
    """One proposer on one table, once."""

    places: tuple[int, ...]
    """The configurations tried, as rows of the table's space, in order."""
    curve: NDArray[np.float64]
    """Hypervolume after each trial, relative to the whole table's, shape (trials,)."""
    notes: tuple[Mapping[str, Any], ...]
    """The proposer's notes on each trial."""
    explanation: str = ""
    """What the proposer says that it does."""


@dataclass(frozen=True)
class Report:
    """One proposer on one table over all repeats; curves have one value a trial."""

    median: tuple[float, ...]
    q25: tuple[float, ...]
    q75: tuple[float, ...]
    trials_to_95: int | None
    """Trials, from 1, until the median curve reaches 95 % of the table's hypervolume."""
    trials_to_99: int | None
    front_share: float
    """Share of the table's Pareto front among the trials, mean of the repeats."""
    weights: Mapping[str, tuple[float, ...]]
    """Source -> its median weight in each trial; empty without sources."""
    explanation: str = ""
    """What the proposer says that it does; of several runs, in the first."""


def compare(
    table: Table,
    samplers: Sequence[str],
    *,
    trials: int,
    repeats: int,
    seed: int = 0,
    sources: Sequence[Table] = (),
    shuffle_sources: bool = False,
    jobs: int = 1,
) -> dict[str, Report]:
    """Run each sampler ``repeats`` times on the table; repeat ``i`` has the same seed for all.

    Args:
        shuffle_sources: deal each source's measurements to other configurations first, anew in
            every repeat.
        jobs: processes to spread the repeats over; the result doesn't depend on it.
    """
    for name in samplers:  # a wrong name should end at once, not in a worker
        make(name, table.space, seed=0, budget=trials, sources=_sources(sources))
    tasks = [(name, repeat) for name in samplers for repeat in range(repeats)]
    with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1):
        runs = Parallel()(
            delayed(_repeat)(table, name, trials, (seed, repeat), sources, shuffle_sources)
            for name, repeat in tasks
        )
    return {
        name: _report(table, [run for (owner, _), run in zip(tasks, runs) if owner == name])
        for name in samplers
    }


def replay(table: Table, proposer: Proposer, trials: int, rng: np.random.Generator) -> Run:
    """Answer a proposer's proposals from the table until ``trials`` or nothing is left.

    A curve that ends early keeps its last value.
    """
    yardstick = Yardstick.over(table.measured)
    places, notes, values = [], [], []
    explanation = proposer.explain()
    for number in range(trials):
        proposal = proposer.propose()
        if proposal is None:
            break
        answer = table.answer(proposal.configuration, rng)
        proposer.observe(replace(answer, number=number, notes=proposal.notes))
        places.append(table.place(proposal.configuration))
        notes.append(proposal.notes)
        values.append(answer.values)
    return Run(tuple(places), held(yardstick.curve(values), trials), tuple(notes), explanation)


def held(curve: NDArray[np.float64], trials: int) -> NDArray[np.float64]:
    """A curve of ``trials`` values; one that ended early keeps its last value."""
    last = curve[-1] if len(curve) else 0.0
    return np.concatenate([curve[:trials], np.full(max(trials - len(curve), 0), last)])


def _sources(tables: Sequence[Table]) -> tuple[Source, ...]:
    return tuple(Source(t.name, tuple(t.observations())) for t in tables)


def _repeat(
    table: Table,
    name: str,
    trials: int,
    seeds: tuple[int, int],
    sources: Sequence[Table],
    shuffle: bool,
) -> Run:
    shuffling, proposing, answering = np.random.SeedSequence(seeds).spawn(3)
    rng = np.random.default_rng(shuffling)
    used = [source.shuffled(rng) if shuffle else source for source in sources]
    proposer = make(
        name,
        table.space,
        seed=int(proposing.generate_state(1)[0]),
        budget=trials,
        sources=_sources(used),
    )
    return replay(table, proposer, trials, np.random.default_rng(answering))


def _report(table: Table, runs: Sequence[Run]) -> Report:
    front = set(np.flatnonzero(non_dominated(table.means)).tolist())
    shares = [len(front & set(run.places)) / len(front) for run in runs]
    told = report(
        [run.curve for run in runs], float(np.mean(shares)), weights([run.notes for run in runs])
    )
    return replace(told, explanation=runs[0].explanation)


def report(
    curves: Sequence[NDArray[np.float64]], front_share: float, weights: Mapping[str, Any]
) -> Report:
    """What the curves of one proposer's repeats, of one length, come to."""
    q25, median, q75 = np.quantile(np.array(curves), (0.25, 0.5, 0.75), axis=0)
    to_95, to_99 = (_first(median >= level) for level in LEVELS)
    return Report(
        median=tuple(median.tolist()),
        q25=tuple(q25.tolist()),
        q75=tuple(q75.tolist()),
        trials_to_95=to_95,
        trials_to_99=to_99,
        front_share=front_share,
        weights=weights,
    )


def _first(reached: NDArray[np.bool_]) -> int | None:
    return int(np.argmax(reached)) + 1 if reached.any() else None


def weights(notes: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, tuple[float, ...]]:
    """Source -> its median weight in each trial, from the proposer's notes on the trials of each
    run; as long as the shortest run."""
    names = sorted({name for run in notes for note in run for name in note.get("weights", ())})
    trials = min(map(len, notes))
    return {
        name: tuple(
            float(np.median([run[i].get("weights", {}).get(name, 0.0) for run in notes]))
            for i in range(trials)
        )
        for name in names
    }
