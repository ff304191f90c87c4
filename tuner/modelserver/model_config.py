"""What a ModelServerConfig may say: TensorFlow Serving's checks of it, in its order and words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tensorflow_serving.config import model_server_config_pb2

from tuner.modelserver.status import invalid_argument

_ABSOLUTE = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*://")
"""An absolute path, or a URI."""
_PLATFORM = "tensorflow"
_TYPES = {
    model_server_config_pb2.MODEL_TYPE_UNSPECIFIED: "",
    model_server_config_pb2.TENSORFLOW: _PLATFORM,
}
"""``model_type``, which says the same as ``model_platform`` and is out of use."""


def checked(
    config: model_server_config_pb2.ModelServerConfig, served: Mapping[str, Any]
) -> dict[str, Any]:
    """The models of ``config`` by name.

    Args:
        served: the configuration, by name, of each model that is served now.

    Raises:
        ServingError: INVALID_ARGUMENT, what TensorFlow Serving does not take.
    """
    if not config.HasField("model_config_list"):
        raise invalid_argument("Only model_config_list is served; custom_model_config is not")
    wanted: dict[str, Any] = {}
    for item in config.model_config_list.config:
        if item.name in wanted:
            raise invalid_argument(
                f"Illegal to list model {item.name} multiple times in config list"
            )
        wanted[item.name] = item
    for item in wanted.values():
        if not _ABSOLUTE.match(item.base_path):
            raise invalid_argument(
                f"Expected model {item.name} to have an absolute path or URI; "
                f"got base_path()={item.base_path}"
            )
    for item in wanted.values():
        _check_platform(item, served.get(item.name))
    return wanted


def _check_platform(item: Any, served: Any) -> None:
    platform = _platform(item)
    if served is not None and platform != _platform(served):
        raise invalid_argument(
            f"Illegal to change a model's platform. For model {item.name} platform was "
            f"{_platform(served)} and new platform requested is {platform}"
        )
    if platform != _PLATFORM:
        raise invalid_argument(f"Model {item.name} requests unsupported platform {platform}")


def _platform(item: Any) -> str:
    kind = _TYPES.get(item.model_type, f"of model_type {item.model_type}")
    if kind and item.model_platform:
        raise invalid_argument(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and "
            f"ModelServerConfig::model_platform, model name is {item.name}"
        )
    if not kind and not item.model_platform:
        raise invalid_argument(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            f"ModelServerConfig::model_platform, model name is {item.name}"
        )
    return kind or str(item.model_platform)


def single_model_config(name: str, base_path: str) -> model_server_config_pb2.ModelServerConfig:
    """The configuration that ``--model_name`` and ``--model_base_path`` stand for."""
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform=_PLATFORM)
    return config
