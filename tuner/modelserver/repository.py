"""Which models and versions are served: loading, finding, labelling, polling, unloading."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.config import model_server_config_pb2

from tuner.modelserver.executor import Servable
from tuner.modelserver.status import Code, ServingError, as_serving_error, invalid_argument

_LOG = logging.getLogger(__name__)

Load = Callable[[str, int, Path], Servable]
"""Loads a version and warms it up: (model name, version, folder)."""


@dataclass
class _Version:
    number: int
    path: Path
    state: int = ModelVersionStatus.START
    error: ServingError | None = None
    servable: Servable | None = None


@dataclass
class _Model:
    name: str
    config: Any
    versions: dict[int, _Version] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)

    def available(self) -> list[_Version]:
        found = [v for v in self.versions.values() if v.servable is not None]
        return sorted(found, key=lambda version: version.number)


@dataclass(frozen=True)
class RetryPolicy:
    """How often a version that failed to load is tried again."""

    retries: int = 5
    interval_s: float = 60.0


class Repository:
    """The models that are served.

    Args:
        load: loads one version; called in the threads that load.
        retry: for versions that fail to load.
        load_threads: versions loaded at once.
        unavailable_labels: allow a label to be given to a version that is not loaded.
    """

    def __init__(
        self,
        load: Load,
        *,
        retry: RetryPolicy = RetryPolicy(),
        load_threads: int = 1,
        unavailable_labels: bool = False,
    ) -> None:
        self._load, self._retry = load, retry
        self._load_threads = load_threads
        self._unavailable_labels = unavailable_labels
        self._models: dict[str, _Model] = {}
        self._latest: dict[str, Servable] = {}
        self._stopping = threading.Event()
        self._changing = threading.RLock()
        self._poller: threading.Thread | None = None

    # -- finding ---------------------------------------------------------------------------

    def find(self, name: str, version: int | None = None, label: str = "") -> Servable:
        """The servable that a request's model spec asks for: the latest unless it says more.

        Raises:
            ServingError: NOT_FOUND or INVALID_ARGUMENT, in TensorFlow Serving's words.
        """
        if version is None and not label:
            latest = self._latest.get(name)
            if latest is not None:
                return latest
            raise ServingError(Code.NOT_FOUND, f"Servable not found for request: Latest({name})")
        model = self._models.get(name)
        if label:
            if model is None or label not in model.labels:
                raise invalid_argument(f"Unrecognized servable version label: {label}")
            version = model.labels[label]
        found = None
        if model is not None and version is not None:
            found = model.versions.get(version)
        if found is None or found.servable is None:
            raise ServingError(
                Code.NOT_FOUND, f"Servable not found for request: Specific({name}, {version})"
            )
        return found.servable

    def statuses(
        self, name: str, version: int | None = None, label: str = ""
    ) -> list[tuple[int, int, ServingError | None]]:
        """(version, state, error) of each version known of a model, newest first.

        Raises:
            ServingError: NOT_FOUND where nothing is known.
        """
        model = self._models.get(name)
        if model is not None and label:
            if label not in model.labels:
                raise invalid_argument(f"Unrecognized servable version label: {label}")
            version = model.labels[label]
        known = [] if model is None else sorted(model.versions.values(), key=lambda v: -v.number)
        if version is not None:
            known = [v for v in known if v.number == version]
        if not known:
            wanted = "any versions" if version is None else f"version {version}"
            raise ServingError(Code.NOT_FOUND, f"Could not find {wanted} of model {name}")
        return [(v.number, v.state, v.error) for v in known]

    # -- changing --------------------------------------------------------------------------

    def apply(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        """Serve exactly the models of ``config``; returns when each is loaded or has failed.

        Raises:
            ServingError: the configuration is wrong; nothing has changed then.
            ServingError: UNKNOWN, a model has no version that loads.
        """
        wanted = _checked(config)
        with self._changing:
            for name in set(self._models) - set(wanted):
                self._aspire(self._models[name], {})
                self._forget(name)
            for name, model_config in wanted.items():
                model = self._models.setdefault(name, _Model(name, model_config))
                model.config = model_config
            self._refresh([self._models[name] for name in wanted])
            failed = [
                f"{{name: {name} version: {v.number}}}: {v.error.message if v.error else ''}"
                for name in wanted
                for v in self._models[name].versions.values()
                if v.state == ModelVersionStatus.END and v.error is not None
            ]
            if failed and any(not self._models[name].available() for name in wanted):
                raise ServingError(
                    Code.UNKNOWN,
                    f"{len(failed)} servable(s) did not become available: {'; '.join(failed)}",
                )
            for name in wanted:
                self._label(self._models[name])

    def poll_every(self, interval_s: float) -> None:
        """Look for new versions from now on, in a thread of its own."""
        self._poller = threading.Thread(
            target=self._poll, args=(interval_s,), name="version-poller", daemon=True
        )
        self._poller.start()

    def _poll(self, interval_s: float) -> None:
        while not self._stopping.wait(interval_s):
            with self._changing:
                try:
                    self._refresh(list(self._models.values()))
                except ServingError as error:
                    _LOG.error("Polling for versions: %s", error.message)

    def stop(self) -> None:
        """Stop polling and retrying; versions stay loaded."""
        self._stopping.set()
        if self._poller is not None:
            self._poller.join()

    def wait_until_served(self, poll_s: float) -> None:
        """Wait, looking again each ``poll_s``, until every model has a version that is loaded."""
        while not self._stopping.is_set():
            missing = [model.name for model in self._models.values() if not model.available()]
            if not missing:
                return
            self._stopping.wait(poll_s)
            with self._changing:
                self._refresh([self._models[name] for name in missing])

    def _refresh(self, models: Iterable[_Model]) -> None:
        models = list(models)
        plans = [(model, _aspired(model)) for model in models]
        todo = [
            (model, version)
            for model, aspired in plans
            for version in self._new_versions(model, aspired)
        ]
        workers = max(1, min(self._load_threads, len(todo)))
        if workers == 1:
            for model, version in todo:
                self._bring_up(model, version)
        else:
            with ThreadPoolExecutor(workers, thread_name_prefix="load") as pool:
                list(pool.map(lambda item: self._bring_up(*item), todo))
        for model, aspired in plans:
            self._aspire(model, aspired)

    def _new_versions(self, model: _Model, aspired: dict[int, Path]) -> list[_Version]:
        new = []
        for number, path in sorted(aspired.items()):
            known = model.versions.get(number)
            if known is None or (known.servable is None and known.error is None):
                new.append(model.versions.setdefault(number, _Version(number, path)))
        return new

    def _bring_up(self, model: _Model, version: _Version) -> None:
        version.state = ModelVersionStatus.LOADING
        for attempt in range(self._retry.retries + 1):
            try:
                version.servable = self._load(model.name, version.number, version.path)
            except Exception as error:  # noqa: BLE001 - whatever a model does, the server lives
                version.error = as_serving_error(error)
                _LOG.error(
                    "Loading {name: %s version: %d} failed (attempt %d of %d): %s",
                    model.name,
                    version.number,
                    attempt + 1,
                    self._retry.retries + 1,
                    version.error.message,
                )
                if attempt < self._retry.retries and self._stopping.wait(self._retry.interval_s):
                    break
                continue
            version.state, version.error = ModelVersionStatus.AVAILABLE, None
            self._publish(model)
            _LOG.info(
                "Successfully loaded servable version {name: %s version: %d}",
                model.name,
                version.number,
            )
            return
        version.state = ModelVersionStatus.END

    def _publish(self, model: _Model) -> None:
        available = model.available()
        if available:
            newest = available[-1].servable
            assert newest is not None
            self._latest[model.name] = newest
        else:
            self._latest.pop(model.name, None)

    def _aspire(self, model: _Model, aspired: dict[int, Path]) -> None:
        """Unload what is not aspired, but never the last version while a new one is wanted."""
        unwanted = [v for v in model.available() if v.number not in aspired]
        if aspired and not any(v.number in aspired for v in model.available()):
            unwanted = unwanted[:-1]
        for version in unwanted:
            servable, version.servable = version.servable, None
            version.state = ModelVersionStatus.UNLOADING
            self._publish(model)
            # Requests in flight hold the servable: it ends with the last of them.
            weakref.finalize(servable, _ended, version, model.name)
            del servable

    def _forget(self, name: str) -> None:
        self._latest.pop(name, None)
        self._models.pop(name, None)

    def _label(self, model: _Model) -> None:
        labels = dict(model.config.version_labels)
        for label, version in labels.items():
            known = model.versions.get(version)
            if (known is None or known.servable is None) and not self._unavailable_labels:
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label {label} to version {version} of model {model.name}, "
                    "which is not currently available for inference",
                )
        model.labels = labels


def _ended(version: _Version, name: str) -> None:
    version.state = ModelVersionStatus.END
    _LOG.info("Unloaded servable version {name: %s version: %d}", name, version.number)


def _checked(config: model_server_config_pb2.ModelServerConfig) -> dict[str, Any]:
    if not config.HasField("model_config_list"):
        raise invalid_argument("Only model_config_list is served; custom_model_config is not")
    wanted: dict[str, Any] = {}
    for item in config.model_config_list.config:
        if not item.name:
            raise invalid_argument("A model_config needs a name")
        if item.name in wanted:
            raise invalid_argument(
                f"Illegal to list model {item.name} multiple times in config list"
            )
        if item.model_platform not in ("", "tensorflow"):
            raise invalid_argument(
                f"model_platform of {item.name} is {item.model_platform}; only tensorflow is served"
            )
        if not Path(item.base_path).is_dir():
            raise ServingError(
                Code.NOT_FOUND,
                f"Could not find base path {item.base_path} for servable {item.name}",
            )
        wanted[item.name] = item
    return wanted


def _aspired(model: _Model) -> dict[int, Path]:
    """Versions on disk that the model's policy wants."""
    try:
        children = list(Path(model.config.base_path).iterdir())
    except OSError as error:
        _LOG.warning("Could not find base path of servable %s: %s", model.name, error)
        return {v.number: v.path for v in model.available()}
    on_disk = {int(p.name): p for p in children if p.name.isdecimal() and p.is_dir()}
    policy = model.config.model_version_policy
    kind = policy.WhichOneof("policy_choice") or "latest"
    if kind == "all":
        chosen = set(on_disk)
    elif kind == "specific":
        chosen = set(policy.specific.versions)
        for number in sorted(chosen - set(on_disk)):
            _LOG.warning("Version %d of servable %s was not found on disk", number, model.name)
    else:
        chosen = set(sorted(on_disk)[-(policy.latest.num_versions or 1) :])
    if not chosen & set(on_disk):
        _LOG.warning(
            "No versions of servable %s found under base path %s. Did you forget to name your "
            "leaf directory as a number (eg. '/1/')?",
            model.name,
            model.config.base_path,
        )
        return {v.number: v.path for v in model.available()}
    return {number: on_disk[number] for number in chosen & set(on_disk)}


def single_model_config(name: str, base_path: str) -> model_server_config_pb2.ModelServerConfig:
    """The configuration that ``--model_name`` and ``--model_base_path`` stand for."""
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform="tensorflow")
    return config
