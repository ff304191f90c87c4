"""A chosen configuration as files to run it on a real TensorFlow Serving."""

from __future__ import annotations

from tuner.export.bundle import About, write

__all__ = ["About", "write"]
