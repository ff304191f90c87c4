"""What the programs that tuner starts inherit of its environment."""

from __future__ import annotations

import os

STORAGE = "TUNER_STORAGE"
"""A storage URL may be given by this variable: a command line can be read by everybody."""


def environment() -> dict[str, str]:
    """This process's environment without the storage's URL.

    The URL holds a password, and neither a server nor a load client has any use for it.
    """
    return {name: value for name, value in os.environ.items() if name != STORAGE}
