"""``tuner measure``: a finalist of a study deployed again and measured longer."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import sys
from typing import Any

from tuner import interrupts
from tuner.cli import _evaluator, _format, _numbers, _quiet
from tuner.errors import TrialFailure, UsageError
from tuner.measurement import (
    UNFINISHED,
    Failure,
    Measurement,
    StageResult,
    energy_basis,
    to_json,
)

HELP = "measure one trial of a study again, longer and more precisely"
MIN_DURATION_S = 4.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("study", metavar="STUDY", help="a study's name, FILE.db or FILE.db:NAME")
    add("--trial", type=_numbers.index, required=True, metavar="N", help="the trial's number")
    add("--precision", type=_numbers.precision, default=0.05, metavar="SHARE",
        help="end once the p99's 95 %% interval is this narrow: half-width / p99 (%(default)s)")
    add("--max-duration", type=_numbers.duration_s, default=60.0, metavar="TIME",
        help="end then at the latest (60s)")
    add("--storage", metavar="URL", help="default: sqlite:///studies/<STUDY>.db")
    _evaluator.add_program_arguments(parser)
    _quiet.add_argument(parser)
    add("--json", action="store_true", help="print the record as JSON")


def run(args: argparse.Namespace) -> int:
    from tuner import machine, store
    from tuner.store.table import MEASURED_AGAIN

    study = store.open_study(args.study, args.storage)
    trial = _trial(study, args.trial)
    again = _evaluator.rebuild(study)
    _evaluator.refuse_unnamed_programs(study, again, vars(args))
    # What is quick to see is looked at before a model is built.
    _evaluator.refuse_other_environment(
        study, {"machine": machine.identity(machine.describe())}
    )
    settings = dataclasses.replace(
        again.space.settings, precision=args.precision, max_duration_s=args.max_duration,
        min_duration_s=min(MIN_DURATION_S, args.max_duration),
    )
    space = dataclasses.replace(again.space, settings=settings)
    artifacts = store.artifacts(study.url, study.name.split("@")[0]) / MEASURED_AGAIN
    folder = artifacts / f"{len(study.get(MEASURED_AGAIN) or ()):03d}"
    # A supervisor's SIGTERM ends it as Ctrl-C does: with nothing left running.
    with interrupts.deferred():
        with interrupts.allowed(), _evaluator.open_evaluator(
            space, again.options, folder, _note, args.wait_for_quiet
        ) as evaluator:
            _evaluator.refuse_other_environment(study, evaluator.environment)
            evaluator.calibrate(study.facts(), _note)
            limit = _format.seconds(args.max_duration)
            _note(f"measuring trial {trial.number} for at most {limit}")
            attributes = evaluator.attributes()
            (outcome,) = evaluator.evaluate(trial.configuration, [again.levels], [trial.number])
        # One that failed is kept too: it tells as much of the configuration as a failed trial.
        if isinstance(outcome, Measurement):
            attributes = {**attributes, "violations": space.violations(outcome.metrics())}
            entry = _entry(trial.number, outcome, args.precision, attributes)
        else:
            entry = _failed(trial.number, outcome, attributes)
        if not isinstance(outcome, Failure) or outcome.reason not in UNFINISHED:
            study.put(MEASURED_AGAIN, [*(study.get(MEASURED_AGAIN) or ()), entry])
        if isinstance(outcome, Failure):
            raise TrialFailure(outcome.reason, outcome.message, outcome.log_tail)
    print(json.dumps({"study": study.name, **entry}, indent=2) if args.json
          else _text(study, trial, entry))
    return 0


def _trial(study: Any, number: int) -> Any:
    """The trial of a number, a failed one too: it may have failed by chance."""
    for record in study.records():
        if record.number == number:
            return record
    raise UsageError(f"study {study.name!r} has no trial {number}")


def _note(text: str) -> None:
    print(f"{text} …", file=sys.stderr, flush=True)


def _failed(number: int, failure: Failure, attributes: Any) -> dict[str, Any]:
    seen = failure.partial.get("stage") or {}
    entry: dict[str, Any] = to_json({
        **_when(number), "metrics": {}, "reason": failure.reason, "message": failure.message,
        **{name: seen.get(name) for name in ("window_s", "requests", "errors", "target_rate_rps")},
        "disturbed": (seen.get("details") or {}).get("disturbed"), **attributes,
    })
    return entry


def _when(number: int) -> dict[str, Any]:
    return {
        "trial": number,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _entry(
    number: int, measured: Measurement, precision: float, attributes: Any
) -> dict[str, Any]:
    stage, energy = measured.stage, measured.energy
    entry: dict[str, Any] = to_json({
        **_when(number),
        "metrics": measured.metrics(),
        "intervals": measured.intervals(),
        "latency_p99_interval_ms": stage.latency_p99_interval_ms,
        "latency_p50_interval_ms": stage.latency_p50_interval_ms,
        "precision": precision,
        "precise": stage.precise,
        "p99_interval_bounded": _bounded(stage),
        "percentile_rule": stage.details.get("percentile_rule"),
        "disturbed": stage.details.get("disturbed"),
        "drift": stage.details.get("drift"),
        "window_s": stage.window_s,
        "requests": stage.requests,
        "errors": stage.errors,
        "target_rate_rps": stage.target_rate_rps,
        "energy_source": energy.source if energy else None,
        "energy_method": energy.method if energy else None,
        "energy_basis": energy_basis(energy) if energy else None,
        "samples_file": stage.samples_file,
        "batch_rows_mean": (measured.deployment.get("batches") or {}).get("rows_mean"),
        "memory_peak_mb": measured.deployment.get("memory_peak_mb"),
        **attributes,
    })
    return entry


def _bounded(stage: StageResult) -> bool:
    """Whether an upper bound of the p99 is known."""
    held = stage.latency_p99_interval_ms
    told = stage.details.get("p99_interval_bounded", True)
    return bool(held is None or (held[1] is not None and told))


def _text(study: Any, trial: Any, entry: dict[str, Any]) -> str:
    metrics = entry["metrics"]

    def shown(name: str) -> str:
        return _format.metric(name, metrics[name])

    latencies = ", ".join(f"{p} {shown(f'latency_{p}_ms')}" for p in ("p50", "p95", "p99"))
    lines = [
        f"trial {trial.number} of {study.name}: {_format.configuration(trial.configuration)}",
        f"latency     {latencies}",
    ]
    if entry["latency_p99_interval_ms"] is not None:
        state = "as precise as asked" if entry["precise"] else "wider than asked"
        if not entry["p99_interval_bounded"]:
            state += "; too few requests for an upper bound"
        lines.append(f"p99 95 %    {_interval(entry['latency_p99_interval_ms'])} ({state})")
    source = f" ({entry['energy_source']}, {entry['energy_method']})" if entry["energy_source"] else ""
    lines += [
        f"throughput  {shown('throughput_rps')}",
        f"energy      {shown('energy_per_request_j')} a request{source}",
        f"measured    {entry['requests']} requests in {entry['window_s']:.1f} s",
    ]
    if entry["drift"]:
        lines.append(f"drift       {entry['drift']}")
    if entry["disturbed"]:
        lines.append(f"disturbed   {entry['disturbed']}: these numbers are not the server's alone")
    if trial.metrics.get("latency_p99_ms") is not None:
        before = _format.metric("latency_p99_ms", trial.metrics["latency_p99_ms"])
        interval = trial.intervals.get("latency_p99_ms")
        lines.append(
            f"in study    p99 {before}" + (f", 95 % {_interval(interval)}" if interval else "")
        )
    return "\n".join([*lines, *_known(study, trial.number)])


def _known(study: Any, number: int) -> list[str]:
    """What is known of the configuration now, from all of its measurements, as everywhere."""
    from tuner.cli import pareto
    from tuner.cli._pareto_choice import chance
    from tuner.cli._pareto_notes import bounds, refuted_notes

    marked = pareto.front(study)
    (row,) = (row for _, row in marked.iterrows() if number in row["trials"])
    shown = list(dict.fromkeys([*marked.attrs["objectives"], "latency_p99_ms"]))
    told = ", ".join(f"{m} {_format.metric(m, row[m])}{bounds(row, m, shown)}" for m in shown)
    lines = [f"known now   {told} (of {int(row['measurements'])} measurement(s))"]
    for text, probability in zip(marked.attrs["limits"], row["limit_probability"]):
        lines.append(f"limit       {text} holds with {chance(row, text, probability)}")
    return lines + [line for line in refuted_notes(marked) if line.startswith(f"trial {row['number']} ")]


def _interval(bounds: Any) -> str:
    if bounds[1] is None:
        return f"at least {_format.metric('latency_p99_ms', bounds[0])}"
    return f"{_format.number(bounds[0])} to {_format.metric('latency_p99_ms', bounds[1])}"
