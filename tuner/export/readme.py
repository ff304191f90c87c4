"""``README.md`` of an export: the measured numbers, how to start it, what to know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tuner.deploy.knobs import KNOBS
from tuner.export.bundle import GRPC_PORT, IMAGE, MODELS_FOLDER, REST_PORT, Bundle, Measured


def text(bundle: Bundle) -> str:
    """The file."""
    about, model = bundle.about, bundle.model
    parts = [
        f"# {model.name}: trial {about.measured.trial} of study {about.study}",
        "A configuration of TensorFlow Serving chosen by measurement.",
        *(f"> **Warning: {warning}.**" for warning in about.measured.warnings),
        "## Measured",
        *_origin(about.measured),
        _numbers(about.measured),
        *_limits(about.measured),
        *(f"{note[0].upper()}{note[1:]}." for note in about.measured.notes),
    ]
    if about.others:
        parts += [
            "The same configuration was measured more than once:",
            _repeats(
                about.others if about.measured.trials else (about.measured, *about.others)
            ),
        ]
    parts += [
        "Held fixed while it was measured; other surroundings give other numbers:",
        _table(("what", "value"), list(_flat(about.environment))),
        "Where the numbers come from:",
        _table(("what", "value"), list(_flat(about.provenance))),
        "## Configuration",
        _table(
            ("knob", "value", "what it turns"),
            [(k, str(v), KNOBS[k].turns) for k, v in bundle.configuration.items()],
        ),
        "## Start it",
        _start(bundle),
        "## To know",
        _notes(bundle),
    ]
    return "\n\n".join(parts) + "\n"


def _origin(measured: Measured) -> list[str]:
    """Which measurements the numbers are pooled of, where it is more than one."""
    if len(measured.trials) + measured.later < 2:
        return []
    trials = f"trial {measured.trials[0]}" if len(measured.trials) == 1 else (
        "trials " + ", ".join(map(str, measured.trials))
    )
    later = f"{measured.later} later measurement(s) by `tuner measure`"
    failed = f" Failed: {measured.failed} of all." if measured.failed else ""
    if measured.later_s is not None:
        shorter = f"which stand for the shorter {trials} of this configuration"
        return [f"The numbers of {later}, {measured.later_s:.3g} s in all, {shorter}.{failed}"]
    return [
        f"What is known from all measurements of this configuration: {trials}"
        + (f" and {later}" if measured.later else "") + f".{failed}"
    ]


def _numbers(measured: Measured) -> str:
    rows = []
    for name, value in measured.metrics.items():
        if value is not None:
            low, high = measured.intervals.get(name, (None, None))
            told = "unknown" if low is None else f"{low:.6g} to {high:.6g}" if high is not None else (
                f"at least {low:.6g}, no upper bound is known"
            )
            rows.append((name, f"{value:.6g}", told))
    return _table(("metric", "value", "95 % interval"), rows)


def _limits(measured: Measured) -> list[str]:
    """Every service level that was set, and how probable it is to be kept."""
    if not measured.limits:
        return ["No limit was set."]
    rows = [
        (held.limit, "unknown" if held.probability is None else f"{held.probability:.1%}"
         + (" (assumed, an end of the interval is not known)" if held.assumed else ""))
        for held in measured.limits
    ]
    return ["Limits that were set:", _table(("limit", "probability that it holds"), rows)]


def _repeats(trials: Sequence[Measured]) -> str:
    names = [name for name, value in trials[0].metrics.items() if value is not None]
    rows = []
    for trial in trials:
        values = [trial.metrics.get(name) for name in names]
        rows.append((str(trial.trial), *("" if v is None else f"{v:.6g}" for v in values)))
    return _table(("trial", *names), rows)


def _start(bundle: Bundle) -> str:
    cpus = f", `CPUS` (measured on {bundle.cpu_list})" if bundle.cpu_list is not None else ""
    return (
        "- `./serve.sh` where `tensorflow_model_server` is installed "
        f"(`TENSORFLOW_MODEL_SERVER`, `MODELS`, `GRPC_PORT`, `REST_PORT`{cpus} may be set);\n"
        f"- `docker compose up` here (`GRPC_PORT`, `REST_PORT`{cpus} may be set);\n"
        "- `kubectl apply -f kubernetes.yaml`, with a volume claim `models` that holds what lies "
        f"in `{MODELS_FOLDER}/` here.\n\n"
        f"gRPC answers on port {GRPC_PORT}; REST and Prometheus metrics "
        f"(`/monitoring/prometheus/metrics`) on {REST_PORT}."
    )


def _notes(bundle: Bundle) -> str:
    notes = ["The REST port is open for the metrics, whichever protocol was measured."]
    if bundle.image == IMAGE:
        notes.append(f"The image `{IMAGE}` is named here but was not what was measured.")
    names = bundle.server.model_names
    if len(names) > 1:
        notes.append(f"Spread the requests over the copies {', '.join(names)}.")
    others = bundle.about.environment.get("other_models")
    if others:
        notes.append(f"It was measured beside {others} other models, which are not in these files.")
    if "LD_PRELOAD" in bundle.server.environment:
        library = bundle.server.environment["LD_PRELOAD"]
        notes.append(f"The image has to hold `{library}`; the official one does not.")
    if bundle.knob("cpu_frequency_mhz") is not None:
        notes.append("The CPU clock is the machine's and is set by none of these files.")
    if bundle.about.environment.get("deployer") == "embedded":
        notes.append(
            "It was measured on tuner's embedded server, which speaks TensorFlow Serving's "
            "protocol and runs the same kernels; measure again on the real one."
        )
    return "\n".join(f"- {note}" for note in notes)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and values of a JSON object, those of inner objects as ``outer.inner``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", str(value)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines)
