"""The command line: ``tensorflow_model_server``'s flags, by name, default and rule.

A flag without a meaning here is accepted and reported as ignored at start. Two flags are ours:
``--bind_address`` and ``--response_cache_bytes``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from tuner.modelserver.status import invalid_argument

Value = bool | int | float | str


@dataclass(frozen=True)
class Flag:
    """One flag; ``ignored`` says why it has no meaning here, empty when it has one."""

    name: str
    default: Value
    help: str
    ignored: str = ""


def schedulable_cpus() -> int:
    """CPUs this process may run on."""
    return len(os.sched_getaffinity(0))


_PARALLELISM = (
    "tensorflow_session_parallelism",
    "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
)
MOST_THREADS = 4096
"""Of any pool: TensorFlow makes them all at once, and the process ends where it cannot."""
_INT32 = 2**31 - 1
_LIMITS = {
    "port": (0, 65535),
    "rest_api_port": (0, 65535),
    "grpc_max_threads": (1, _INT32),
    "rest_api_num_threads": (1, _INT32),
    "rest_api_timeout_in_ms": (0, _INT32),
    "response_cache_bytes": (0, 2**63 - 1),
    **dict.fromkeys(_PARALLELISM, (-_INT32, MOST_THREADS)),
}
_NO_GPU = "this server runs on CPUs"
_NO_TFLITE = "TensorFlow Lite models are not served"


def flag_table() -> tuple[Flag, ...]:
    """Every flag. A function, since some defaults depend on the CPUs this process may use."""
    cpus = schedulable_cpus()
    return (
        Flag("port", 8500, "TCP port of the gRPC API; 0 with --grpc_socket_path: none"),
        Flag("grpc_socket_path", "", "UNIX socket the gRPC API also listens on"),
        Flag("rest_api_port", 0, "port of the REST API; 0: off"),
        Flag("rest_api_num_threads", 4 * cpus, "REST requests answered at once, and one more"),
        Flag("rest_api_timeout_in_ms", 30000, "time limit of a REST request; 0: none"),
        Flag("enable_batching", False, "batch requests"),
        Flag("batching_parameters_file", "", "BatchingParameters, text format"),
        Flag(
            "enable_per_model_batching_parameters",
            False,
            "read <version folder>/batching_params.pbtxt; the thread pool stays as given globally",
        ),
        Flag(
            "allow_version_labels_for_unavailable_models", False, "label a version not yet loaded"
        ),
        Flag("force_allow_any_version_labels_for_unavailable_models", False, "label any version"),
        Flag("model_config_file", "", "ModelServerConfig, text format: several models"),
        Flag("model_config_file_poll_wait_seconds", 0, "re-read it that often; 0: never"),
        Flag("model_name", "default", "name of the model"),
        Flag("model_base_path", "", "folder that holds the numbered versions"),
        Flag("num_load_threads", 0, "threads that load versions; 0: one a CPU"),
        Flag(
            "num_unload_threads",
            0,
            "threads that unload versions",
            ignored="a version is unloaded in the thread of its last request",
        ),
        Flag("max_num_load_retries", 5, "attempts at loading a version after the first failed"),
        Flag("load_retry_interval_micros", 60_000_000, "time between such attempts"),
        Flag("file_system_poll_wait_seconds", 1, "look for new versions that often; 0: once"),
        Flag(
            "flush_filesystem_caches",
            True,
            "drop a version's files from the page cache once loaded",
        ),
        Flag("tensorflow_session_parallelism", 0, "sets both of the next two"),
        Flag("tensorflow_intra_op_parallelism", 0, "threads inside one operation; 0: automatic"),
        Flag("tensorflow_inter_op_parallelism", 0, "operations run at once; 0: automatic"),
        Flag("tensorflow_session_config_file", "", "ConfigProto, text format"),
        Flag("saved_model_tags", "serve", "tags of the meta graph to load"),
        Flag("grpc_channel_arguments", "", "k=v,k=v for the gRPC server"),
        Flag("grpc_max_threads", 4 * cpus, "gRPC requests in flight"),
        Flag("enable_grpc_healthcheck_service", False, "grpc.health.v1.Health"),
        Flag("ssl_config_file", "", "SSLConfig, text format"),
        Flag("monitoring_config_file", "", "MonitoringConfig, text format"),
        Flag("enable_model_warmup", True, "replay assets.extra/tf_serving_warmup_requests"),
        Flag("num_request_iterations_for_warmup", 0, "replay it that often; 0: once"),
        Flag("mixed_precision", "", "bfloat16, or empty"),
        Flag("xla_cpu_compilation_enabled", False, "compile clusters of the graph with XLA"),
        Flag("enable_serialization_as_tensor_content", False, "Predict answers in tensor_content"),
        Flag("enable_signature_method_name_check", False, "refuse a method name unfit for Predict"),
        Flag("version", False, "print versions and exit"),
        Flag(
            "remove_unused_fields_from_bundle_metagraph",
            True,
            "memory",
            "the meta graph is never kept whole",
        ),
        Flag("prefer_tflite_model", False, "", _NO_TFLITE),
        Flag("num_tflite_pools", cpus, "", _NO_TFLITE),
        Flag("num_tflite_interpreters_per_pool", 1, "", _NO_TFLITE),
        Flag("per_process_gpu_memory_fraction", 0.0, "", _NO_GPU),
        Flag("platform_config_file", "", "", "only TensorFlow SavedModels are served"),
        Flag("enable_cors_support", False, "let pages of other origins use the REST API"),
        Flag("enable_profiler", True, "", "no profiler service"),
        Flag("thread_pool_factory_config_file", "", "", "TensorFlow's own pools are used"),
        Flag("bind_address", "127.0.0.1", "address both APIs listen on (ours)"),
        Flag(
            "response_cache_bytes",
            0,
            "keep that many bytes of Predict answers, least recently used out; 0: off (ours)",
        ),
    )


def usage() -> str:
    """All flags with defaults, for a person."""
    lines = ["usage: python -m tuner.modelserver --model_base_path=DIR [flags]", "Flags:"]
    for flag in flag_table():
        note = f"(accepted, ignored: {flag.ignored})" if flag.ignored else flag.help
        lines.append(f"\t--{flag.name}={_show(flag.default)}\t{note}")
    return "\n".join(lines)


def _show(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse(argv: Sequence[str]) -> tuple[SimpleNamespace, list[str]]:
    """Parse ``--name=value``; a switch is ``--name`` or ``--name=true|false``.

    Returns:
        The values, one attribute a flag, and the names of given flags that are ignored here.

    Raises:
        ServingError: INVALID_ARGUMENT for an unknown flag or a bad value.
    """
    table = {flag.name: flag for flag in flag_table()}
    values: dict[str, Value] = {name: flag.default for name, flag in table.items()}
    given: list[str] = []
    for argument in argv:
        name, has_value, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in table:
            raise invalid_argument(f"unknown argument: {argument}")
        flag = table[name]
        if not has_value and not isinstance(flag.default, bool):
            raise invalid_argument(f"--{name} needs a value: --{name}=VALUE")
        values[name] = _convert(flag, text if has_value else "true")
        given.append(name)
    return SimpleNamespace(**values), [n for n in dict.fromkeys(given) if table[n].ignored]


def _convert(flag: Flag, text: str) -> Value:
    if isinstance(flag.default, bool):
        switch = {"true": True, "1": True, "false": False, "0": False}.get(text.lower())
        if switch is None:
            raise invalid_argument(f"--{flag.name}={text}: expected true or false")
        return switch
    if isinstance(flag.default, str):
        return text
    try:
        return type(flag.default)(text)
    except ValueError:
        kind = "an integer" if isinstance(flag.default, int) else "a number"
        raise invalid_argument(f"--{flag.name}={text}: expected {kind}") from None


def check(options: SimpleNamespace) -> list[str]:
    """Warnings about values that TensorFlow Serving takes without doing what they say.

    Raises:
        ServingError: INVALID_ARGUMENT, a forbidden combination, in its words, or a number that no
            server can have.
    """
    if not options.model_base_path and not options.model_config_file:
        raise invalid_argument(
            "Both server_options.model_base_path and server_options.model_config_file are empty!"
        )
    if options.port == 0 and not options.grpc_socket_path:
        raise invalid_argument(
            "At least one of server_options.grpc_port or server_options.grpc_socket_path must be "
            "set."
        )
    if options.batching_parameters_file and not options.enable_batching:
        raise invalid_argument(
            "server_options.batching_parameters_file is set without setting "
            "server_options.enable_batching to true."
        )
    if (
        options.tensorflow_session_parallelism > 0
        and options.tensorflow_intra_op_parallelism > 0
        and options.tensorflow_inter_op_parallelism > 0
    ):
        raise invalid_argument(
            "Either configure server_options.tensorflow_session_parallelism or "
            "(server_options.tensorflow_intra_op_parallelism, "
            "server_options.tensorflow_inter_op_parallelism) separately. You cannot configure all."
        )
    if options.rest_api_port and options.rest_api_port == options.port:
        raise invalid_argument("--rest_api_port must differ from --port")
    for name, (least, most) in _LIMITS.items():
        value = getattr(options, name)
        if not least <= value <= most:
            raise invalid_argument(f"--{name}={value}: expected {least} to {most}")
    return list(_oddities(options))


def _oddities(options: SimpleNamespace) -> Iterator[str]:
    if options.enable_per_model_batching_parameters and not options.enable_batching:
        yield "--enable_per_model_batching_parameters does nothing without --enable_batching"
    if options.mixed_precision not in ("", "bfloat16"):
        yield f"--mixed_precision={options.mixed_precision} does nothing: only bfloat16 does"
    for name in _PARALLELISM:
        if getattr(options, name) < 0:
            yield f"--{name}={getattr(options, name)} is taken for 0, automatic"
