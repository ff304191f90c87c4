"""The cache folder: where it is, how entries appear in it whole, and how they are checked."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuner.errors import UnavailableError

_UNFINISHED = ".unfinished-"


def cache_folder(chosen: Path | None = None) -> Path:
    """``chosen``, else ``$TUNER_CACHE``, ``$XDG_CACHE_HOME/tuner`` or ``~/.cache/tuner``."""
    if chosen is not None:
        return Path(chosen).absolute()
    if own := os.environ.get("TUNER_CACHE"):
        return Path(own).absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache").absolute() / "tuner"


def make_folder(folder: Path) -> Path:
    """Create ``folder`` and its parents.

    Raises:
        UnavailableError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "permission denied")
    except OSError as error:
        raise UnavailableError(
            f"{folder}: the cache cannot be written ({error.strerror}); "
            "set TUNER_CACHE to a folder that can"
        ) from None
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; it goes with the process that holds it, however that ends."""
    with (make_folder(folder) / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """An empty folder that becomes ``target`` if the block ends well, at once or not at all.

    To be used under ``locked(target.parent)``: what killed processes left there is removed.
    """
    for left in target.parent.glob(_UNFINISHED + "*"):
        shutil.rmtree(left, ignore_errors=True)
    unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=target.parent))
    try:
        yield unfinished
        unfinished.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def checksum(folder: Path) -> str:
    """SHA-256 over the relative names, sizes and contents of all files below ``folder``."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
