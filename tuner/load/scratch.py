"""A stage's folder: in memory where there is such a place, and gone when the stage is.

A stage that was killed cannot clean up; the next one does it for it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "tuner-load-"
MEMORY = Path("/dev/shm")


def root() -> Path:
    """Where folders are made: files in memory are shared memory, never disk traffic."""
    return MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """An empty folder for as long as the context lasts."""
    sweep()
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", dir=root()) as path:
        yield Path(path)


def sweep() -> None:
    """Remove folders of this user's stages whose process has gone."""
    for path in root().glob(f"{PREFIX}*"):
        match = re.match(rf"{PREFIX}(\d+)-", path.name)
        with contextlib.suppress(OSError):
            if match and path.stat().st_uid == os.getuid() and not _alive(int(match[1])):
                shutil.rmtree(path)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
