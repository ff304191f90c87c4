"""Deploying: a configuration becomes a running server, and ends with its context.

Imports happen on demand: the helper programs of this package have to start in milliseconds.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.deploy.base import Deployer
    from tuner.deploy.offers import Offers
    from tuner.space import Space

NAMES = ("embedded", "binary", "docker", "fake")


def make(name: str, **options: Any) -> Deployer:
    """A deployer by name, with its own options (``server_binary``, ``image`` …).

    With ``monitoring=True`` its deployments describe the batches that they ran, too.

    Raises:
        UsageError: no such deployer, or an option that it does not have.
        UnavailableError: this machine does not have it, and why.
    """
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
    if options.get("monitoring"):
        from tuner.deploy.monitored import MonitoredDeployer

        return MonitoredDeployer(deployer)
    return deployer


def check_space(space: Space, offers: Offers | None = None) -> None:
    """Refuse a space that cannot be deployed here; see ``tuner.deploy.check.check_space``."""
    from tuner.deploy import check

    check.check_space(space, offers)


def joining_note(space: Space, rows: int) -> str | None:
    """What to know where batching may join requests that the model cannot take together; see
    ``tuner.deploy.check.joining_note``."""
    from tuner.deploy import check

    return check.joining_note(space, rows)
