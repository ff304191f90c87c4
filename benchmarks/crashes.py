"""How well samplers leave the configurations that crash, and how soon they find one within a limit.

python benchmarks/crashes.py [--samplers tpe,nsga2,nsga3,auto] [--trials 60] [--repeats 20]

A made-up server of 4,096 configurations: a third crashes, where threads and batch outgrow the
memory; of the rest most are two to fifty times beyond their limits, three in a hundred within. The
crashes lie apart from those. For each number of limits, over the repeats: share of crashes among
the last 20 proposals (mean, and the same without a search) and the trial that was the first within
the limits (median).
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from threadpoolctl import threadpool_limits

from tuner.measurement import Configuration
from tuner.propose import Observation, make
from tuner.space import Constraint, Objective, Parameter, Space

LEVELS = tuple(range(8))
LATENCY, ENERGY = Constraint("latency_p99_ms", maximum=8.0), Constraint("energy_j", maximum=2.0)
"""One limit, or both."""


def space(limits: int) -> Space:
    return Space(
        name="crashes",
        parameters=tuple(
            Parameter(name, "int", choices=LEVELS, ordered=True)
            for name in ("threads", "batch", "timeout", "frequency")
        ),
        objectives=(Objective("latency_p99_ms", "minimize"), Objective("energy_j", "minimize")),
        constraints=(LATENCY, ENERGY)[:limits],
    )


def metrics(c: Configuration) -> dict[str, float | None] | None:
    """What the server shows; ``None``: it crashes."""
    threads, batch, timeout, frequency = (float(c[n]) for n in c)
    if threads + batch >= 9:
        return None
    latency = 4.0 * math.exp(0.35 * threads + 0.25 * timeout + 0.3 * (7 - frequency))
    energy = 0.5 * math.exp(0.25 * threads + 0.2 * (7 - batch) + 0.1 * frequency)
    return {"latency_p99_ms": latency, "energy_j": energy}


def search(sampler: str, limits: int, trials: int, seed: int) -> tuple[list[bool], int | None]:
    """Which trials crashed, and the number, from 1, of the first one within the limits."""
    searched = space(limits)
    proposer = make(sampler, searched, seed=seed, budget=trials)
    crashed, first = [], None
    for number in range(trials):
        proposal = proposer.propose()
        assert proposal is not None
        c, told = proposal.configuration, metrics(proposal.configuration)
        crashed.append(told is None)
        if told is None:
            ended = Observation(c, "failed", None, {"failed": 1.0}, proposal.notes, number)
        else:
            values = tuple(float(told[o.name] or 0.0) for o in searched.objectives)
            broken = searched.violations(told)
            ended = Observation(c, "complete", values, broken, proposal.notes, number)
            if ended.feasible and first is None:
                first = number + 1
        proposer.observe(ended)
    return crashed, first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samplers", default="tpe,nsga2,nsga3,auto")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    every = [metrics(c) for c in space(2).configurations()]
    for limits in (1, 2):
        held = [
            m is not None and all(v <= 0 for v in space(limits).violations(m).values())
            for m in every
        ]
        print(f"{limits} limits: {np.mean([m is None for m in every]):.2f} of all crash, "
              f"{np.mean(held):.3f} are within")
        for sampler in args.samplers.split(","):
            with threadpool_limits(1):
                runs = [search(sampler, limits, args.trials, s) for s in range(args.repeats)]
            last = np.mean([crashed[-20:] for crashed, _ in runs])
            firsts = [args.trials + 1 if first is None else first for _, first in runs]
            print(f"  {sampler}: crashes among the last 20 {last:.2f}, "
                  f"first within after {np.median(firsts):.0f}", flush=True)


if __name__ == "__main__":
    main()
