"""A chosen configuration as files to run it on a real TensorFlow Serving."""

from __future__ import annotations

from tuner.export.bundle import IMAGE, About, LimitKept, Measured, write

__all__ = ["IMAGE", "About", "LimitKept", "Measured", "write"]
