"""``README.md`` of an export: the measured numbers, how to start it, what to know."""

from __future__ import annotations

from tuner.deploy.knobs import KNOBS
from tuner.export.bundle import GRPC_PORT, REST_PORT, Bundle


def text(bundle: Bundle) -> str:
    """The file."""
    about, model = bundle.about, bundle.model
    parts = [
        f"# {model.name}: trial {about.trial} of study {about.study}",
        "A configuration of TensorFlow Serving chosen by measurement.",
        "## Measured",
        _table(
            ("metric", "value"),
            [(k, f"{v:.6g}") for k, v in about.numbers.items() if v is not None],
        ),
        "Held fixed while it was measured; other surroundings give other numbers:",
        _table(("what", "value"), [(k, str(v)) for k, v in about.environment.items()]),
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


def _start(bundle: Bundle) -> str:
    return (
        "- `./serve.sh` where `tensorflow_model_server` is installed "
        "(`MODEL_BASE_PATH`, `GRPC_PORT`, `REST_PORT` may be set);\n"
        "- `docker compose up` here;\n"
        "- `kubectl apply -f kubernetes.yaml`, with a volume claim `models` that holds "
        f"`{bundle.model.name}/1/saved_model.pb`.\n\n"
        f"gRPC answers on port {GRPC_PORT}; REST and Prometheus metrics "
        f"(`/monitoring/prometheus/metrics`) on {REST_PORT}."
    )


def _notes(bundle: Bundle) -> str:
    notes = ["The REST port is open for the metrics, whichever protocol was measured."]
    names = bundle.server.model_names
    if len(names) > 1:
        notes.append(f"Spread the requests over the copies {', '.join(names)}.")
    if "LD_PRELOAD" in bundle.server.environment:
        library = bundle.server.environment["LD_PRELOAD"]
        notes.append(f"The image has to hold `{library}`; the official one does not.")
    if bundle.knob("cpu_frequency_mhz") is not None:
        notes.append("The CPU clock is the machine's and is set by none of these files.")
    deployer = bundle.about.environment.get("deployer")
    if deployer == "embedded":
        notes.append(
            "It was measured on tuner's embedded server, which speaks TensorFlow Serving's "
            "protocol and runs the same kernels; measure again on the real one."
        )
    return "\n".join(f"- {note}" for note in notes)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines)
