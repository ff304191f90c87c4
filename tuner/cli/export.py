"""``tuner export``: a chosen trial as files that run it on a real TensorFlow Serving."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner import export
from tuner.cli import _format, _numbers, _pareto_choice, pareto
from tuner.cli._pareto_notes import former_rule_note
from tuner.errors import StudyError
from tuner.measurement import METRICS, interval_names

if TYPE_CHECKING:
    from tuner.store import TrialRecord

HELP = "a chosen trial as files to run it: flags, batching, compose, Kubernetes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help="a study's name, FILE.db or FILE.db:NAME")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--trial", type=_numbers.index, metavar="N",
                       help="the trial's number (default: what `tuner pareto` chooses)")
    which.add_argument("--knee", action="store_true", help="the knee of the Pareto set")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--force", action="store_true", help="replace an earlier export in DIR")
    parser.add_argument(
        "--image", default=export.IMAGE, metavar="NAME:TAG", help="image (default: %(default)s)"
    )
    parser.add_argument("--model", metavar="NAME|DIR", help="default: the study's model")
    parser.add_argument("--storage", metavar="URL", help="default: sqlite:///studies/<STUDY>.db")


def run(args: argparse.Namespace) -> int:
    from tuner import models, store
    from tuner.deploy.base import ModelToServe

    study = store.open_study(args.study, args.storage)
    marked = pareto.front(study)
    number = args.trial
    if number is None:
        number = _marked(study, marked, "knee" if args.knee else "choice")
    row = _known(study, marked, number)
    trial = next(r for r in study.records() if r.number == number)
    environment = study.environment
    settings = study.get("settings") or {}
    record = models.resolve(
        args.model or settings.get("model") or environment.get("model", ""),
        signature=settings.get("signature") or models.DEFAULT_SIGNATURE,
    )
    measured = environment.get("model_checksum")
    if args.model is None and measured not in (None, record.checksum):
        raise StudyError(
            f"model {record.name!r} is not the one that study {study.name!r} measured: its checksum "
            f"is {record.checksum}, not {measured}; --model {record.name} takes it all the same"
        )
    configuration = {**study.space_description.get("fixed", {}), **trial.configuration}
    others = [
        export.Measured(r.number, r.metrics, r.intervals) for r in study.records()
        if r.state == "complete" and r.number in row["trials"]
    ]
    held = _held(marked, row, number)
    about = export.About(
        study.name, held, others if len(others) + held.later > 1 else (), environment,
        _provenance(study, trial, row["trials"]), _cpus(trial),
    )
    for warning in held.warnings:
        print(f"warning: trial {number}: {warning}", file=sys.stderr)
    files = export.write(
        args.to, configuration, ModelToServe(record.name, Path(record.path)), about,
        image=args.image, force=args.force,
    )
    for file in files:
        print(file)
    return 0


def _held(marked: Any, row: Any, number: int) -> export.Measured:
    """What is known of the configuration from all of its measurements."""
    metrics = {m: pareto.plain(row[m]) for m in METRICS if m in marked.columns}
    intervals = {}
    for metric in metrics:
        low, high = (pareto.plain(row.get(name)) for name in interval_names(metric))
        if low is not None:
            intervals[metric] = (low, high)
    limits = [
        export.LimitKept(text, pareto.plain(chance), text in row["limit_unknown"])
        for text, chance in zip(marked.attrs["limits"], row["limit_probability"])
    ]
    return export.Measured(
        number, metrics, intervals, limits=limits, trials=row["trials"], later=int(row["again"]),
        later_s=pareto.plain(row["again_s"]), failed=int(row["failures"]),
        disturbed=row["disturbed_by"], warnings=_warnings(marked, row),
        notes=[note for note in former_rule_note(row["former_rule"])],
    )


def _warnings(marked: Any, row: Any) -> list[str]:
    """What speaks against running this configuration, in words."""
    from tuner.analysis.limits import KEPT, Limit

    told = []
    for text, chance in zip(marked.attrs["limits"], row["limit_probability"]):
        limit = Limit.parse(text)
        value = _format.metric(limit.metric, row[limit.metric])
        if not limit.keeps(row[limit.metric]):
            told.append(f"BEYOND THE LIMIT {text}: {value} was measured")
        elif not chance >= KEPT:
            told.append(f"NOT KNOWN TO KEEP {text}: {value} was measured, it holds with "
                        f"{_pareto_choice.chance(row, text, chance)}")
    if row["failures"]:
        every = int(row["repeats"] + row["again"] + row["failures"])
        told.append(f"{int(row['failures'])} of {every} of its measurements failed")
    if row["disturbed_by"]:
        told.append(f"{len(row['disturbed_by'])} of {int(row['measurements'])} of its measurements "
                    f"were disturbed by other work ({row['disturbed_by'][0]})")
    return told


def _provenance(study: Any, trial: TrialRecord, trials: Collection[int]) -> dict[str, Any]:
    """What says when and with what a trial was measured, and each later measurement of any of the
    configuration's trials."""
    from tuner.store.table import MEASURED_AGAIN

    later = [e for e in study.get(MEASURED_AGAIN) or () if int(e["trial"]) in trials]
    kept = ("seed", "versions", "owner")
    deployment = trial.measurement.get("deployment") or {}
    return {
        "study": study.name,
        "trial": trial.number,
        "finished": trial.finished.isoformat(" ", "seconds") if trial.finished else None,
        "measured command line": " ".join(map(str, deployment.get("command_line", ()))) or None,
        **{name: trial.attributes[name] for name in kept if name in trial.attributes},
        **{f"measured again {n}": _when(entry) for n, entry in enumerate(later, 1)},
    }


def _cpus(trial: TrialRecord) -> list[int]:
    """The CPUs that the trial's server had, where its deployment tells."""
    limits = (trial.measurement.get("deployment") or {}).get("limits") or {}
    listed = limits.get("affinity") or [
        int(n) for n in str(limits.get("cpuset_cpus") or "").split(",") if n
    ]
    return list(map(int, listed))


def _when(entry: Mapping[str, Any]) -> str:
    told = f"{entry.get('date') or 'date unknown'}, trial {entry['trial']}"
    if entry.get("reason"):
        return f"{told}: failed ({entry['reason']})"
    seed = f", seed {entry['seed']}" if entry.get("seed") is not None else ""
    return f"{told}: {entry['requests']} requests in {entry['window_s']:.3g} s{seed}"


def _marked(study: Any, marked: Any, which: str) -> int:
    """The number of the trial that is the knee, or the choice."""
    found = marked[marked[which].astype(bool)]
    if found.empty:
        raise StudyError(f"study {study.name!r} has no {which}, since nothing is feasible: name a "
                         "trial with --trial N")
    return int(found.iloc[0]["number"])


def _known(study: Any, marked: Any, number: int) -> Any:
    """The row of a trial's configuration. Raises StudyError where there is no measurement of it."""
    for _, row in marked.iterrows():
        if number in row["trials"]:
            if not row["measurements"]:
                raise StudyError(f"trial {number} of {study.name!r} has no measurement: {row['reason']}")
            return row
    records = {record.number: record for record in study.records()}
    if number not in records:
        raise StudyError(f"study {study.name!r} has no trial {number}")
    told = records[number].reason or records[number].state
    raise StudyError(f"trial {number} of {study.name!r} has no measurement: {told}")
