"""The null test: what the load generator itself adds to a latency, and how fast it can send.

    python benchmarks/load_overhead.py [--json]

A scripted server in a process of its own answers at once, so all that is measured is the load
generator, the loopback device and that server. Then client and server are pinned to one core each,
to find the most that one process sends on one core without being late. The last rows share rates
beyond that among processes: "KS p" is the Kolmogorov-Smirnov test against a Poisson process, whose
times are uniform over the window, of all send times together and of the times when they were due.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from tuner.load import ScriptedServer, StagePlan, run_stage
from tuner.measurement import StageResult

RATES_RPS = (100, 1000, 5000)
STEPS_RPS = (5000, 7000, 10_000, 12_000, 14_000, 16_000, 18_000, 20_000, 24_000)
SHARED_RPS = ((2, 6000), (2, 12_000), (2, 16_000))
"""Processes and the rate that they share."""
COLUMNS = (
    "case", "asked rps", "got rps", "p50 ms", "p99 ms", "max ms", "lag p99 ms", "CPU us/request",
    "KS p", "valid",
)  # fmt: skip


def row(case: str, result: StageResult) -> dict[str, Any]:
    """One line of the table."""
    cpu = None
    if result.client_cpu_s is not None and result.requests:
        cpu = result.client_cpu_s / result.requests * 1e6
    values = (
        case,
        result.target_rate_rps,
        result.throughput_rps,
        result.latency_p50_ms,
        result.latency_p99_ms,
        result.latency_max_ms,
        result.client_lag_p99_ms,
        cpu,
        poisson_p(result),
        "yes" if result.valid else result.reason,
    )
    return dict(zip(COLUMNS, values, strict=True))


def poisson_p(result: StageResult) -> str | None:
    """How probable times as uneven as these are for a Poisson process: sent, and due."""
    if result.samples_file is None:
        return None
    kept = np.load(result.samples_file)
    pair = [
        stats.kstest(kept[name] / result.window_s, "uniform").pvalue for name in ("sent_s", "due_s")
    ]
    return ", ".join(f"{p:.3f}" for p in pair)


def measure(requests: Path, seconds: float) -> list[dict[str, Any]]:
    """All rows; about twenty-five stages of ``seconds``."""
    rows = []
    cores = sorted(os.sched_getaffinity(0))
    with ScriptedServer() as server:

        def stage(protocol: str = "grpc", **fields: Any) -> StageResult:
            address = server.grpc_address if protocol == "grpc" else server.rest_address
            plan = StagePlan(
                address, ("null",), requests, protocol=protocol,
                min_duration_s=seconds, max_duration_s=seconds, max_warmup_s=1.0, **fields,
            )  # fmt: skip
            return run_stage(plan)

        for protocol in ("grpc", "rest"):
            for rate in RATES_RPS if protocol == "grpc" else RATES_RPS[:2]:
                rows.append(row(protocol, stage(protocol, rate_rps=float(rate))))
        if len(cores) > 1:
            os.sched_setaffinity(server.pid, {cores[0]})
            pinned = {"client_cores": [cores[1]]}
            best = None
            for rate in STEPS_RPS:
                result = stage(rate_rps=float(rate), details=pinned)
                if not result.valid:
                    break
                best = result
            if best is not None:
                rows.append(row("grpc, one core, most in time", best))
            closed = stage(pattern="closed", clients=32, details=pinned)
            rows.append(row("grpc, one core, closed loop of 32", closed))
            os.sched_setaffinity(server.pid, set(cores))
        for processes, rate in SHARED_RPS:
            shared = stage(
                rate_rps=float(rate), processes=processes, samples_file=requests.parent / "samples"
            )
            rows.append(row(f"grpc, {processes} processes", shared))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text."""
    cells = [list(COLUMNS)] + [[_text(line[name]) for name in COLUMNS] for line in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                  for i, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    )  # fmt: skip


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 50 else f"{value:.2f}"
    return str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each stage")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        requests = Path(folder) / "requests.npz"
        np.savez(requests, x=np.random.default_rng(0).random((64, 50), dtype=np.float32))
        rows = measure(requests, args.seconds)
    print(json.dumps(rows, indent=2) if args.json else table(rows))


if __name__ == "__main__":
    main()
