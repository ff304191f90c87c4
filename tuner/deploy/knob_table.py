"""Every knob, as a table: type, default, meaning, how it is applied, limits, conditions.

Names and defaults are TensorFlow Serving's own (flags of ``tensorflow_model_server``, fields of
``BatchingParameters``) wherever it has one.
"""

from __future__ import annotations

from tuner.deploy.knob import BATCHING, CLIENT, ENVIRONMENT, FACTOR, FLAG, MODELS, RESOURCE, Knob

_BATCHED = {"enable_batching": (True,)}
_SPLIT = {"enable_batching": (True,), "enable_large_batch_splitting": (True,)}
_REST = {"protocol": ("rest",)}
_TFLITE = {"prefer_tflite_model": (True,)}
_NO_TFLITE = "it serves no TensorFlow Lite models"

TABLE = (
    # Batching
    Knob("enable_batching", bool, False, "whether requests are run in batches", FLAG),
    Knob("max_batch_size", int, 1000, "most rows in a batch", BATCHING, 1, needs=_BATCHED),
    Knob(
        "batch_timeout_micros", int, 0, "longest wait for a batch to fill, µs", BATCHING, 0,
        needs=_BATCHED,
    ),
    Knob(
        "num_batch_threads", int, None, "batches that run at the same time (default: CPUs)",
        BATCHING, 1, 1024, needs=_BATCHED,
    ),
    Knob(
        "max_enqueued_batches", int, 10, "batches that may wait before UNAVAILABLE", BATCHING, 1,
        needs=_BATCHED,
    ),
    Knob(
        "thread_pool_name", str, "batch_threads", "name of the batch threads' pool", BATCHING,
        needs=_BATCHED,
    ),
    Knob(
        "allowed_batch_sizes", str, "all", "sizes that batches are padded up to", BATCHING,
        needs=_BATCHED,
    ),
    Knob(
        "pad_variable_length_inputs", bool, False, "pad inputs of different lengths to one batch",
        BATCHING, needs=_BATCHED,
    ),
    Knob(
        "enable_large_batch_splitting", bool, False, "split requests above the batch size",
        BATCHING, needs=_BATCHED,
    ),
    Knob(
        "max_execution_batch_size", int, None,
        "most rows run at once when splitting (default: max_batch_size)", BATCHING, 1, needs=_SPLIT,
    ),
    # Threads
    Knob(
        "tensorflow_intra_op_parallelism", int, 0, "threads inside one operation, 0 = automatic",
        FLAG, 0, 1024,
    ),
    Knob(
        "tensorflow_inter_op_parallelism", int, 0, "operations at the same time, 0 = automatic",
        FLAG, 0, 1024,
    ),
    Knob(
        "tensorflow_session_parallelism", int, 0, "both thread counts at once, 0 = automatic", FLAG,
        0, 1024,
    ),
    Knob(
        "grpc_max_threads", int, None,
        "most gRPC requests in flight (default here: enough to fill batches)", FLAG, 1, 65536,
    ),
    Knob(
        "rest_api_num_threads", int, None, "REST threads (default: 4 x CPUs)", FLAG, 2, 65536,
        needs=_REST,
    ),
    Knob("num_load_threads", int, 0, "threads that load models", FLAG, 0, 64),
    Knob(
        "num_unload_threads", int, 0, "threads that unload models", FLAG, 0, 64,
        not_embedded="it unloads a version in the thread of its last request",
    ),
    # Protocol
    Knob(
        "protocol", str, "grpc", "how requests are sent; both ports are open", CLIENT,
        choices=("grpc", "rest"),
    ),
    Knob(
        "rest_api_timeout_in_ms", int, 30000, "time-out of a REST request, ms", FLAG, 1,
        needs=_REST,
    ),
    Knob("grpc_channel_arguments", str, "", "gRPC server options, k=v,k=v", FLAG),
    Knob(
        "enable_serialization_as_tensor_content", bool, False,
        "answers as packed bytes: smaller and faster", FLAG,
    ),
    # Execution
    Knob("xla_cpu_compilation_enabled", bool, False, "compile the model by XLA", FLAG),
    Knob("mixed_precision", str, "", "run in bfloat16", FLAG, choices=("", "bfloat16")),
    Knob(
        "onednn", bool, None,
        "oneDNN operations (TF_ENABLE_ONEDNN_OPTS; default: on where the CPU has AVX512_VNNI or AMX)",
        ENVIRONMENT,
    ),
    Knob(
        "allocator", str, "system", "memory allocator, by LD_PRELOAD", ENVIRONMENT,
        choices=("system", "tcmalloc", "jemalloc"),
    ),
    Knob(
        "prefer_tflite_model", bool, False, "serve the TensorFlow Lite model (experimental)", FLAG,
        not_embedded=_NO_TFLITE,
    ),
    Knob(
        "num_tflite_pools", int, None, "TensorFlow Lite pools (default: CPUs)", FLAG, 1, 1024,
        needs=_TFLITE, not_embedded=_NO_TFLITE,
    ),
    Knob(
        "num_tflite_interpreters_per_pool", int, 1, "interpreters in a pool", FLAG, 1, 1024,
        needs=_TFLITE, not_embedded=_NO_TFLITE,
    ),
    Knob("enable_model_warmup", bool, True, "replay the model's warm-up file at load", FLAG),
    Knob(
        "num_request_iterations_for_warmup", int, 0, "times the warm-up file is replayed", FLAG, 0,
        1000, needs={"enable_model_warmup": (True,)},
    ),
    Knob("flush_filesystem_caches", bool, True, "drop file caches after load", FLAG),
    Knob(
        "file_system_poll_wait_seconds", int, 1, "seconds between looks for a new version", FLAG, 0,
    ),
    Knob(
        "remove_unused_fields_from_bundle_metagraph", bool, True, "drop unused parts of the graph",
        FLAG, not_embedded="it never keeps the meta graph whole",
    ),
    Knob("response_cache_bytes", int, 0, "size of the response cache, 0 = off", FLAG, 0, ours=True),
    # Models
    Knob("model_copies", int, 1, "copies of the model, the load spread over them", MODELS, 1, 64),
    Knob(
        "other_models", int, 0, "further models served and loaded at the same time", FACTOR, 0, 64,
    ),
    # Resources
    Knob("cpus", int, None, "CPUs the server may use (default: all)", RESOURCE, 1),
    Knob(
        "cpu_quota", float, None, "CPU time per second, in cores (default: no quota)", RESOURCE,
        0.05,
    ),
    Knob(
        "memory_limit_mb", int, None, "memory limit of the server, MiB (default: none)", RESOURCE,
        4,
    ),
    Knob(
        "cpu_frequency_mhz", int, None, "CPU clock (default: the machine's governor)", RESOURCE, 1,
    ),
)
