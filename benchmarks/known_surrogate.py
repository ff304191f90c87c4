"""How many trials `auto` would need if it knew its hyperparameters before the first one.

They are learnt from 120 configurations of the table that is then searched: no search that has to
learn them can be expected to be faster. Prints a row a table, beside `auto` itself.

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

LEARNT_FROM = 120


class Knowing(BayesianProposer):
    """Bayesian optimisation with hyperparameters that are given."""

    def __init__(self, table: Table, learnt: Mapping[str, AveragedSurrogate], seed: int) -> None:
        super().__init__(table.space, seed=seed)
        self._learnt = learnt

    def _fit(self, name: str, data: Data, logarithmic: bool = False) -> Any:
        return self._learnt[name].on(data.X, data.y)


def learn(table: Table, seed: int) -> dict[str, AveragedSurrogate]:
    rng = np.random.default_rng(seed)
    places = rng.choice(len(table.values), min(LEARNT_FROM, len(table.values)), replace=False)
    rows = [i for i in places if np.isfinite(table.means[i]).all()]
    X = Encoder(table.space).encode([table.space.rows[i] for i in rows])
    first, second = np.log(table.means[rows]).T
    responses = {"objective 0": first, "objective 1": second, "quotient": second - first}
    return {name: AveragedSurrogate(rng, LOG_SCALE).fit(X, y) for name, y in responses.items()}


def curve(table: Table, trials: int, seed: int, knowing: bool) -> Any:
    proposer = (
        Knowing(table, learn(table, seed), seed)
        if knowing
        else BayesianProposer(table.space, seed=seed)
    )
    return replay(table, proposer, trials, np.random.default_rng(seed)).curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of recorded tables")
    parser.add_argument("--only", default="tx2", help="tables whose name starts so (%(default)s)")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    print("| table | auto | hyperparameters known |\n| --- | --- | --- |")
    for table in (t for t in tables(args.data) if t.name.startswith(args.only)):
        cells = []
        for knowing in (False, True):
            with parallel_config("loky", n_jobs=-1, inner_max_num_threads=1):
                curves = Parallel()(
                    delayed(curve)(table, args.trials, seed, knowing)
                    for seed in range(args.repeats)
                )
            cells.append(str(report(curves, 0.0, {}).trials_to_99 or f"> {args.trials}"))
        print("|", " | ".join([table.name, *cells]), "|", flush=True)


if __name__ == "__main__":
    main()
