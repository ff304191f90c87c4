"""A plan of recorded studies: which spaces are measured for which models, and what is repeated."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tuner.errors import SpaceError, UsageError
from tuner.measurement import Configuration, configuration_key
from tuner.quantities import SEED, SHARE
from tuner.space import Space
from tuner.space_file import Node, did_you_mean

SAMPLERS = ("grid", "screening")
"""Designs that are fixed before the first trial, so that a study can be complete."""
KEYS = ("name", "space", "model", "requests", "sampler", "seed", "repeat")
STAGE_OVERHEAD_S, DEPLOYMENT_S = 2.0, 2.0
"""Seconds that a load stage takes beside its window (client, warm-up, drain) and that a deployment
takes, for an estimate before the first trial; as measured for MobileNetV2 and cnn1d on two cores."""


@dataclass(frozen=True)
class Recording:
    """One study of a plan."""

    name: str
    space_file: str
    space: Space
    sampler: str = "grid"
    seed: int = 0
    repeat: float = 0.0
    """Share of the configurations that is measured once more at the end of the plan."""

    @cached_property
    def configurations(self) -> list[Configuration]:
        """The whole design, in the order in which it is measured."""
        from tuner import propose
        from tuner.propose.listed import everything, shuffled

        return shuffled(everything(propose.make(self.sampler, self.space, seed=self.seed)), self.seed)

    @property
    def repeated(self) -> list[Configuration]:
        """What is measured once more: drawn by the seed, in another order than at first."""
        from tuner.propose.listed import shuffled

        count = math.ceil(self.repeat * len(self.configurations))
        return shuffled(self.configurations, self.seed + 1)[:count]


@dataclass(frozen=True)
class Step:
    """One sitting of a recording: its design, or the repeat of a part of it."""

    recording: Recording
    is_repeat: bool

    @property
    def label(self) -> str:
        return self.recording.name + (", repeat" if self.is_repeat else "")

    @property
    def configurations(self) -> list[Configuration]:
        return self.recording.repeated if self.is_repeat else self.recording.configurations

    @property
    def times(self) -> int:
        """Measurements that each of the configurations has once the step is done."""
        return self.recording.space.settings.repeats + self.is_repeat

    @property
    def wanted(self) -> int:
        """Measurements that this step adds at each level."""
        times = 1 if self.is_repeat else self.times
        return times * len(self.configurations)

    def done(self, finished: Sequence[Configuration]) -> int:
        """How many of them are among the finished trials of one level."""
        counts = Counter(map(configuration_key, finished))
        least = self.times - 1 if self.is_repeat else 0
        return sum(
            min(max(counts[configuration_key(c)] - least, 0), self.times - least)
            for c in self.configurations
        )

    def estimated_s(self, levels: int) -> float:
        """Seconds that one configuration takes at all levels, before any was measured."""
        settings = self.recording.space.settings
        servers = levels // max(len(self.recording.space.factors.get("load", ())), 1)
        return levels * (settings.max_duration_s + STAGE_OVERHEAD_S) + servers * DEPLOYMENT_S


def steps(recordings: Sequence[Recording]) -> list[Step]:
    """Every design in the plan's order, then every repeat, hours after what it repeats."""
    return [
        *(Step(recording, is_repeat=False) for recording in recordings),
        *(Step(recording, is_repeat=True) for recording in recordings if recording.repeat),
    ]


def read(file: str) -> list[Recording]:
    """A plan from YAML: ``studies:`` with a list of ``KEYS``; ``name`` and ``space`` are needed.

    Raises:
        SpaceError: with file, line and key, and what would be right.
        UsageError: no such file.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"--plan {file}: cannot be read: {why}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise SpaceError(f"is not YAML: {error.problem}", file=file, line=line) from None
    if root is None:
        raise SpaceError("is empty; say studies: [{name: …, space: …}]", file=file)
    top = Node(root, file, "").mapping(("studies",))
    if "studies" not in top:
        raise SpaceError("has no studies: nothing to record", file=file)
    found: list[Recording] = []
    for node in top["studies"].sequence():
        recording = _recording(node)
        if recording.name in [r.name for r in found]:
            raise node.error(f"{recording.name} is planned twice; keep one")
        found.append(recording)
    return found


def only(recordings: Sequence[Recording], names: Sequence[str]) -> list[Recording]:
    """The recordings of these names, all without any. Raises UsageError for an unknown one."""
    known = [recording.name for recording in recordings]
    for name in names:
        if name not in known:
            raise UsageError(f"--only {name}: not in the plan; {did_you_mean(name, known)}")
    return [recording for recording in recordings if not names or recording.name in names]


def _recording(node: Node) -> Recording:
    from tuner import space as spaces

    given = node.mapping(KEYS)
    for needed in ("name", "space"):
        if needed not in given:
            raise node.error(f"should have a {needed}")
    file = given["space"].text()
    space = spaces.load(file)
    settings: dict[str, Any] = {k: given[k].text() for k in ("model", "requests") if k in given}
    space = dataclasses.replace(space, settings=dataclasses.replace(space.settings, **settings))
    if not space.is_finite:
        raise given["space"].error(f"{file} has no end: a recorded study measures all of it")
    repeat = given["repeat"].quantity(SHARE) if "repeat" in given else 0.0
    return Recording(
        name=given["name"].text(),
        space_file=file,
        space=space,
        sampler=given["sampler"].one_of(SAMPLERS) if "sampler" in given else "grid",
        seed=given["seed"].count(SEED) if "seed" in given else 0,
        repeat=repeat,
    )
