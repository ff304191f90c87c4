"""Puts the parts together: models loaded and warm first, then the ports open."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace

import grpc
import tensorflow as tf
from tensorflow_serving.config import model_server_config_pb2

from tuner.modelserver import grpc_server, rest
from tuner.modelserver.batching import read_options
from tuner.modelserver.cache import ResponseCache
from tuner.modelserver.executor import ExecutionSettings, Servable
from tuner.modelserver.flags import schedulable_cpus
from tuner.modelserver.http1.server import Http1Server
from tuner.modelserver.http2.transport import Method
from tuner.modelserver.idle_threads import IdleThreads
from tuner.modelserver.inference import Api, Inference
from tuner.modelserver.metrics import Metrics
from tuner.modelserver.model_config import single_model_config
from tuner.modelserver.model_service import HealthService, ModelService
from tuner.modelserver.protos import (
    MonitoringConfig,
    SSLConfig,
    read_nonempty,
    read_text_proto,
)
from tuner.modelserver.repository import LabelRules, Repository, RetryPolicy
from tuner.modelserver.scheduler import BatchScheduler
from tuner.modelserver.session import session_config
from tuner.modelserver.status import ServingError
from tuner.modelserver.warmup import warm_up

_LOG = logging.getLogger(__name__)
_PREDICTION = "tensorflow.serving.PredictionService"
_MODEL = "tensorflow.serving.ModelService"
_HEALTH = "grpc.health.v1.Health"
_GRACE_S = 5.0
_OBJECTS_A_COLLECTION = 50_000
"""A request's JSON is hundreds of lists, none in a cycle: looking for cycles at every 700th object,
Python's default, doubled what an image over REST costs."""
_DEFAULT_TAGS = ("serve",)


class Server:
    """A model server with these options.

    Raises:
        ServingError: a file or an option is wrong, or no version of a model loads.
    """

    def __init__(self, options: SimpleNamespace) -> None:
        self._options = options
        for path in (options.platform_config_file, options.thread_pool_factory_config_file):
            if path:  # of no meaning here, but where it cannot be read production does not start
                read_nonempty(path)
        self._rest_refusal = ""
        monitoring = MonitoringConfig()
        if options.monitoring_config_file and options.rest_api_port:
            try:
                read_text_proto(options.monitoring_config_file, monitoring)
            except ServingError as error:
                self._rest_refusal = f"The REST API stays closed: {error.message}"
        prometheus = monitoring.prometheus_config
        self._metrics_path = (
            (prometheus.path or rest.PROMETHEUS_PATH) if prometheus.enable else None
        )
        self._metrics = Metrics() if prometheus.enable else None
        config = session_config(options)
        batching = scheduler = None
        if options.enable_batching:
            batching = read_options(options.batching_parameters_file or None)
            scheduler = BatchScheduler(batching.num_batch_threads)
            self._idle_threads = IdleThreads(config, batching.num_batch_threads)
        self._settings = ExecutionSettings(
            config=config,
            tags=tuple(filter(None, options.saved_model_tags.split(","))) or _DEFAULT_TAGS,
            batching=batching,
            scheduler=scheduler,
            per_model_batching=options.enable_per_model_batching_parameters,
            metrics=self._metrics,
        )
        self._inference = Inference(
            as_content=options.enable_serialization_as_tensor_content,
            check_method_name=options.enable_signature_method_name_check,
            metrics=self._metrics,
        )
        self._cache = (
            ResponseCache(options.response_cache_bytes) if options.response_cache_bytes else None
        )
        self.repository = Repository(
            self._load,
            retry=RetryPolicy(
                options.max_num_load_retries, options.load_retry_interval_micros / 1e6
            ),
            load_threads=options.num_load_threads or schedulable_cpus(),
            labels=LabelRules(
                options.allow_version_labels_for_unavailable_models,
                options.force_allow_any_version_labels_for_unavailable_models,
            ),
        )
        self._grpc: grpc_server.GrpcServer | None = None
        self._rest: Http1Server | None = None
        self._ended = threading.Event()

    def start(self) -> None:
        """Load and warm the models, then open the ports.

        Raises:
            ServingError: the models cannot be served.
            OSError: a port is taken.
        """
        options = self._options
        self.repository.apply(self._model_config())
        self.repository.wait_until_served(max(1, options.file_system_poll_wait_seconds))
        if options.file_system_poll_wait_seconds > 0:
            self.repository.poll_every(options.file_system_poll_wait_seconds)
        if options.model_config_file and options.model_config_file_poll_wait_seconds > 0:
            threading.Thread(target=self._poll_config, name="config-poller", daemon=True).start()
        models = ModelService(self.repository)
        if self._rest_refusal:  # as in TensorFlow Serving, whose gRPC API serves all the same
            _LOG.error("%s", self._rest_refusal)
        elif options.rest_api_port:
            self._start_rest(models)
        self._start_grpc(models)
        gc.set_threshold(_OBJECTS_A_COLLECTION, 20, 20)
        _LOG.info("Ready: %s", ", ".join(self._addresses()))

    def stop(self, *_: int | FrameType | None) -> None:
        """Take no new requests, let those in flight end, then return from ``wait``."""
        self._ended.set()

    def wait(self) -> None:
        """Serve until ``stop``."""
        self._ended.wait()
        if self._rest is not None:
            self._rest.stop(_GRACE_S)
        if self._grpc is not None:
            self._grpc.stop(_GRACE_S)
        self.repository.stop()

    def _addresses(self) -> Iterator[str]:
        options = self._options
        if options.port:
            yield f"gRPC at {options.bind_address}:{options.port}"
        if options.grpc_socket_path:
            yield f"gRPC at unix:{options.grpc_socket_path}"
        if options.rest_api_port and not self._rest_refusal:
            yield f"REST at http://{options.bind_address}:{options.rest_api_port}/v1/models/"
        if self._metrics_path and options.rest_api_port:
            yield f"metrics at {self._metrics_path}"

    def _load(self, name: str, version: int, path: Path) -> Servable:
        options = self._options
        servable = Servable(name, version, path, self._settings)
        if options.enable_model_warmup:
            iterations = options.num_request_iterations_for_warmup
            warm_up(servable, path, self._inference, iterations)
        servable.first_inference()
        if options.flush_filesystem_caches:
            _drop_from_page_cache(path)
        return servable

    def _model_config(self) -> model_server_config_pb2.ModelServerConfig:
        options = self._options
        if options.model_config_file:
            config = model_server_config_pb2.ModelServerConfig()
            return read_text_proto(options.model_config_file, config)
        return single_model_config(options.model_name, options.model_base_path)

    def _poll_config(self) -> None:
        known = self._model_config()
        while not self._ended.wait(self._options.model_config_file_poll_wait_seconds):
            try:
                found = self._model_config()
                if found != known:
                    self.repository.apply(found)
                    known = found
            except ServingError as error:
                _LOG.error("Re-reading the model config file: %s", error.message)

    def _start_rest(self, models: ModelService) -> None:
        options = self._options
        app = rest.RestApi(
            Api(self.repository, self._inference, "REST", self._metrics, self._cache),
            self._inference,
            models,
            metrics=self._metrics,
            metrics_path=self._metrics_path,
            timeout_s=options.rest_api_timeout_in_ms / 1e3 or None,
            cors=options.enable_cors_support,
        )
        # TensorFlow Serving's event loop holds one of them for ever.
        threads = max(options.rest_api_num_threads - 1, 1)
        self._rest = Http1Server(app.answer, options.bind_address, options.rest_api_port, threads)
        self._rest.start()
        _LOG.info("Exporting HTTP/REST API at:%s:%d", options.bind_address, options.rest_api_port)

    def _start_grpc(self, models: ModelService) -> None:
        options = self._options
        api = Api(self.repository, self._inference, "GRPC", self._metrics, self._cache)
        methods: dict[str, Method] = {
            f"/{_PREDICTION}/Predict": api.predict,
            f"/{_PREDICTION}/Classify": api.classify,
            f"/{_PREDICTION}/Regress": api.regress,
            f"/{_PREDICTION}/MultiInference": api.multi_inference,
            f"/{_PREDICTION}/GetModelMetadata": models.metadata,
            f"/{_MODEL}/GetModelStatus": models.status,
            f"/{_MODEL}/HandleReloadConfigRequest": models.reload,
        }
        if options.enable_grpc_healthcheck_service:
            health = HealthService()
            methods[f"/{_HEALTH}/Check"] = health.check
            methods[f"/{_HEALTH}/Watch"] = health.watch
        self._grpc = grpc_server.build(
            methods,
            max_threads=options.grpc_max_threads,
            channel_arguments=options.grpc_channel_arguments,
            credentials=_credentials(options.ssl_config_file),
        )
        if options.port:
            address = f"{options.bind_address}:{options.port}"
            self._grpc.listen(address)
            _LOG.info("Running gRPC ModelServer at %s ...", address)
        if options.grpc_socket_path:
            self._grpc.listen(f"unix:{options.grpc_socket_path}")
            _LOG.info("Running gRPC ModelServer at UNIX socket %s ...", options.grpc_socket_path)
        self._grpc.start()


def _drop_from_page_cache(path: Path) -> None:
    for file in path.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


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
