"""Deploying: a configuration becomes a running server, and ends with its context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.deploy.base import Deployer

NAMES = ("embedded", "binary", "docker", "fake")


def make(name: str, **options: Any) -> Deployer:
    """A deployer by name, with its own options (``server_binary``, ``image``, ``monitoring`` …).

    Raises:
        UsageError: no such deployer, or an option that it does not have.
        UnavailableError: this machine does not have it, and why.
    """
    import importlib
    import inspect

    from tuner.errors import UsageError

    if name not in NAMES:
        raise UsageError(f"no deployer {name!r}; there are {', '.join(NAMES)}")
    module = importlib.import_module(f"tuner.deploy.{name}")
    kind = getattr(module, f"{name.capitalize()}Deployer")
    known = inspect.signature(kind).parameters
    for option in options:
        if option not in known:
            raise UsageError(f"deployer {name} has no option {option!r}; it has {', '.join(known)}")
    deployer: Deployer = kind(**options)
    return deployer
