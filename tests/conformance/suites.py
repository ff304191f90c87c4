"""How the servers of the recorded suites are started, and what happens to their files meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path

_MAIN = (
    "--model_config_file=$FILES/main.config",
    "--allow_version_labels_for_unavailable_models=true",
)
_MONITORED = (
    *_MAIN,
    "--monitoring_config_file=$FILES/monitoring.config",
    "--enable_grpc_healthcheck_service=true",
)
_BATCHED = ("--model_config_file=$FILES/batched.config", "--enable_batching=true")
_PARAMETERS = {
    "b1": {"size": 8, "timeout": 50000, "threads": 2, "more": "allowed_batch_sizes: [2, 4, 8]"},
    "b2": {
        "size": 8,
        "timeout": 20000,
        "more": "enable_large_batch_splitting { value: true } max_execution_batch_size { value: 4 } "
        "allowed_batch_sizes: 2 allowed_batch_sizes: 4 allowed_batch_sizes: 8",
    },
    "b2b": {
        "size": 8,
        "timeout": 20000,
        "more": "enable_large_batch_splitting { value: true } max_execution_batch_size { value: 4 }",
    },
    "b3": {"size": 4, "timeout": 200000, "more": "pad_variable_length_inputs: true"},
    "b4": {"size": 2, "timeout": 0, "enqueued": 2},
    "b5": {"size": 4, "timeout": 1500000, "enqueued": 10},
    "b6": {"size": 4, "timeout": 200000},
}
FLAGS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("rest", "grpc", "fix"), _MONITORED),
    "nofile": _BATCHED,
    **{name: (*_BATCHED, f"--batching_parameters_file=$FILES/{name}.txt") for name in _PARAMETERS},
    "t1": ("--model_config_file=$FILES/batched.config", "--rest_api_timeout_in_ms=400"),
    "content": (
        *_MAIN,
        "--enable_serialization_as_tensor_content=true",
        "--enable_signature_method_name_check=true",
        "--enable_cors_support=true",
    ),
    "hot": ("--model_name=m", "--model_base_path=$LIVE/m"),
    "reload": ("--model_name=vers", "--model_base_path=$MODELS/vers"),
}
FLAGS["b5"] += ("--rest_api_timeout_in_ms=400",)
IN_ORDER = ("hot", "reload")
"""Suites whose state carries over: an answer is waited for, since versions come and go meanwhile."""


def write_files(folder: Path, models: Path) -> None:
    """The configuration files of all suites."""

    def config(*names: str, **more: str) -> str:
        listed = "".join(
            f'config {{ name: "{name}" base_path: "{models / name}" '
            f'model_platform: "tensorflow" {more.get(name, "")} }}\n'
            for name in names
        )
        return f"model_config_list {{\n{listed}}}\n"

    labelled = (
        "model_version_policy { specific { versions: 1 versions: 2 versions: 3 } } "
        'version_labels { key: "stable" value: 2 } version_labels { key: "canary" value: 3 }'
    )
    names = ("types", "conv", "heads", "cr", "nodefault", "vers")
    (folder / "main.config").write_text(config(*names, vers=labelled))
    (folder / "batched.config").write_text(config("types", "conv", "slow", "var", "cr"))
    (folder / "monitoring.config").write_text(
        'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }\n'
    )
    for name, given in _PARAMETERS.items():
        (folder / f"{name}.txt").write_text(
            f"max_batch_size {{ value: {given['size']} }}\n"
            f"batch_timeout_micros {{ value: {given['timeout']} }}\n"
            f"max_enqueued_batches {{ value: {given.get('enqueued', 100)} }}\n"
            f"num_batch_threads {{ value: {given.get('threads', 1)} }}\n{given.get('more', '')}\n"
        )


def change_disk(step: str, live: Path, models: Path) -> None:
    """What was done to the folder of the model that the suite ``hot`` watches, before ``step``."""
    base, odd = live / "m", ("abc", "v9", "-3", "1.5", "8x")

    def bring(source: Path, name: str) -> None:
        shutil.copytree(source, live / "new")
        (live / "new").rename(base / name)

    version = {v: models / "vers" / str(v) for v in (1, 2, 3, 5)}
    if step == "odd-names":
        for name in odd:
            bring(version[3], name)
        (base / "7").write_text("no model")
    elif step == "odd-gone":
        for name in odd:
            shutil.rmtree(base / name)
        (base / "7").unlink()
    elif step == "rm-all":
        for path in base.iterdir():
            shutil.rmtree(path)
    elif step == "replace-files":
        shutil.copytree(version[5], base / "6", dirs_exist_ok=True)
    elif step in (steps := {
        "add2": (version[2], "2"), "leading-zero": (version[3], "003"), "add5": (version[5], "5"),
        "broken4": (models / "broken" / "1", "4"), "add6": (version[3], "6"),
    }):
        bring(*steps[step])
    elif step in (gone := {"zero-gone": "003", "rm5": "5", "rm4": "4"}):
        shutil.rmtree(base / gone[step])
