"""The registry of knobs: every setting of a deployment that a search space can name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from tuner.deploy.knob import CLIENT, Knob
from tuner.deploy.knob_table import TABLE
from tuner.measurement import Configuration, Scalar

KNOBS: Mapping[str, Knob] = MappingProxyType({knob.name: knob for knob in TABLE})
"""Name -> knob, in the order of the documentation."""

NOT_KNOBS: Mapping[str, str] = MappingProxyType(
    {
        "batching_parameters_file": "written from the batching knobs",
        "enable_per_model_batching_parameters": "one model is tuned at a time",
        "tensorflow_session_config_file": "its thread counts are overwritten by the flags anyway",
        "grpc_socket_path": "how the deployer is reached, not a choice of the model's",
        "port": "chosen free by the deployer",
        "rest_api_port": "chosen free by the deployer",
        "model_name": "given by the study",
        "model_base_path": "given by the study",
        "model_config_file": "written when several models or copies are served",
        "model_config_file_poll_wait_seconds": "the models of a trial do not change",
        "saved_model_tags": "given by the model",
        "monitoring_config_file": "a deployer's option",
        "ssl_config_file": "nothing listens beyond this machine",
        "max_num_load_retries": "fixed by the deployer: a model that cannot load ends the trial",
        "load_retry_interval_micros": "fixed by the deployer",
        "enable_grpc_healthcheck_service": "readiness is asked by GetModelStatus",
        "version": "prints and ends",
    }
)
"""Flags of ``tensorflow_model_server`` that no space can name, and why."""

ELSEWHERE = ("load", "other_models")
"""Names that may stand in a configuration without turning anything on the server's command line."""


def nearest(name: str) -> str:
    """A hint for an unknown knob: why it is none, or the names that come nearest."""
    if name in NOT_KNOBS:
        return f"{name} is not a knob: {NOT_KNOBS[name]}"
    close = difflib.get_close_matches(name, KNOBS, n=3, cutoff=0.5)
    hint = f"nearest: {', '.join(close)}" if close else "`tuner doctor --knobs` lists them"
    return f"unknown knob {name!r}; {hint}"


def knob_value(configuration: Configuration, name: str) -> Scalar | None:
    """The configuration's value of a knob, else the knob's default."""
    return configuration.get(name, KNOBS[name].default)


def has_effect(name: str, configuration: Configuration) -> bool:
    """Whether the knob means anything under the configuration's other values."""
    return all(
        knob_value(configuration, other) in values for other, values in KNOBS[name].needs.items()
    )


def server_identity(
    configuration: Configuration, others: tuple[str, ...] = ()
) -> tuple[tuple[str, str], ...]:
    """What decides whether a running server can be kept for another configuration.

    Two configurations with the same identity run the same server: they differ at most in load
    and client settings (``protocol``: both ports are open), and in knobs that mean nothing under
    the others' values. Pass the names of the other models served, if any.
    """
    parts = []
    for name, knob in KNOBS.items():
        value = knob_value(configuration, name)
        if knob.applied == CLIENT or value == knob.default or not has_effect(name, configuration):
            continue
        parts.append((name, f"{type(value).__name__}:{value!r}"))
    return (*parts, *(("other", name) for name in others))
