"""Load stages: seeded arrivals, real requests, every latency kept; usable against any TF Serving.

Names are looked up on first use, so that the load generator's own process, which lives in this
package too, starts without NumPy.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "LEVELS": "levels",
    "StageObserver": "base",
    "StagePlan": "base",
    "Neighbours": "neighbours",
    "calibrate": "levels",
    "disturbance": "machine",
    "rate_for": "levels",
    "run_stage": "stage",
    "ScriptedServer": "scripted",
    "wait_until_quiet": "quiet",
}

__all__ = [
    "Neighbours",
    "ScriptedServer",
    "StageObserver",
    "StagePlan",
    "calibrate",
    "disturbance",
    "rate_for",
    "run_stage",
    "wait_until_quiet",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
