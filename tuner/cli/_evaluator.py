"""Opens what runs a study's trials, and keeps with the study what it takes to open it again."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.cli import _quiet
from tuner.errors import ModelError, SpaceError, StudyError, UsageError
from tuner.measurement import Scalar
from tuner.space import Settings, Space

OWN_OBJECTIVE = "objectives.serving"
FACTS = ("space_text", "settings", "options")
"""Kept with a study at its creation; all it takes to build its space and evaluator anew."""


@contextmanager
def open_evaluator(
    space: Space, options: Mapping[str, Any], artifacts: Path, note: Any,
    wait_for_quiet_s: float | None = None,
) -> Iterator[Any]:
    """The evaluator of an objective's module, as a context manager, on a machine looked at.

    Args:
        options: ``objective`` (a module's name) and what ``objectives.serving.Options`` takes
            beside the folder.
        artifacts: folder for logs and samples.
        note: told what takes a moment.
        wait_for_quiet_s: how long a busy machine is waited for (``_quiet.before_first``); it isn't
            kept with the study.

    Raises:
        UnavailableError: the machine stayed busy all that time.
        UsageError: the module can't be imported or opens nothing; or what it says, with the
            place in the space's file where that names the model or the requests.
    """
    from objectives.serving import Options

    name = options["objective"]
    try:
        module = importlib.import_module(name)
    except (ImportError, TypeError, ValueError) as error:
        raise UsageError(f"--objective {name}: {error}") from None
    if not hasattr(module, "open"):
        raise UsageError(f"--objective {name}: has no open(space, options, note)")
    given = {key: value for key, value in options.items() if key != "objective"}
    if wait_for_quiet_s is not None:
        given["wait_for_quiet_s"] = wait_for_quiet_s
    with ExitStack() as stack:
        try:
            evaluator = stack.enter_context(
                module.open(space, Options(artifacts=artifacts, **given), note)
            )
        except ModelError as error:
            raise _placed(error, space) from None
        # Only now: making the model's file and its requests is work too.
        _quiet.before_first(wait_for_quiet_s)
        yield evaluator


def _placed(error: ModelError, space: Space) -> UsageError:
    requests = space.settings.requests
    of_requests = requests not in ("default", "random") and requests in str(error)
    place = space.places.get("requests" if of_requests else "model")
    return error if place is None else place.error(str(error))


def facts(file: str, space: Space, options: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept with a new study.

    Args:
        file: the space's file, or its shipped name.
        space: the space after the command line's overrides.
        options: as ``open_evaluator`` takes them.
    """
    from tuner import space_file

    return {
        "space_text": space_file.find(file).read_text(encoding="utf-8"),
        "settings": dataclasses.asdict(space.settings),
        "options": dict(options),
    }


def refuse_other_settings(study: Any, now: Mapping[str, Any]) -> None:
    """Raise StudyError where new trials would be measured otherwise than the study's.

    Most settings are held in the study's environment; these are not.

    Args:
        now: as ``facts`` gives; a study that lacks them (an older version's) is not compared.
    """
    from tuner.measurement import to_json

    defaults = {"settings": dataclasses.asdict(Settings()), "options": {}}
    before = {
        key: {**default, **(study.get(key) or {})} for key, default in defaults.items()
        if study.get(key) is not None and now.get(key) is not None
    }
    for path, said_as in _OF_A_MEASUREMENT.items():
        old, new = _held(before, path), to_json(_held(now, path))
        if path.split(".")[0] in before and old != new:
            raise StudyError(
                f"study {study.name!r} was measured with {path.rpartition('.')[2]} {old}, not "
                f"{new}: its trials would not compare; say {said_as} as before, or name a new "
                "study with --name"
            )


_OF_A_MEASUREMENT = {
    "settings.min_duration_s": "--duration (min_duration_s in the space)",
    "settings.max_duration_s": "--duration (max_duration_s in the space)",
    "settings.precision": "--precision",
    "settings.clients": "--clients",
    "settings.rows": "rows in the space",
    "settings.signature": "--signature",
    "settings.pattern": "pattern in the space",
    "settings.popularity": "popularity in the space",
    "settings.start_timeout_s": "start_timeout_s in the space",
    "options.seed": "--seed",
    "options.objective": "--objective",
    "options.deployer.server_binary": "--server-binary",
    "options.deployer.image": "--image",
}
"""What makes a measurement another one, by where the study's facts hold it -> how a user says it.
The seed is that of the arrivals and requests, which all trials of a study share."""


def _held(facts: Mapping[str, Any], path: str) -> Any:
    for part in path.split("."):
        facts = (facts or {}).get(part)  # type: ignore[assignment]
    return facts


def refuse_other_stored_settings(
    storage: Any, url: str, name: str, space: Space, options: Mapping[str, Any]
) -> None:
    """As ``refuse_other_settings``, before anything slow starts, where the study exists."""
    import optuna

    from tuner import store

    if name in optuna.get_all_study_names(storage):
        now = {"settings": dataclasses.asdict(space.settings), "options": dict(options)}
        refuse_other_settings(store.Store.open(url, name, storage), now)


@dataclass(frozen=True)
class Environment:
    """The one environment of a stored study, ready to be opened again."""

    space: Space
    levels: Mapping[str, Scalar]
    """The level of each factor of the space."""
    options: Mapping[str, Any]


def rebuild(study: Any) -> Environment:
    """A stored study's space, levels and options.

    Raises:
        StudyError: the study doesn't hold them, or they aren't those it was measured with.
    """
    from tuner import space_file

    text, settings, options = (study.get(key) for key in FACTS)
    if text is None or settings is None or options is None:
        raise StudyError(
            f"study {study.name!r} does not hold how it was measured (a recorded table, or an "
            "older version's study); run `tuner study` on it once, which adds it"
        )
    described, environment = study.space_description, study.environment
    known = {field.name for field in dataclasses.fields(Settings)}
    try:
        space = space_file.parse(
            text, default_name=str(described.get("name", "space")), stored=True
        )
    except SpaceError as error:
        raise StudyError(f"study {study.name!r} holds a damaged space: {error}") from None
    space = dataclasses.replace(
        space,
        settings=dataclasses.replace(
            space.settings, **{k: v for k, v in settings.items() if k in known}
        ),
        # The command line may have taken a factor's place (--load).
        factors={k: tuple(v) for k, v in described.get("factors", {}).items()},
    )
    if {"name": space.name, **space.describe()} != described:
        raise StudyError(f"study {study.name!r} holds another space than it was measured with")
    return Environment(space, {name: environment[name] for name in space.factors}, options)


def refuse_other_environment(
    study: Any, now: Mapping[str, Any], *, apart_from: Collection[str] = (),
    advice: str = "a trial can only be measured again where it was measured",
) -> None:
    """Raise StudyError where something that the study holds fixed is different now.

    Args:
        apart_from: what may differ.
        advice: what would be right, for the message.
    """
    from tuner.measurement import to_json

    before = study.environment
    for key, value in now.items():
        if key in before and key not in apart_from and to_json(value) != before[key]:
            raise StudyError(
                f"study {study.name!r} was measured with {key} {before[key]!r}, here it is "
                f"{value!r}; {advice}"
            )


def add_program_arguments(parser: argparse.ArgumentParser) -> None:
    """The options by which a user allows what a stored study runs."""
    parser.add_argument("--server-binary", metavar="FILE", help="allow the study to run this binary")
    parser.add_argument("--image", metavar="NAME", help="allow the study to run this image")
    parser.add_argument("--objective", metavar="MODULE", help="allow the study to run this module")


def refuse_unnamed_programs(study: Any, kept: Environment, named: Mapping[str, Any]) -> None:
    """Raise StudyError where a study's database, not its user, names what would be run.

    Whoever can write into a shared database must not choose what runs on every worker's machine.

    Args:
        kept: what the study holds.
        named: ``objective``, ``server_binary`` and ``image`` as the user says them here.
    """
    from tuner.deploy import binary, docker

    # A deployer that the database chose runs its default, be it that no program is named.
    defaults = {
        "binary": {"server_binary": binary.PROGRAM}, "docker": {"image": docker.IMAGE},
    }.get(kept.space.settings.deployer, {})
    wanted = {
        "objective": kept.options["objective"], **defaults, **kept.options.get("deployer", {})
    }
    wanted.pop("monitoring", None)  # runs nothing
    for key, value in wanted.items():
        if (key, value) != ("objective", OWN_OBJECTIVE) and named.get(key) != value:
            flag = "--" + key.replace("_", "-")
            raise StudyError(
                f"study {study.name!r} runs {flag} {value}; say the same here to allow it"
            )
