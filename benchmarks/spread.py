"""How far the p99 and the energy of one configuration spread over repeats, and what a trial costs.

Measures the default configuration of a model again and again, at default settings, for light,
medium and high load, and prints for each level the coefficient of variation over the repeats and
the share of a trial's time that lies outside its load stage. Wants an idle machine.

    python benchmarks/spread.py [--model mobilenet_v2] [--repeats 10] [--json]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tabulate import tabulate

from objectives import serving
from tuner import space
from tuner.measurement import Measurement

LOADS = ("light", "medium", "high")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="batching")
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    tuned = space.load(args.space)
    settings = dataclasses.replace(tuned.settings, model=args.model, max_duration_s=10.0)
    tuned = dataclasses.replace(tuned, settings=settings)
    with tempfile.TemporaryDirectory() as folder:
        options = serving.Options(artifacts=Path(folder))
        with serving.open(tuned, options, lambda text: print(text, file=sys.stderr)) as evaluator:
            evaluator.calibrate({}, lambda text: print(text, file=sys.stderr))
            found = [spread(evaluator, load, args.repeats) for load in LOADS]
    print(json.dumps(found, indent=2) if args.json else tabulate(found, headers="keys"))
    return 0


def spread(evaluator: Any, load: str, repeats: int) -> dict[str, Any]:
    """Repeats of the default configuration at one load level, each on a server of its own."""
    p99_ms, energy_j, widths, outside, reasons = [], [], [], [], []
    for number in range(repeats):
        begun = time.monotonic()
        (outcome,) = evaluator.evaluate({}, [{"load": load}], [number])
        evaluator.end_server()
        whole_s = time.monotonic() - begun
        if not isinstance(outcome, Measurement):
            reasons.append(outcome.reason)
            continue
        stage, metrics = outcome.stage, outcome.metrics()
        p99_ms.append(metrics["latency_p99_ms"])
        energy_j.append(metrics["energy_per_request_j"])
        low, high = stage.latency_p99_interval_ms or (float("nan"), float("nan"))
        widths.append((high - low) / 2 / metrics["latency_p99_ms"])
        outside.append(1 - (stage.warmup_s + stage.window_s) / whole_s)
    return {
        "load": load,
        "measured": len(p99_ms),
        "failed": ", ".join(reasons) or "-",
        "p99 ms, median": statistics.median(p99_ms),
        "p99 CV": statistics.stdev(p99_ms) / statistics.mean(p99_ms),
        "95 % half-width, median": statistics.median(widths),
        "energy CV": statistics.stdev(energy_j) / statistics.mean(energy_j),
        "outside the stage": statistics.median(outside),
    }


if __name__ == "__main__":
    sys.exit(main())
