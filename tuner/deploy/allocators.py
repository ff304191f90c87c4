"""Memory allocators that can be preloaded into the server, found by the dynamic linker's cache."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Mapping

from tuner.errors import UnavailableError

SONAMES: Mapping[str, tuple[str, ...]] = {
    "tcmalloc": ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4"),
    "jemalloc": ("libjemalloc.so.2", "libjemalloc.so.1"),
}
"""Allocator -> library names, the preferred one first."""

PACKAGES: Mapping[str, str] = {"tcmalloc": "libtcmalloc-minimal4", "jemalloc": "libjemalloc2"}
"""Allocator -> Debian package that brings it."""


@functools.cache
def linker_cache() -> Mapping[str, str]:
    """Library name -> path, from ``ldconfig -p``; empty where there is no ``ldconfig``."""
    program = shutil.which("ldconfig", path="/sbin:/usr/sbin:/bin:/usr/bin")
    if program is None:
        return {}
    listing = subprocess.run([program, "-p"], capture_output=True, text=True, check=False).stdout
    found: dict[str, str] = {}
    for line in listing.splitlines():
        name, arrow, path = line.strip().partition(" => ")
        if arrow:
            # The native library stands first; a second entry is the 32-bit one.
            found.setdefault(name.split(" ")[0], path)
    return found


def library(allocator: str) -> str | None:
    """Path of the allocator's library, ``None`` where it is not installed."""
    paths = (linker_cache().get(name) for name in SONAMES[allocator])
    return next((path for path in paths if path), None)


def preload(allocator: str) -> dict[str, str]:
    """The variable that makes a process use the allocator; empty for ``system``.

    Raises:
        UnavailableError: the allocator is not installed.
    """
    if allocator == "system":
        return {}
    path = library(allocator)
    if path is None:
        raise UnavailableError(
            f"allocator {allocator} is not installed here ({SONAMES[allocator][0]}): "
            f"install {PACKAGES[allocator]}, or leave allocator at system"
        )
    return {"LD_PRELOAD": path}
