"""Does the embedded server order configurations as a real TensorFlow Serving does?

``python benchmarks/fidelity.py [--into DIR] [--passes 2] [--models A,B] [--report]`` measures the
34 configurations of ``fidelity/space.yaml`` on the embedded server, for each DNN in two passes, at
the share of its own capacity (8 closed-loop clients, gRPC, no batching) at which the real one was
loaded, and compares with what the real one gave (``fidelity/tensorflow_serving_2.20.0.csv``: which
was compiled against the libraries of PyPI's tensorflow 2.20.0, behind a stand-in for the gRPC
transport; two quiet cores). Wants an idle machine of two cores for 20 minutes; goes on where it
stopped. ``--report`` measures nothing.

The goal for each metric that the real server itself repeats (rank correlation of its two passes at
least 0.7 over what ran in both): at least 0.9 times that correlation, in the mean of the four pairs
of passes. A configuration that failed counts behind all others.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tuner.deploy.readiness import free_port
from tuner.models.store import resolve
from tuner.store import load_table

HERE = Path(__file__).parent / "fidelity"
KNOBS = [
    "enable_batching",
    "max_batch_size",
    "batch_timeout_micros",
    "num_batch_threads",
    "tensorflow_inter_op_parallelism",
    "protocol",
]
METRICS = ["latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "energy_per_request_j"]
SHARES = {"cnn1d": 1500 / 6224, "mobilenet_v2@64": 300 / 845}
"""The real server's load over its own capacity, both in requests/s."""
REPEATS, SHARE = 0.7, 0.9
BEST = 10


def capacity(model: str) -> float:
    """Requests/s that 8 closed-loop clients get from the embedded server as it is by default."""
    port = free_port()
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "tuner.modelserver", f"--port={port}", "--model_name=m"),
            f"--model_base_path={Path(resolve(model).path)}",
            *("--tensorflow_intra_op_parallelism=1", "--grpc_max_threads=512"),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.2)
        load = tuner(
            *("load", "--target", f"127.0.0.1:{port}", "--model", "m", "--requests", "random"),
            *("--pattern", "closed", "--clients", "8", "--duration", "6", "--json"),
        )
    finally:
        server.terminate()
        server.wait(20)
    return float(json.loads(load)["throughput_rps"])


def tuner(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tuner", *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode not in (0, 1):  # 1: no configuration kept the limits, or one failed
        raise SystemExit(f"tuner {' '.join(arguments)}: exit code {done.returncode}")
    return done.stdout


def study_of(model: str, number: int) -> str:
    return f"fidelity-{model.replace('@', '-')}-{number}"


def measure(model: str, number: int, into: Path) -> pd.DataFrame:
    """One pass over all configurations, or what is kept of it."""
    rates = into / "rates.json"
    known = json.loads(rates.read_text()) if rates.is_file() else {}
    if model not in known:
        known[model] = round(capacity(model) * SHARES[model], 1)
        rates.write_text(json.dumps(known))
    name, url = study_of(model, number), f"sqlite:///{into / 'fidelity.db'}"
    tuner(
        *("study", "--space", str(HERE / "space.yaml"), "--model", model, "--name", name),
        *("--storage", url, "--sampler", "grid", "--load", str(known[model]), "--quiet"),
    )
    return comparable(load_table(name, url))


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    """By configuration the metrics, infinite where it failed."""
    table = table.copy()
    failed = table["reason"].fillna("") != ""
    table.loc[failed, METRICS] = np.inf
    table[METRICS] = table[METRICS].astype(float).fillna(np.inf)
    for knob in KNOBS:
        table[knob] = [
            "" if pd.isna(value) else str(int(value)) if isinstance(value, float) else str(value)
            for value in table[knob]
        ]
    return table.set_index(KNOBS)[METRICS]


def real(model: str) -> dict[int, pd.DataFrame]:
    table = pd.read_csv(HERE / "tensorflow_serving_2.20.0.csv")
    table = table[table["model"] == model]
    return {number: comparable(rows) for number, rows in table.groupby("pass")}


def rank(one: pd.Series, other: pd.Series) -> float:
    both = pd.concat([one, other], axis=1, join="inner")
    return float(spearmanr(both.iloc[:, 0], both.iloc[:, 1]).statistic)


def repeated(one: pd.Series, other: pd.Series) -> float:
    """The rank correlation of the real server with itself, over what ran in both passes."""
    ran = np.isfinite(one) & np.isfinite(other.reindex(one.index))
    return rank(one[ran], other)


def best_cost(ours: pd.Series, theirs: pd.Series) -> float:
    """How much more the best configurations of ours cost on the real server than its own best."""
    picked = ours.reindex(theirs.index).nsmallest(BEST).index
    return float(theirs[picked].mean() / theirs.nsmallest(BEST).mean() - 1)


def report(model: str, passes: dict[int, pd.DataFrame]) -> None:
    truth = real(model)
    print(f"\n{model}: {len(next(iter(passes.values())))} configurations, both protocols")
    failed = [int(np.isinf(table["latency_p50_ms"]).sum()) for table in passes.values()]
    print(f"failed on the embedded server, by pass: {failed}")
    for metric in METRICS:
        itself = repeated(truth[1][metric], truth[2][metric])
        pairs = [rank(passes[a][metric], truth[b][metric]) for a, b in product(passes, truth)]
        ours = rank(*(table[metric] for table in list(passes.values())[:2]))
        goal = (
            f"goal {SHARE * itself:.2f}: {'met' if np.mean(pairs) >= SHARE * itself else 'NOT met'}"
            if itself >= REPEATS
            else "noise on the real server: no goal"
        )
        print(
            f"{metric:22} real with real {itself:5.2f}  embedded with embedded {ours:5.2f}  "
            f"embedded with real {np.mean(pairs):5.2f} ({', '.join(f'{p:.2f}' for p in pairs)})  "
            + goal
        )
    costs = [
        best_cost(passes[a]["latency_p99_ms"], truth[b]["latency_p99_ms"])
        for a, b in product(passes, truth)
    ]
    print(
        f"its {BEST} of the least p99 cost on the real one {np.mean(costs):+.0%} p99 over the real "
        f"one's own best ({', '.join(f'{cost:+.0%}' for cost in costs)})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--into", type=Path, default=Path(tempfile.gettempdir()) / "fidelity")
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--models", default=",".join(SHARES))
    parser.add_argument("--report", action="store_true", help="measure nothing")
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    names = options.models.split(",")
    found: dict[str, dict[int, pd.DataFrame]] = {name: {} for name in names}
    for number, name in product(range(1, options.passes + 1), names):
        if options.report:
            url = f"sqlite:///{options.into / 'fidelity.db'}"
            found[name][number] = comparable(load_table(study_of(name, number), url))
        else:
            found[name][number] = measure(name, number, options.into)
    for name, passes in found.items():
        report(name, passes)


if __name__ == "__main__":
    main()
