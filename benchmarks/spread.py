"""How far the p99 and the energy of one configuration spread over repeats, and what a trial costs.

Measures the default configuration of a model again and again, at default settings, for light,
medium and high load, each time on a server of its own. For each level it prints the coefficient of
variation over the repeats and where a trial's time goes outside its load stage. Wants an idle
machine, but not for long: every run measures for ``--seconds``, adds its repeats to the results
file, and goes on where the last run stopped.

    python benchmarks/spread.py [--model mobilenet_v2] [--results FILE.json] [--seconds 150]
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
from tuner.measurement import Measurement, to_json

LOADS = ("light", "medium", "high")
LONGEST_TRIAL_S = 30.0
"""No repeat begins with less time left than this."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="batching")
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=150.0, help="of this run")
    parser.add_argument("--results", type=Path, default=Path(tempfile.gettempdir()) / "spread.json")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    end = time.monotonic() + args.seconds
    kept = json.loads(args.results.read_text()) if args.results.exists() else {}
    kept.setdefault("facts", {})
    kept.setdefault("repeats", [])
    plan = [load for _ in range(args.repeats) for load in LOADS][len(kept["repeats"]) :]
    if plan:
        tuned = space.load(args.space)
        tuned = dataclasses.replace(
            tuned, settings=dataclasses.replace(tuned.settings, model=args.model)
        )
        with tempfile.TemporaryDirectory() as folder, serving.open(
            tuned, serving.Options(artifacts=Path(folder)), _note
        ) as evaluator:
            kept["facts"] = dict(evaluator.calibrate(kept["facts"], _note))
            for load in plan:
                if end - time.monotonic() < LONGEST_TRIAL_S:
                    break
                kept["repeats"].append(repeat(evaluator, load, len(kept["repeats"])))
                args.results.write_text(json.dumps(kept, indent=2, default=to_json))
    found = [spread(load, kept["repeats"]) for load in LOADS]
    print(json.dumps(found, indent=2) if args.json else tabulate(found, headers="keys"))
    _note(f"{len(kept['repeats'])} of {args.repeats * len(LOADS)} repeats are in {args.results}")
    return 0


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def repeat(evaluator: Any, load: str, number: int) -> dict[str, Any]:
    """One trial of the default configuration, from deploying its server to ending it."""
    begun = time.monotonic()
    (outcome,) = evaluator.evaluate({}, [{"load": load}], [number])
    ended = time.monotonic()
    evaluator.end_server()
    entry: dict[str, Any] = {
        "load": load, "trial_s": time.monotonic() - begun, "end_server_s": time.monotonic() - ended,
    }  # fmt: skip
    if not isinstance(outcome, Measurement):
        return entry | {"failed": outcome.reason, "message": outcome.message}
    stage, metrics = outcome.stage, outcome.metrics()
    assert stage.latency_p99_ms is not None
    low, high = stage.latency_p99_interval_ms or (float("nan"), float("nan"))
    return entry | {
        "p50_ms": metrics["latency_p50_ms"],
        "p99_ms": metrics["latency_p99_ms"],
        "half_width": (high - low) / 2 / stage.latency_p99_ms,
        "energy_j": metrics["energy_per_request_j"],
        "warmup_s": stage.warmup_s,
        "window_s": stage.window_s,
        "disturbed": stage.details.get("disturbed_before"),
        "requests": stage.requests,
    }


def spread(load: str, repeats: list[dict[str, Any]]) -> dict[str, Any]:
    """What the repeats of one level say together."""
    mine = [entry for entry in repeats if entry["load"] == load]
    good = [entry for entry in mine if "failed" not in entry]

    def median(*names: str) -> float | None:
        values = [sum(entry[name] for name in names) for entry in good]
        return statistics.median(values) if values else None

    def variation(name: str) -> float | None:
        values = [entry[name] for entry in good]
        if len(values) < 2 or None in values:
            return None
        return statistics.stdev(values) / statistics.mean(values)

    outside = [1 - (e["warmup_s"] + e["window_s"]) / e["trial_s"] for e in good]
    return {
        "load": load,
        "measured": len(good),
        "failed": ", ".join(entry["failed"] for entry in mine if "failed" in entry) or "-",
        "p50 ms": median("p50_ms"),
        "p99 ms": median("p99_ms"),
        "p50 CV": variation("p50_ms"),
        "p99 CV": variation("p99_ms"),
        "95 % half-width": median("half_width"),
        "energy CV": variation("energy_j"),
        "trial s": median("trial_s"),
        "stage s": median("warmup_s", "window_s"),
        "outside the stage": statistics.median(outside) if outside else None,
    }


if __name__ == "__main__":
    sys.exit(main())
