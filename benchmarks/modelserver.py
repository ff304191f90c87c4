"""How fast the embedded server is, beside what the same model does in process.

Server on one core, client on another, one thread inside and between operations, closed loop, one
row a request. In process each call has another row too, so that both read fresh memory: ``python benchmarks/modelserver.py [--json] [--seconds 4] [--models DIR]``. With
``--models`` the two SavedModels are kept there and found again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BATCHING = """max_batch_size { value: 8 }
batch_timeout_micros { value: 2000 }
max_enqueued_batches { value: 100 }
num_batch_threads { value: 1 }
"""
ROWS = (
    # model, clients, batches
    ("mobilenet_v2", 8, False),
    ("mobilenet_v2", 8, True),
    ("cnn_1d", 8, False),
    ("cnn_1d", 8, True),
    ("cnn_1d", 1, False),
)
BASELINE = "DirectSession callable"


def _run(core: int, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "CUDA_VISIBLE_DEVICES": "-1"}
    pinned = ["taskset", "-c", str(core), sys.executable, *command]
    done = subprocess.run(
        pinned, check=False, capture_output=True, text=True, env=environment, timeout=600
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def _helper(core: int, script: str, *arguments: str) -> Any:
    out = _run(core, str(HERE / script), *arguments)
    return json.loads(out.splitlines()[-1]) if out.strip() else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _server(core: int, folder: Path, extra: Sequence[str], log: Path) -> Iterator[tuple[int, int]]:
    port = _free_port()
    command = [
        "taskset",
        "-c",
        str(core),
        sys.executable,
        "-m",
        "tuner.modelserver",
        f"--port={port}",
        f"--model_base_path={folder}",
        "--max_num_load_retries=0",
        "--tensorflow_intra_op_parallelism=1",
        "--tensorflow_inter_op_parallelism=1",
        "--grpc_max_threads=16",
        *extra,
    ]
    with log.open("ab") as stream:
        server = subprocess.Popen(command, stderr=stream, cwd=HERE.parent)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server did not start:\n{log.read_text()}") from None
                time.sleep(0.05)
        yield port, server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _seconds_to_ready(folder: Path, log: Path, times: int = 3) -> list[float]:
    """From the order to a warm fork server until the gRPC port opens, which means ready."""
    found = []
    with log.open("ab") as stream:
        fork_server = subprocess.Popen(
            [sys.executable, "-m", "tuner.modelserver.forkserver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            cwd=HERE.parent,
        )
    assert fork_server.stdin and fork_server.stdout
    try:
        for number in range(times + 1):  # the first one waits for the imports
            port = _free_port()
            argv = [f"--port={port}", f"--model_base_path={folder}", "--max_num_load_retries=0"]
            start = time.monotonic()
            order = {"id": number, "argv": argv, "log": str(log)}
            fork_server.stdin.write(json.dumps(order).encode() + b"\n")
            fork_server.stdin.flush()
            pid = json.loads(fork_server.stdout.readline())["pid"]
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if time.monotonic() - start > 120:
                        raise RuntimeError(f"not ready:\n{log.read_text()}") from None
                    time.sleep(0.005)
            found.append(time.monotonic() - start)
            order = {"kill": pid, "signal": signal.SIGTERM}
            fork_server.stdin.write(json.dumps(order).encode() + b"\n")
            fork_server.stdin.flush()
            fork_server.stdout.readline()
    finally:
        fork_server.stdin.close()
        fork_server.wait(20)
    return found[1:]


def _in_process(core: int, name: str, folder: Path, seconds: float, *more: str) -> Any:
    arguments = ("measure", name, str(folder), f"--seconds={seconds}", *more)
    return _helper(core, "modelserver_models.py", *arguments)


def benchmark(
    models: Path, seconds: float, cores: tuple[int, int], rows: Sequence[tuple[str, int, bool]]
) -> dict[str, Any]:
    """Everything measured: in process, and one entry for each of ``rows``."""
    result: dict[str, Any] = {"in_process": {}, "served": []}
    batching = models / "batching.txt"
    batching.write_text(BATCHING)
    for name in dict.fromkeys(name for name, _, _ in rows):
        folder = models / name
        if not (folder / "request.pb").is_file():
            _helper(cores[1], "modelserver_models.py", "build", name, str(folder))
        result["in_process"][name] = _in_process(
            cores[0], name, folder, seconds / 4, "--all-executors"
        )
        for one, clients, batches in rows:
            if one != name:
                continue
            # A shared machine changes its speed: the baseline is measured on both sides of a row.
            before = _in_process(cores[0], name, folder, seconds / 4)
            flags = ["--enable_batching", f"--batching_parameters_file={batching}"]
            log = models / "server.log"
            with _server(cores[0], folder, flags if batches else [], log) as (port, pid):
                served = _helper(
                    cores[1],
                    "modelserver_client.py",
                    f"--port={port}",
                    f"--body={folder / 'request.pb'}",
                    f"--concurrency={clients}",
                    f"--seconds={seconds}",
                    f"--server-pid={pid}",
                )
            after = _in_process(cores[0], name, folder, seconds / 4)
            label = f"{BASELINE}, batches of {8 if batches else 1}"
            in_process = 2 / (1 / before[label] + 1 / after[label])
            result["served"].append(
                {
                    "model": name,
                    "clients": clients,
                    "batches": batches,
                    "in_process_rows_per_s": in_process,
                    **served,
                    "share_of_in_process": served["requests_per_s"] / in_process,
                    "cpu_ms_above_in_process": served["server_cpu_ms_per_request"]
                    - 1e3 / in_process,
                    "client_limited": served["client_busy"] > 0.9 > served["server_busy"],
                }
            )
    if any(name == "mobilenet_v2" for name, _, _ in rows):
        log = models / "server.log"
        result["mobilenet_v2_ready_s"] = _seconds_to_ready(models / "mobilenet_v2", log)
    return result


def table(result: dict[str, Any]) -> str:
    """The result for a person."""
    lines = ["In process, rows/s on one core:"]
    for name, rates in result["in_process"].items():
        for label, rate in rates.items():
            lines.append(f"  {name:14}{label:40}{rate:10.0f}")
    lines.append("Served (in-process measured before and after each row):")
    head = "model clients batches in-process served share CPU-ms above-ms p50-ms p99-ms client-busy"
    lines.append(
        "  {:14}{:>8}{:>9}{:>12}{:>9}{:>7}{:>9}{:>10}{:>9}{:>9}{:>13}".format(*head.split())
    )
    for row in result["served"]:
        note = "  the client was the limit" if row["client_limited"] else ""
        note += f"  {row['failed']} failed" if row["failed"] else ""
        lines.append(
            f"  {row['model']:14}{row['clients']:8}{'8, 2 ms' if row['batches'] else 'no':>9}"
            f"{row['in_process_rows_per_s']:12.0f}{row['requests_per_s']:9.0f}"
            f"{row['share_of_in_process']:7.2f}{row['server_cpu_ms_per_request']:9.3f}"
            f"{row['cpu_ms_above_in_process']:10.3f}{row['latency_p50_ms']:9.2f}"
            f"{row['latency_p99_ms']:9.2f}{row['client_busy']:13.2f}{note}"
        )
    if "mobilenet_v2_ready_s" in result:
        ready = ", ".join(f"{value:.2f}" for value in result["mobilenet_v2_ready_s"])
        lines.append(f"A fresh server for MobileNetV2, from order to ready, s: {ready}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each row")
    parser.add_argument("--models", type=Path, help="keep the SavedModels here")
    parser.add_argument("--model", choices=sorted({name for name, _, _ in ROWS}), help="only this")
    args = parser.parse_args()
    rows = [row for row in ROWS if args.model in (None, row[0])]
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.exit(2, "two cores are needed: one for the server, one for the client\n")
    with tempfile.TemporaryDirectory() as scratch:
        models = args.models or Path(scratch)
        models.mkdir(parents=True, exist_ok=True)
        result = benchmark(models, args.seconds, (cores[0], cores[1]), rows)
    print(json.dumps(result, indent=1) if args.json else table(result))


if __name__ == "__main__":
    main()
