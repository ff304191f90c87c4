"""``tuner load``: one load stage against any TensorFlow Serving."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuner import workloads
from tuner.cli import _numbers, _quiet
from tuner.errors import ModelError, UnavailableError, UsageError
from tuner.load import Neighbours, ask, listening
from tuner.load.arrivals import PATTERNS
from tuner.load.base import StagePlan
from tuner.load.levels import LEVELS, calibrate, rate_for
from tuner.load.stage import run_stage
from tuner.measurement import StageResult, to_json
from tuner.models.record import ModelRecord, TensorSpec
from tuner.rows import files_of

_PERCENTILE_UNKNOWN = (
    "requests that failed or were never answered are slower than all others: a percentile among "
    "them has no value"
)
HELP = "drive a running model server and measure its latency"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    plan = StagePlan("", (), Path())
    seconds, count = _numbers.seconds, _numbers.positive_int

    add = parser.add_argument
    add("--target", required=True, metavar="HOST:PORT", help="the server; gRPC also unix:PATH")
    add("--model", required=True, action="append", metavar="NAME",
        help="model name; given several times, requests go to the names in turn")
    add("--signature", default=plan.signature, metavar="NAME", help="(%(default)s)")
    add("--protocol", choices=("grpc", "rest"), default=plan.protocol, help="(%(default)s)")
    add("--requests", required=True, metavar="FILE.npz|DIR|random",
        help="one array per input of the signature, rows along the first axis; or a folder of "
        "images, or random numbers, of the shape that the server says it takes")
    add("--rows", type=count, default=1, metavar="N", help="rows in each request (%(default)s)")
    add("--popularity", default=plan.popularity, metavar="LAW",
        help="each_once, or zipf:S for popularity ~ rank^-S (%(default)s)")

    add = parser.add_argument_group("load").add_argument
    add("--pattern", choices=PATTERNS, default=plan.pattern, help="(%(default)s)")
    add("--rate", metavar="R|light|medium|high",
        help="mean requests/s; or 30, 60, 90 %% of the capacity that a closed loop finds first. "
        "No default: every pattern but closed and trace needs it; a trace's most typical part is "
        "stretched to it")
    add("--clients", type=count, metavar="N",
        help="concurrent clients of a closed loop (1; 8 when it finds the capacity)")
    add("--trace", type=Path, metavar="FILE.csv",
        help="timestamps, first column: seconds, date and time, or an epoch in ms, us or ns")
    add("--burst-on", type=seconds, default=plan.burst_on_s, metavar="S", help="(%(default)g)")
    add("--burst-off", type=seconds, default=plan.burst_off_s, metavar="S", help="(%(default)g)")
    add("--burst-off-share", type=_numbers.share, default=plan.burst_off_share, metavar="X",
        help="rate between bursts as a share of the rate in them (%(default)g)")
    add("--ramp-from", type=_numbers.any_rate, metavar="R", help="first rate of ramp, staircase (0.2 x rate)")
    add("--ramp-to", type=_numbers.any_rate, metavar="R", help="last rate of ramp, staircase (1.8 x rate)")
    add("--steps", type=count, default=plan.ramp_steps, metavar="N",
        help="of a staircase (%(default)s)")
    add("--processes", type=count, default=1, metavar="N",
        help="load generators that share the arrivals (%(default)s)")
    add("--connections", type=count, default=1, metavar="N",
        help="gRPC connections of each process, used in turn (%(default)s)")
    add("--seed", type=_numbers.seed, default=0, metavar="N", help="of arrivals and requests (%(default)s)")

    add = parser.add_argument_group("how long").add_argument
    add("--duration", type=_numbers.duration_s, metavar="S",
        help="sets both bounds of the measured window")
    add("--min-duration", type=_numbers.duration_s, metavar="S", help=f"({plan.min_duration_s:g})")
    add("--max-duration", type=_numbers.duration_s, metavar="S", help=f"({plan.max_duration_s:g})")
    add("--max-warmup", type=_numbers.pause_s, default=plan.max_warmup_s, metavar="S", help="(%(default)g)")
    add("--precision", type=_numbers.precision, default=plan.precision, metavar="X",
        help="stop once the p99's 95 %% interval is this narrow: half-width / p99 (%(default)g)")
    add("--max-error-rate", type=_numbers.share, default=plan.max_error_rate, metavar="X",
        help="(%(default)g)")
    add("--request-timeout", type=seconds, default=plan.request_timeout_s, metavar="S",
        help="(%(default)g)")

    _quiet.add_argument(parser)
    add = parser.add_argument_group("output").add_argument
    add("--samples", type=Path, metavar="FILE.npz", help="keep every request")
    add("--json", action="store_true", help="print the whole record as JSON")


def run(args: argparse.Namespace) -> int:
    plan = plan_from(args)
    plan = replace(plan, requests_file=requests_file(args))
    # Once: it looks at every open file of the machine, which takes too long at a window's ends.
    server_pids = listening.server_pids(args.target)
    _quiet.before_first(args.wait_for_quiet, lambda: server_pids)
    capacity = None
    if args.rate in LEVELS:
        capacity = calibrate(plan, **({"clients": args.clients} if args.clients else {}))
        plan = replace(plan, rate_rps=rate_for(args.rate, capacity))
    beside = Neighbours(lambda: server_pids)
    result = beside.judged(run_stage(plan, beside))
    if not result.details.get("connected"):
        raise UnavailableError(result.message)
    print(
        json.dumps(as_json(result, capacity), indent=2) if args.json else as_text(result, capacity)
    )
    return 0


def plan_from(args: argparse.Namespace) -> StagePlan:
    """The stage that the flags ask for; a level's rate is filled in later.

    Raises:
        UsageError: flags that contradict each other.
    """
    if args.duration is not None and (args.min_duration or args.max_duration):
        raise UsageError("--duration sets both bounds; leave out --min-duration and --max-duration")
    if args.pattern == "closed" and args.rate is not None:
        raise UsageError("a closed loop has no rate; leave out --rate, or choose an open pattern")
    defaults = StagePlan("", (), Path())
    low = args.duration or args.min_duration or defaults.min_duration_s
    high = args.duration or args.max_duration or max(low, defaults.max_duration_s)
    if args.duration is None and args.min_duration is None:
        low = min(low, high)
    has_rate = args.rate is not None and args.rate not in LEVELS
    return StagePlan(
        address=args.target,
        model_names=tuple(args.model),
        requests_file=Path(args.requests),
        protocol=args.protocol,
        signature=args.signature,
        pattern=args.pattern,
        rate_rps=rate_for(args.rate, None) if has_rate else None,
        clients=args.clients or 1,
        trace_file=args.trace,
        burst_on_s=args.burst_on,
        burst_off_s=args.burst_off,
        burst_off_share=args.burst_off_share,
        ramp_from_rps=args.ramp_from,
        ramp_to_rps=args.ramp_to,
        ramp_steps=args.steps,
        rows_per_request=args.rows,
        popularity=args.popularity,
        min_duration_s=low,
        max_duration_s=high,
        max_warmup_s=args.max_warmup,
        precision=args.precision,
        max_error_rate=args.max_error_rate,
        request_timeout_s=args.request_timeout,
        processes=args.processes,
        connections=args.connections,
        seed=args.seed,
        samples_file=args.samples,
    )


def requests_file(args: argparse.Namespace) -> Path:
    """The requests file; made to the server's signature for a folder of images or ``random``.

    Raises:
        UnavailableError: the server does not say what the model takes.
        ModelError: no requests of that kind fit the signature.
    """
    source = args.requests
    if source != "random" and not (Path(source).is_dir() and not files_of(Path(source))):
        return Path(source)
    found = ask.signatures(args.target, args.model[0], args.protocol)
    if args.signature not in found:
        raise ModelError(
            f"the model {args.model[0]!r} has no signature {args.signature!r}; "
            f"it has: {', '.join(sorted(found))}"
        )
    inputs = {
        name: TensorSpec(each.dtype, each.shape)
        for name, each in found[args.signature].items()
    }
    model = ModelRecord(
        name=args.model[0], path=Path(), version=0, weights="", checksum="", inputs=inputs,
        outputs={},
    )
    return workloads.requests_file(model, source=source, seed=args.seed)


def as_json(result: StageResult, capacity_rps: float | None) -> dict[str, Any]:
    """The record under the names that users of ``--json`` rely on."""
    return {
        "valid": result.valid,
        "reason": result.reason,
        "message": result.message,
        "latency_ms": {
            "p50": result.latency_p50_ms,
            "p95": result.latency_p95_ms,
            "p99": result.latency_p99_ms,
            "mean": result.latency_mean_ms,
            "max": result.latency_max_ms,
        },
        "interval_ms": {
            "p50": to_json(result.latency_p50_interval_ms),
            "p95": to_json(result.latency_p95_interval_ms),
            "p99": to_json(result.latency_p99_interval_ms),
        },
        "disturbed": result.details.get("disturbed"),
        "precise": result.precise,
        "throughput_rps": result.throughput_rps,
        "requests": result.requests,
        "errors": dict(result.errors),
        "client_lag_ms": {"p99": result.client_lag_p99_ms},
        "client_cpu_s": result.client_cpu_s,
        "pattern": result.pattern,
        "target_rate_rps": result.target_rate_rps,
        "capacity_rps": capacity_rps,
        "warmup_s": result.warmup_s,
        "window_s": result.window_s,
        "rows_per_request": result.rows_per_request,
        "seed": result.seed,
        "samples_file": result.samples_file,
        "timeline": to_json(result.timeline),
        "details": to_json(result.details),
    }


def as_text(result: StageResult, capacity_rps: float | None) -> str:
    """The record for a person."""
    lines = []
    if capacity_rps is not None:
        lines.append(f"capacity    {capacity_rps:.1f} requests/s in a closed loop")
    if not result.valid:
        lines.append(f"invalid     {result.reason}: {result.message}")
    if result.throughput_rps is not None:
        named = {"p50": result.latency_p50_ms, "p95": result.latency_p95_ms,
                 "p99": result.latency_p99_ms, "max": result.latency_max_ms}
        lines.append("latency     " + ", ".join(
            f"{name} unknown" if value is None else f"{name} {value:.2f} ms"
            for name, value in named.items()
        ))
        if result.latency_p99_ms is None:
            lines.append(f"            {_PERCENTILE_UNKNOWN}")
    if result.latency_p99_interval_ms is not None:
        low, high = result.latency_p99_interval_ms
        if high is None:
            lines.append(f"p99 95 %    at least {low:.2f} ms (too few requests for an upper bound)")
        else:
            state = "as precise as asked" if result.precise else "wider than asked"
            lines.append(f"p99 95 %    {low:.2f} to {high:.2f} ms ({state})")
    if result.throughput_rps is not None:
        lines.append(f"throughput  {result.throughput_rps:.1f} requests/s")
    if trace := result.details.get("trace"):
        lines.append(f"trace       {_played(trace)}")
        lines += [f"            {trace['note']}"] if trace["note"] else []
    errors = ", ".join(f"{name} {count}" for name, count in result.errors.items()) or "none"
    where = f"{result.requests} in {result.window_s:.1f} s"
    if not result.window_s:
        where = f"{result.details.get('warmup_requests', 0)} before the measured window"
    lines.append(f"requests    {where}, errors: {errors}")
    if drifted := result.details.get("drift"):
        lines.append(f"drift       {drifted}")
    if result.details.get("disturbed") is not None:
        lines.append(f"disturbed   {result.details['disturbed']}: not the server's numbers alone")
    elif result.details.get("machine_window", {}).get("others", 0.0) is None:
        lines.append("other work  untold: the server's processes cannot be seen from here")
    if result.client_lag_p99_ms is not None:
        lines.append(f"client lag  p99 {result.client_lag_p99_ms:.2f} ms")
    return "\n".join(lines)


def _played(trace: dict[str, Any]) -> str:
    """Which part of a trace was played, for a person."""
    pace = "as recorded" if trace["pace"] == 1.0 else f"at {trace['pace']:.3g} times its pace"
    at_once = f", up to {trace['most_at_once']} at once" if trace["most_at_once"] > 1 else ""
    return (
        f"its seconds {trace['from_s']:.6g} to {trace['to_s']:.6g} of {trace['whole_s']:.6g} "
        f"({trace['arrivals']} arrivals, {trace['share']:.2g} of all), {pace}{at_once}"
    )
