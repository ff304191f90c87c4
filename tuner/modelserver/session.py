"""How TensorFlow is set up by the flags: threads, graph rewrites, XLA."""

from __future__ import annotations

import os
from types import SimpleNamespace

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2

from tuner.modelserver.protos import read_text_proto


def find_devices(options: SimpleNamespace) -> None:
    """Have TensorFlow find its devices and make its threads, which the first session does.

    Raises:
        ServingError: the session's configuration file is wrong.
    """
    if options.xla_cpu_compilation_enabled:
        _enable_xla()
    tf.compat.v1.Session(graph=tf.Graph(), config=session_config(options)).close()


def session_config(options: SimpleNamespace) -> config_pb2.ConfigProto:
    """The session's ConfigProto: the file's, with thread counts always from the flags."""
    config = config_pb2.ConfigProto()
    if options.tensorflow_session_config_file:
        read_text_proto(options.tensorflow_session_config_file, config)
    both = max(0, options.tensorflow_session_parallelism)
    config.intra_op_parallelism_threads = both or max(0, options.tensorflow_intra_op_parallelism)
    config.inter_op_parallelism_threads = both or max(0, options.tensorflow_inter_op_parallelism)
    if options.mixed_precision == "bfloat16":
        rewrites = config.graph_options.rewrite_options
        rewrites.auto_mixed_precision_onednn_bfloat16 = rewriter_config_pb2.RewriterConfig.ON
    if options.xla_cpu_compilation_enabled:
        level = config_pb2.OptimizerOptions.ON_1
        config.graph_options.optimizer_options.global_jit_level = level
    return config


def _enable_xla() -> None:
    flags = os.environ.get("TF_XLA_FLAGS", "")
    os.environ["TF_XLA_FLAGS"] = f"{flags} --tf_xla_auto_jit=1 --tf_xla_cpu_global_jit".strip()
