"""What a study of ten thousand trials costs: ask and tell, the front, memory.

Fills a database with made-up measurements of a real record's size, then takes the study's own way:
the store caught up, the sampler asked, a trial started, told and observed. Prints the figures.

    python benchmarks/many_trials.py [--trials 10000] [--sampler tpe] [--asks 10]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from tuner import cli, propose, study
from tuner.measurement import EnergyReading, Measurement, Scalar, StageResult
from tuner.space_file import parse
from tuner.store import Store

SPACE = parse("""
name: many
parameters:
  enable_batching: {choices: [false, true]}
  max_batch_size: {low: 1, high: 1024, log: true, when: {enable_batching: true}}
  batch_timeout_micros: {low: 0, high: 100000, when: {enable_batching: true}}
  num_batch_threads: {low: 1, high: 64}
""")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--asks", type=int, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/many.db"
        fill(url, args.trials)
        begun = time.monotonic()
        with contextlib.redirect_stdout(io.StringIO()):
            cli.main(["pareto", "many", "--storage", url])
        pareto_s = time.monotonic() - begun
        first_s, later_s = ask_and_tell(url, args.sampler, args.asks, args.trials)
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{args.trials} trials, {args.sampler}: first ask and tell {first_s:.2f} s (reads all), "
          f"later {statistics.median(later_s):.2f} s (median), {max(later_s):.2f} s (worst); "
          f"pareto {pareto_s:.2f} s; memory {memory_mib:.0f} MiB")
    return 0 if max(later_s) <= 1.0 and pareto_s <= 5.0 and memory_mib < 1024 else 1


def fill(url: str, trials: int) -> None:
    """Finished trials, written straight into the storage."""
    import optuna

    from tuner.store.record import attributes_of, distribution

    kept, draws = Store.create(url, "many", SPACE, {"model": "m"}), random.Random(0)
    storage, study_id = kept._study._storage, kept._study._study_id
    for _ in range(trials):
        chosen: dict[str, Scalar] = {
            "enable_batching": True, "max_batch_size": draws.randint(1, 1024),
            "batch_timeout_micros": draws.randint(0, 100_000),
            "num_batch_threads": draws.randint(1, 64),
        }
        outcome = measured(chosen, draws)
        metrics = outcome.metrics()
        storage.create_new_trial(study_id, optuna.trial.create_trial(
            params=chosen, distributions={n: distribution(SPACE.parameter(n)) for n in chosen},
            values=[metrics[o.name] for o in SPACE.objectives],
            user_attrs={"notes": {}, **attributes_of(outcome)},
            constraints=SPACE.violations(metrics),
        ))


def measured(chosen: dict[str, Scalar], draws: random.Random) -> Measurement:
    """As long a record as a trial of ten seconds leaves."""
    p99_ms = 1000 / float(chosen["max_batch_size"]) + draws.random()
    timeline = tuple(
        {"second": float(s), "requests": 100.0, "errors": 0.0, "latency_p50_ms": p99_ms / 2,
         "latency_max_ms": p99_ms} for s in range(10)
    )
    stage = StageResult(
        valid=True, reason=None, message="", pattern="poisson", target_rate_rps=100.0, warmup_s=1.0,
        window_s=10.0, requests=1000, errors={}, throughput_rps=100.0, latency_p50_ms=p99_ms / 2,
        latency_p95_ms=p99_ms * 0.9, latency_p99_ms=p99_ms, latency_mean_ms=p99_ms / 2,
        latency_max_ms=p99_ms, latency_p99_interval_ms=(p99_ms * 0.9, p99_ms * 1.1),
        latency_p50_interval_ms=(p99_ms * 0.4, p99_ms * 0.6), precise=True, client_lag_p99_ms=0.1,
        client_cpu_s=0.1, seed=0, timeline=timeline, details={"of": "x" * 1500},
    )
    energy = EnergyReading("fake", "estimate", ("cpu",), 10.0, 5.0 * float(chosen["num_batch_threads"]))
    return Measurement(stage, energy, {"command_line": ["x" * 500], "files": "x" * 500})


class Instant:
    """An evaluator that costs nothing, so that only the study's own work is timed."""

    def __init__(self) -> None:
        self.ended_s: list[float] = [time.monotonic()]

    def evaluate(
        self, configuration: Any, levels: Sequence[Any], numbers: Sequence[int]
    ) -> list[Measurement]:
        self.ended_s.append(time.monotonic())
        full = {"max_batch_size": 1, "batch_timeout_micros": 0, **configuration}
        return [measured(full, random.Random(0)) for _ in levels]

    def attributes(self) -> dict[str, Any]:
        return {"seed": 0}


def ask_and_tell(url: str, sampler: str, asks: int, trials: int) -> tuple[float, list[float]]:
    """Seconds of the first round, which reads every trial, and of each later one."""
    proposer = propose.make(sampler, SPACE, seed=0, budget=trials + asks)
    kept = Store.create(url, "many", SPACE, {"model": "m"})
    instant = Instant()
    study.run(SPACE, [study.Arm({}, kept, proposer)], instant, n_trials=trials + asks + 1)
    spans = [after - before for before, after in zip(instant.ended_s, instant.ended_s[1:])]
    return spans[0], spans[1:]


if __name__ == "__main__":
    sys.exit(main())
