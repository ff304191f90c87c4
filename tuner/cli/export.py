"""``tuner export``: a chosen trial as files that run it on a real TensorFlow Serving."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tuner.errors import StudyError

HELP = "a chosen trial as files to run it: flags, batching, compose, Kubernetes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help="a study's name, FILE.db or FILE.db:NAME")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--trial", type=int, metavar="N", help="the trial's number")
    which.add_argument("--knee", action="store_true", help="the knee of the Pareto set")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--model", metavar="NAME|DIR", help="default: the study's model")
    parser.add_argument("--storage", metavar="URL", help="default: sqlite:///studies/<STUDY>.db")


def run(args: argparse.Namespace) -> int:
    from tuner import export, models, store
    from tuner.deploy.base import ModelToServe

    study = store.open_study(args.study, args.storage)
    number = _knee(study) if args.knee else args.trial
    trial = _complete(study, number)
    environment = study.environment
    settings = study.get("settings") or {}
    record = models.resolve(args.model or settings.get("model") or environment.get("model", ""))
    configuration = {**study.space_description.get("fixed", {}), **trial.configuration}
    about = export.About(study.name, number, trial.metrics, environment)
    files = export.write(
        args.to, configuration, ModelToServe(record.name, Path(record.path)), about
    )
    for file in files:
        print(file)
    return 0


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
