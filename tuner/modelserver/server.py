"""Puts the parts together: models loaded and warm first, then the ports open."""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path
from types import FrameType, SimpleNamespace

import grpc
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2
from tensorflow_serving.config import model_server_config_pb2

from tuner.modelserver import grpc_server
from tuner.modelserver.batching import read_options
from tuner.modelserver.executor import ExecutionSettings, Servable
from tuner.modelserver.flags import schedulable_cpus
from tuner.modelserver.model_service import HealthService, ModelService
from tuner.modelserver.predict import Predictor
from tuner.modelserver.protos import SSLConfig, read_text_proto
from tuner.modelserver.repository import Repository, RetryPolicy, single_model_config

_LOG = logging.getLogger(__name__)
_PREDICTION = "tensorflow.serving.PredictionService"
_MODEL = "tensorflow.serving.ModelService"
_HEALTH = "grpc.health.v1.Health"
_GRACE_S = 5.0


class Server:
    """A model server with these options.

    Raises:
        ServingError: a file or an option is wrong, or no version of a model loads.
    """

    def __init__(self, options: SimpleNamespace) -> None:
        self._options = options
        if options.xla_cpu_compilation_enabled:
            _enable_xla()
        self._settings = ExecutionSettings(
            config=session_config(options),
            tags=tuple(filter(None, options.saved_model_tags.split(","))),
            batching=read_options(options.batching_parameters_file or None)
            if options.enable_batching
            else None,
            per_model_batching=options.enable_per_model_batching_parameters,
        )
        self.repository = Repository(
            self._load,
            retry=RetryPolicy(
                options.max_num_load_retries, options.load_retry_interval_micros / 1e6
            ),
            load_threads=options.num_load_threads or schedulable_cpus(),
        )
        self._grpc: grpc.Server | None = None
        self._ended = threading.Event()

    def start(self) -> None:
        """Load and warm the models, then open the ports."""
        options = self._options
        self.repository.apply(self._model_config())
        self.repository.wait_until_served(options.file_system_poll_wait_seconds or 1)
        if options.file_system_poll_wait_seconds > 0:
            self.repository.poll_every(options.file_system_poll_wait_seconds)
        self._start_grpc()

    def stop(self, *_: int | FrameType | None) -> None:
        """Take no new requests, let those in flight end, then return from ``wait``."""
        self._ended.set()

    def wait(self) -> None:
        """Serve until ``stop``."""
        self._ended.wait()
        self.repository.stop()
        if self._grpc is not None:
            self._grpc.stop(_GRACE_S).wait()

    def _load(self, name: str, version: int, path: Path) -> Servable:
        servable = Servable(name, version, path, self._settings)
        servable.first_inference()
        return servable

    def _model_config(self) -> model_server_config_pb2.ModelServerConfig:
        options = self._options
        if options.model_config_file:
            config = model_server_config_pb2.ModelServerConfig()
            return read_text_proto(options.model_config_file, config)
        return single_model_config(options.model_name, options.model_base_path)

    def _start_grpc(self) -> None:
        options = self._options
        predictor = Predictor(
            self.repository, as_content=options.enable_serialization_as_tensor_content
        )
        models = ModelService(self.repository)
        methods: dict[str, grpc_server.Method] = {
            f"/{_PREDICTION}/Predict": predictor.predict,
            f"/{_PREDICTION}/GetModelMetadata": models.metadata,
            f"/{_MODEL}/GetModelStatus": models.status,
            f"/{_MODEL}/HandleReloadConfigRequest": models.reload,
        }
        streams: dict[str, grpc_server.StreamMethod] = {}
        if options.enable_grpc_healthcheck_service:
            health = HealthService({_PREDICTION, _MODEL})
            methods[f"/{_HEALTH}/Check"] = health.check
            streams[f"/{_HEALTH}/Watch"] = health.watch
        self._grpc = grpc_server.build(
            methods,
            streams,
            max_threads=options.grpc_max_threads,
            channel_arguments=options.grpc_channel_arguments,
        )
        credentials = _credentials(options.ssl_config_file)
        if options.port:
            address = f"{options.bind_address}:{options.port}"
            grpc_server.listen(self._grpc, address, credentials)
            _LOG.info("Running gRPC ModelServer at %s ...", address)
        if options.grpc_socket_path:
            grpc_server.listen(self._grpc, f"unix:{options.grpc_socket_path}", None)
            _LOG.info("Running gRPC ModelServer at UNIX socket %s ...", options.grpc_socket_path)
        self._grpc.start()


def session_config(options: SimpleNamespace) -> config_pb2.ConfigProto:
    """The session's ConfigProto: the file's, with thread counts always from the flags."""
    config = config_pb2.ConfigProto()
    if options.tensorflow_session_config_file:
        read_text_proto(options.tensorflow_session_config_file, config)
    both = options.tensorflow_session_parallelism
    config.intra_op_parallelism_threads = both or options.tensorflow_intra_op_parallelism
    config.inter_op_parallelism_threads = both or options.tensorflow_inter_op_parallelism
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


def _credentials(path: str) -> grpc.ServerCredentials | None:
    if not path:
        return None
    config = read_text_proto(path, SSLConfig())
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )


def install_signal_handlers(server: Server) -> None:
    """SIGTERM and SIGINT end the server gracefully."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.stop)


def versions() -> str:
    """What ``--version`` says."""
    return f"TensorFlow ModelServer: embedded in tuner\nTensorFlow Library: {tf.__version__}"
