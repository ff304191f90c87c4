"""The null test: what the load generator itself adds to a latency, and how fast it can send.

    python benchmarks/load_overhead.py [--json]

A scripted server in a process of its own answers at once, so all that is measured is the load
generator, the loopback device and that server. The last rows pin client and server to one core
each and look for the most that one process sends on one core without being late.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tuner.load import ScriptedServer, StagePlan, run_stage
from tuner.measurement import StageResult

RATES_RPS = (100, 1000, 5000)
STEPS_RPS = (5000, 6000, 7000, 8000, 9000, 10_000, 12_000, 14_000)
COLUMNS = (
    "case", "asked rps", "got rps", "p50 ms", "p99 ms", "max ms", "lag p99 ms", "CPU us/request",
    "valid",
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
        "yes" if result.valid else result.reason,
    )
    return dict(zip(COLUMNS, values, strict=True))


def measure(requests: Path, seconds: float) -> list[dict[str, Any]]:
    """All rows; about twenty stages of ``seconds``."""
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
