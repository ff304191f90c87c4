"""``tuner export``: a chosen trial as files that run it on a real TensorFlow Serving."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner import export
from tuner.errors import StudyError
from tuner.measurement import configuration_key

if TYPE_CHECKING:
    from tuner.store import TrialRecord

HELP = "a chosen trial as files to run it: flags, batching, compose, Kubernetes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help="a study's name, FILE.db or FILE.db:NAME")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--trial", type=int, metavar="N", help="the trial's number")
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
    number = _knee(study) if args.knee else args.trial
    trial = _complete(study, number)
    environment = study.environment
    settings = study.get("settings") or {}
    record = models.resolve(args.model or settings.get("model") or environment.get("model", ""))
    measured = environment.get("model_checksum")
    if args.model is None and measured not in (None, record.checksum):
        raise StudyError(
            f"model {record.name!r} is not the one that study {study.name!r} measured: its checksum "
            f"is {record.checksum}, not {measured}; --model {record.name} takes it all the same"
        )
    configuration = {**study.space_description.get("fixed", {}), **trial.configuration}
    others = [r for r in study.records() if r.number != number and _repeats(r, trial)]
    about = export.About(
        study.name, _measured(trial), [_measured(r) for r in others], environment,
        _provenance(study, trial),
    )
    files = export.write(
        args.to, configuration, ModelToServe(record.name, Path(record.path)), about,
        image=args.image, force=args.force,
    )
    for file in files:
        print(file)
    return 0


def _measured(record: TrialRecord) -> export.Measured:
    return export.Measured(record.number, record.metrics, record.intervals)


def _repeats(record: TrialRecord, trial: TrialRecord) -> bool:
    same = configuration_key(record.configuration) == configuration_key(trial.configuration)
    return same and record.state == "complete"


def _provenance(study: Any, trial: TrialRecord) -> dict[str, Any]:
    """What says when and with what a trial was measured."""
    kept = ("seed", "versions", "owner")
    deployment = trial.measurement.get("deployment") or {}
    return {
        "study": study.name,
        "trial": trial.number,
        "finished": trial.finished.isoformat(" ", "seconds") if trial.finished else None,
        "measured command line": " ".join(map(str, deployment.get("command_line", ()))) or None,
        **{name: trial.attributes[name] for name in kept if name in trial.attributes},
    }


def _knee(study: Any) -> int:
    from tuner.cli import pareto

    marked = pareto.front(study)
    found = marked[marked["knee"].astype(bool)]
    if found.empty:
        raise StudyError(f"study {study.name!r} has no knee: name a trial with --trial N")
    return int(found.iloc[0]["number"])


def _complete(study: Any, number: int) -> Any:
    records = {record.number: record for record in study.records()}
    if number not in records:
        raise StudyError(f"study {study.name!r} has no trial {number}")
    if records[number].state != "complete":
        told = records[number].reason or records[number].state
        raise StudyError(f"trial {number} of {study.name!r} has no measurement: {told}")
    return records[number]
