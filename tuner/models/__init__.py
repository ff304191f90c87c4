"""DNNs as SavedModels: a catalogue that is built here, and models of the user's own."""

from tuner.models.catalogue import Recipe, available
from tuner.models.record import ModelRecord, TensorSpec
from tuner.models.speed import Speed, measure_speed
from tuner.models.store import DEFAULT_SIGNATURE, build, catalogued, resolve

__all__ = [
    "DEFAULT_SIGNATURE",
    "ModelRecord",
    "Recipe",
    "Speed",
    "TensorSpec",
    "available",
    "build",
    "catalogued",
    "measure_speed",
    "resolve",
]
