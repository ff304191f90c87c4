"""Environments that a command's arguments name, and what a person should know of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.analysis.environments import Environment
from tuner.cli._references import loader


def load(args: argparse.Namespace, references: Sequence[str]) -> list[Environment]:
    """The environments of the references; what is odd about them goes to stderr."""
    reader = loader(args)
    found = reader.load(references)
    for note in reader.notes:
        print(f"tuner: {note}", file=sys.stderr)
    return found


def noise_record(environment: Environment) -> Mapping[str, Any] | None:
    """The noise of an environment's response from repeats, as ``repeats.pool`` left it."""
    noises = environment.table.attrs.get("noise") or ()
    return next((n for n in noises if n["metric"] == environment.response), None)
