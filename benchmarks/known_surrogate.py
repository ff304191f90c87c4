"""How many trials `auto` would need if it knew its hyperparameters before the first one.

They are learnt from 120 configurations of the table that is then searched: no search that has to
learn them can be expected to be faster. Prints a row a table: `auto` itself, with the length scales
and bends of the knobs known, and with everything known.

    python benchmarks/known_surrogate.py --data ../shared/data [--only tx2] [--trials 40]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed, parallel_config
from samplers import tables

from tuner.propose.averaged import LOG_SCALE, AveragedSurrogate
from tuner.propose.bayesian import BayesianProposer, Data
from tuner.propose.encoding import Encoder
from tuner.replay import Table
from tuner.replay.compare import replay, report

LEARNT_FROM, SWEEPS = 120, 20
Learnt = Mapping[str, AveragedSurrogate]


class Knowing(BayesianProposer):
    """Bayesian optimisation with hyperparameters that are given."""

    def __init__(self, table: Table, learnt: Learnt, seed: int) -> None:
        super().__init__(table.space, seed=seed)
        self._learnt = learnt


class ShapeKnown(Knowing):
    """How knobs are bent is known; how much they matter is not."""

    def _shape(self, response: str, logarithmic: bool) -> Any:
        return self._learnt[response].shape if response in self._learnt else None


class AllKnown(Knowing):
    """Nothing is left to learn but the responses."""

    def _fit(self, name: str, data: Data, logarithmic: bool = False) -> Any:
        return self._learnt[name].on(data.X, data.y)


def learn(table: Table, seed: int) -> Learnt:
    rng = np.random.default_rng(seed)
    places = rng.choice(len(table.values), min(LEARNT_FROM, len(table.values)), replace=False)
    rows = [i for i in places if np.isfinite(table.means[i]).all()]
    X = Encoder(table.space).encode([table.space.rows[i] for i in rows])
    first, second = np.log(table.means[rows]).T
    responses = {"objective 0": first, "objective 1": second, "quotient": second - first}
    return {
        name: AveragedSurrogate(rng, LOG_SCALE).fit(X, y, SWEEPS) for name, y in responses.items()
    }


def curve(table: Table, trials: int, seed: int, knowing: type[Knowing] | None) -> Any:
    proposer = (
        BayesianProposer(table.space, seed=seed)
        if knowing is None
        else knowing(table, learn(table, seed), seed)
    )
    return replay(table, proposer, trials, np.random.default_rng(seed)).curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of recorded tables")
    parser.add_argument("--only", default="tx2", help="tables whose name starts so (%(default)s)")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    print("| table | auto | shape known | all known |\n| --- | --- | --- | --- |")
    for table in (t for t in tables(args.data) if t.name.startswith(args.only)):
        cells = []
        for knowing in (None, ShapeKnown, AllKnown):
            with parallel_config("loky", n_jobs=-1, inner_max_num_threads=1):
                curves = Parallel()(
                    delayed(curve)(table, args.trials, seed, knowing)
                    for seed in range(args.repeats)
                )
            cells.append(str(report(curves, 0.0, {}).trials_to_99 or f"> {args.trials}"))
        print("|", " | ".join([table.name, *cells]), "|", flush=True)


if __name__ == "__main__":
    main()
