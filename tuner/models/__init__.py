"""DNNs as SavedModels: a catalogue that is built here, and models of the user's own."""

from tuner.models.catalogue import available
from tuner.models.record import ModelRecord, TensorSpec
from tuner.models.store import build, resolve

__all__ = ["ModelRecord", "TensorSpec", "available", "build", "resolve"]
