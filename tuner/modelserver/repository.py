"""Which models and versions are served: loading, finding, labelling, polling, unloading."""

from __future__ import annotations

import logging
import re
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.config import model_server_config_pb2

from tuner.modelserver import deadline
from tuner.modelserver.executor import Servable
from tuner.modelserver.model_config import checked
from tuner.modelserver.status import Code, ServingError, as_serving_error, invalid_argument

_LOG = logging.getLogger(__name__)
_VERSION = re.compile(r"[0-9]{1,18}")
"""A version by its name alone: a file that is called so is one that cannot be loaded."""

Load = Callable[[str, int, Path], Servable]
"""Loads a version and warms it up: (model name, version, folder)."""


@dataclass
class _Version:
    number: int
    path: Path
    state: int = ModelVersionStatus.START
    error: ServingError | None = None
    servable: Servable | None = None
    tried: bool = False
    """Loaded or failed since it is wanted: a version that failed is tried anew once it was away."""


@dataclass
class _Model:
    name: str
    config: Any
    """Of the model; ``None`` once no configuration names it: what became of it is still told."""
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


@dataclass(frozen=True)
class LabelRules:
    """The flags on labels of versions that are not loaded, which TensorFlow Serving refuses."""

    unavailable: bool = False
    """``--allow_version_labels_for_unavailable_models``: a label that is new may be given so."""
    any_unavailable: bool = False
    """``--force_allow_any_version_labels_for_unavailable_models``, on top: any label."""

    def allow(self, moves: bool) -> bool:
        """Whether a label may go to a version that is not loaded; ``moves``: it had another."""
        return self.unavailable and (self.any_unavailable or not moves)


class Repository:
    """The models that are served.

    Args:
        load: loads one version; called in the threads that load.
        retry: for versions that fail to load.
        load_threads: versions loaded at once.
        labels: when a label may be given to a version that is not loaded.
    """

    def __init__(
        self,
        load: Load,
        *,
        retry: RetryPolicy = RetryPolicy(),
        load_threads: int = 1,
        labels: LabelRules = LabelRules(),
    ) -> None:
        self._load, self._retry = load, retry
        self._load_threads = load_threads
        self._labels = labels
        self._models: dict[str, _Model] = {}
        self._configured = False
        self._latest: dict[str, Servable] = {}
        self._stopping = threading.Event()
        self._changing = threading.RLock()
        self._poller: threading.Thread | None = None

    # -- finding ---------------------------------------------------------------------------

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Servable:
        """The servable that a request's model spec asks for: the latest unless it says more.

        Raises:
            ServingError: NOT_FOUND or INVALID_ARGUMENT, in TensorFlow Serving's words.
        """
        if version is None and label is None:
            latest = self._latest.get(name)
            if latest is not None:
                return latest
            raise ServingError(Code.NOT_FOUND, f"Servable not found for request: Latest({name})")
        model = self._models.get(name)
        if label is not None:
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
        self, name: str, version: int | None = None
    ) -> list[tuple[int, int, ServingError | None]]:
        """(version, state, error) of each version ever wanted of a model, newest first.

        Raises:
            ServingError: NOT_FOUND where nothing is known.
        """
        model = self._models.get(name)
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
            ServingError: UNKNOWN, a model that is new has no version that loads.
        """
        with self._changing:
            first = not self._configured
            if config.WhichOneof("config") is None:
                _LOG.info("Taking no action for empty config.")
                return
            served = {name: m.config for name, m in self._models.items() if m.config is not None}
            wanted = checked(config, served)
            if not first:
                _check_folders(wanted.values())
            labels = {name: self._labelled(item) for name, item in wanted.items()}
            self._configured = True
            for name in set(served) - set(wanted):
                model = self._models[name]
                model.config, model.labels = None, {}
                self._aspire(model, {})
            for name, item in wanted.items():
                model = self._models.setdefault(name, _Model(name, item))
                model.config, model.labels = item, labels[name]
            self._refresh([self._models[name] for name in wanted])
            new = [self._models[name] for name in wanted if name not in served]
            self._check_loaded(new, "servable" if first else "model")

    def _check_loaded(self, models: list[_Model], kind: str) -> None:
        """TensorFlow Serving's error where a model has no version that loaded, but one that failed.

        Args:
            kind: what it calls a model: a servable at start, a model at a reload.
        """
        failed = [
            (model, version)
            for model in models
            if not model.available()
            for version in model.versions.values()
            if version.error is not None
        ]
        if failed:
            told = "".join(
                f"{{{{name: {model.name} version: {version.number}}} due to error: "
                f"{version.error}}}, "
                for model, version in failed
            )
            raise ServingError(
                Code.UNKNOWN, f"{len(failed)} {kind}(s) did not become available: {{{told}}}"
            )

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
                    self._refresh([m for m in self._models.values() if m.config is not None])
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
            with self._changing:
                missing = [
                    model
                    for model in self._models.values()
                    if model.config is not None and not model.available()
                ]
                self._check_loaded(missing, "servable")
            if not missing or self._stopping.wait(poll_s):
                return
            with self._changing:
                self._refresh(missing)

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
            version = model.versions.setdefault(number, _Version(number, path))
            if not version.tried:
                version.tried, version.path, version.error = True, path, None
                new.append(version)
        return new

    def _bring_up(self, model: _Model, version: _Version) -> None:
        deadline.begin(None)  # a call that reloads may be over before the models are warm
        version.state = ModelVersionStatus.LOADING
        if not version.path.is_dir():
            version.state, version.error = ModelVersionStatus.END, _no_folder(model, version)
            _LOG.error("%s", version.error.message)
            return
        for attempt in range(max(0, self._retry.retries) + 1):
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
        for version in model.versions.values():
            version.tried = version.tried and version.number in aspired
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

    def _labelled(self, config: Any) -> dict[str, int]:
        """The labels of a model's configuration, if each may go to its version as of now.

        A version that the same configuration would load is not available yet, as in TensorFlow
        Serving: a client that names the label must never find it without a version.
        """
        model = self._models.get(config.name)
        available = {v.number for v in model.available()} if model else set()
        labels = dict(config.version_labels)
        for label, version in labels.items():
            moves = model is not None and model.labels.get(label, version) != version
            if version not in available and not self._labels.allow(moves):
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label to version {version} of model {config.name}, "
                    "which is not currently available for inference",
                )
        return labels


def _ended(version: _Version, name: str) -> None:
    if version.state == ModelVersionStatus.UNLOADING:  # and not wanted again in the meantime
        version.state = ModelVersionStatus.END
    _LOG.info("Unloaded servable version {name: %s version: %d}", name, version.number)


def _check_folders(configs: Iterable[Any]) -> None:
    """Refuse what TensorFlow Serving would wait for, with the client, until the folder comes."""
    for item in configs:
        if not Path(item.base_path).is_dir():
            raise ServingError(
                Code.NOT_FOUND,
                f"Could not find base path {item.base_path} for servable {item.name}",
            )


def _no_folder(model: _Model, version: _Version) -> ServingError:
    return ServingError(
        Code.FAILED_PRECONDITION,
        "Error while attempting to reserve resources to load servable "
        f"{{name: {model.name} version: {version.number}}}: {version.path}; Not a directory",
    )


def _aspired(model: _Model) -> dict[int, Path]:
    """Versions on disk that the model's policy wants."""
    try:
        children = list(Path(model.config.base_path).iterdir())
    except OSError as error:
        _LOG.warning("Could not find base path of servable %s: %s", model.name, error)
        return {v.number: v.path for v in model.available()}
    on_disk = {int(p.name): p for p in children if _VERSION.fullmatch(p.name)}
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
    return {number: on_disk[number] for number in chosen & set(on_disk)}
