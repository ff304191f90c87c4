"""``serve.sh``: the command line for a machine with ``tensorflow_model_server`` on it."""

from __future__ import annotations

import shlex

from tuner.deploy.files import MODELS_FILE
from tuner.export.bundle import CONFIG, GRPC_PORT, MODELS, MODELS_FOLDER, REST_PORT, Bundle


def text(bundle: Bundle) -> str:
    """A POSIX shell script; its variables may be set from outside."""
    lines = [
        "#!/bin/sh",
        f"# Trial {bundle.about.measured.trial} of study {_comment(bundle.about.study)}; see README.md.",
        "set -eu",
        'here=$(cd "$(dirname "$0")" && pwd)',
        'server=${TENSORFLOW_MODEL_SERVER:-tensorflow_model_server}',
        f"models=${{MODELS:-$here/{MODELS_FOLDER}}}",
    ]
    if MODELS_FILE in bundle.server.texts:
        # TensorFlow Serving wants absolute paths, which are known only where the script lies.
        listed = _in_here_document(bundle.server.texts[MODELS_FILE])
        lines += ["list=$(mktemp)", 'cat > "$list" <<END']
        lines += [listed.replace(f'"{MODELS}/', '"$models/').rstrip("\n"), "END"]
    for name, value in bundle.server.environment.items():
        lines.append(f"export {name}={shlex.quote(value)}")
    run = "exec "
    if bundle.cpu_list is not None:
        run += f'taskset -c "${{CPUS:-{bundle.cpu_list}}}" '
    for knob, setting in (("cpu_quota", "CPUQuota"), ("memory_limit_mb", "MemoryMax")):
        limit = bundle.knob(knob)
        if limit is not None:
            amount = f"{float(limit):.0%}" if knob == "cpu_quota" else f"{limit}M"
            lines.append(f"# Measured under systemd-run --scope -p {setting}={amount} (or the like).")
    arguments = [_argument(bundle, name, value) for name, value in bundle.server.flags]
    lines.append(run + '"$server" \\')
    lines += [f"  {argument} \\" for argument in arguments]
    lines.append('  "$@"')
    return "\n".join(lines) + "\n"


def _argument(bundle: Bundle, name: str, value: str) -> str:
    if name == "port":
        return f'--port="${{GRPC_PORT:-{GRPC_PORT}}}"'
    if name == "rest_api_port":
        return f'--rest_api_port="${{REST_PORT:-{REST_PORT}}}"'
    if name == "model_base_path" and value == str(MODELS / bundle.model.name):
        return f'--model_base_path="$models"/{shlex.quote(bundle.model.name)}'
    if name == "model_config_file":
        return '--model_config_file="$list"'
    if value.startswith(f"{CONFIG}/"):
        return f'--{name}="$here/{value.removeprefix(f"{CONFIG}/")}"'
    return f"--{name}={shlex.quote(value)}"


def _comment(text: str) -> str:
    return " ".join(text.split())


def _in_here_document(text: str) -> str:
    for special in "\\$`":
        text = text.replace(special, f"\\{special}")
    return text
