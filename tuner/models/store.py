"""Models in the cache: the catalogue's, built once, and SavedModels of the user's own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from tuner.errors import ModelError
from tuner.models import catalogue
from tuner.models.builder import VERSION
from tuner.models.cache import cache_folder, checksum, locked, make_folder, whole
from tuner.models.process import ProgramFailed, run_program
from tuner.models.record import ModelRecord
from tuner.models.savedmodel import BINARY, TEXT, read_signature

Progress = Callable[[str], None]
RECORD = "record.json"
DEFAULT_SIGNATURE = "serving_default"


def build(name: str, *, cache: Path | None = None, progress: Progress | None = None) -> ModelRecord:
    """A model of the catalogue as a SavedModel in the cache: built now, or found there intact.

    Several processes may ask at once: one builds, the others wait. A build that is killed leaves
    nothing; one whose files no longer have their checksum is made again.

    Raises:
        ModelError: no such model, a package that it needs is missing, or building it failed.
    """
    recipe = catalogue.recipe(name)
    tell = progress or (lambda line: None)
    cache = cache_folder(cache)
    home = cache / "models" / recipe.name
    base = home / recipe.key(cache)
    with locked(home):
        if found := _intact(base):
            return found
        if base.exists():
            tell(f"{recipe.name}: the copy in the cache is damaged; building it again")
        with whole(base) as folder:
            try:
                run_program(
                    "tuner.models.builder",
                    recipe.name,
                    str(folder),
                    str(cache),
                    on_line=lambda line: tell(f"{recipe.name}: {line}"),
                )
            except ProgramFailed as failure:
                raise ModelError(f"model {recipe.name!r} could not be built: {failure}") from None
            made = json.loads((folder / "made.json").read_text())
            (folder / "made.json").unlink()
            signature = read_signature(folder / str(VERSION))
            record = ModelRecord(
                name=recipe.name,
                path=base,
                version=VERSION,
                checksum=checksum(folder / str(VERSION)),
                inputs=signature.inputs,
                outputs=signature.outputs,
                workload=recipe.workload,
                versions=recipe.versions(cache),
                **made,
            )
            record.write(folder / RECORD)
    return record


def catalogued(*, cache: Path | None = None) -> list[tuple[catalogue.Recipe, ModelRecord | None]]:
    """Every recipe of the catalogue, with the record of its build if the cache has it.

    Other sizes of an image model come after it, where they are built. Nothing is built or
    verified here, so that listing is quick.
    """
    home = cache_folder(cache)
    found = []
    for name in catalogue.available():
        others = (home / "models").glob(f"{name}@*")
        sizes = sorted((other.name for other in others), key=lambda text: int(text.split("@")[1]))
        for recipe in map(catalogue.recipe, (name, *sizes)):
            record = _recorded(recipe, home)
            if record or recipe.name == name:
                found.append((recipe, record))
    return found


def _recorded(recipe: catalogue.Recipe, cache: Path) -> ModelRecord | None:
    try:
        return ModelRecord.read(cache / "models" / recipe.name / recipe.key(cache) / RECORD)
    except (ModelError, OSError, ValueError, TypeError, KeyError):
        return None


def resolve(
    name_or_folder: str | os.PathLike[str],
    *,
    signature: str | None = DEFAULT_SIGNATURE,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> ModelRecord:
    """The record of a model of the catalogue, by name, or of a SavedModel folder of the user's.

    A folder is a SavedModel itself or holds numbered versions, of which the highest counts. Its
    signature is read at once (``None``: ``serving_default``, or else the first); its size is counted by loading it once, in a child process, and
    kept in the cache.

    Raises:
        ModelError: neither a name nor a folder; or a SavedModel that cannot be read or loaded.
    """
    folder = Path(name_or_folder)
    try:
        os.fsencode(folder).decode()
    except UnicodeDecodeError:
        raise ModelError(
            f"{os.fsencode(folder)!r}: the path is not UTF-8, which neither a study nor a server can "
            "keep; rename it"
        ) from None
    if isinstance(name_or_folder, str) and _is_name(name_or_folder):
        if signature not in (None, DEFAULT_SIGNATURE):
            raise ModelError(
                f"model {name_or_folder!r} has the signature {DEFAULT_SIGNATURE!r} alone, not {signature!r}"
            )
        return build(name_or_folder, cache=cache, progress=progress)
    if not folder.exists():
        raise ModelError(
            f"{name_or_folder}: neither a SavedModel folder nor a model's name; "
            f"the names are {', '.join(catalogue.available())}"
        )
    return _own(folder.resolve(), signature, cache_folder(cache), progress or (lambda line: None))


def _is_name(text: str) -> bool:
    """Whether it reads as a name: one of the catalogue, or a bare word where no folder is."""
    base = text.partition("@")[0]
    return base in catalogue.available() or ("/" not in text and not Path(text).exists())


def _intact(base: Path) -> ModelRecord | None:
    try:
        record = ModelRecord.read(base / RECORD)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    version = base / str(record.version)
    return record if version.is_dir() and checksum(version) == record.checksum else None


def _own(folder: Path, wanted: str | None, cache: Path, tell: Progress) -> ModelRecord:
    version_folder, number = _version_folder(folder)
    signature = read_signature(version_folder, wanted)
    name = signature.name
    found = checksum(version_folder)
    identity = hashlib.sha256(os.fsencode(folder) + f"\0{found}".encode()).hexdigest()[:12]
    home = make_folder(cache / "own" / identity)
    base = folder
    if version_folder == folder or not _PLAIN_PATH.fullmatch(str(folder)):
        base = _laid_out(home, version_folder, number)
    by_name = "" if name == DEFAULT_SIGNATURE else f"{hashlib.sha256(name.encode()).hexdigest()[:12]}-"
    file = home / f"{by_name}{RECORD}"
    with locked(home):
        try:
            return ModelRecord.read(file)
        except (OSError, ValueError, TypeError, KeyError):
            pass
        tell(f"{folder.name}: loading it once to count its parameters and operations")
        try:
            counts = json.loads(run_program("tuner.models.cost", str(version_folder), name))
        except ProgramFailed as failure:
            raise ModelError(f"{folder}: TensorFlow cannot load it: {failure}") from None
        record = ModelRecord(
            name=served_name(folder.name),
            path=base,
            version=number,
            weights="the user's own",
            checksum=found,
            inputs=signature.inputs,
            outputs=signature.outputs,
            signature=name,
            optional=signature.optional,
            parameters=counts["parameters"],
            flops_per_inference=counts["flops_per_inference"],
        )
        part = file.with_suffix(".part")
        record.write(part)
        part.replace(file)
    return record


def _version_folder(folder: Path) -> tuple[Path, int]:
    """The SavedModel to serve below ``folder``, and its version number."""
    if not folder.is_dir():
        hint = (
            "; export a Keras file first: keras.models.load_model(file).export(folder)"
            if folder.suffix in (".keras", ".h5", ".hdf5")
            else ""
        )
        raise ModelError(f"{folder}: a file, not a SavedModel folder{hint}")
    if (folder / BINARY).exists() or (folder / TEXT).exists():
        return folder, VERSION
    numbers = [int(child.name) for child in folder.iterdir() if child.name.isdecimal()]
    if not numbers:
        raise ModelError(
            f"{folder}: no SavedModel here: neither saved_model.pb nor folders named by version "
            f"number, such as {folder.name}/1/saved_model.pb"
        )
    by_number = {int(c.name): c for c in folder.iterdir() if c.name.isdecimal()}
    return by_number[max(numbers)], max(numbers)


_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+=@-]+")
"""What stands in every config file, mount and URL as it is."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def served_name(name: str) -> str:
    """The name that a folder's model is served by: its own, where every URL, file and container
    takes it, else one made of it.

    TensorFlow Serving takes no encoded characters in a REST path, and ``/`` and ``:`` end a name there.
    """
    if _PLAIN_NAME.fullmatch(name):
        return name
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:60].strip("._-") or "model"
    return f"{plain}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


def _laid_out(home: Path, folder: Path, number: int) -> Path:
    """A base path in the cache with ``folder`` as that version, as long as its content is the same.

    Hard links rather than a symbolic one: a container sees the base path, not what it points to.
    A symbolic link has to do where the files lie on another file system or belong to another.
    """
    base = home / "versions"
    with locked(home):
        if not base.exists():
            with whole(base) as unfinished:
                try:
                    shutil.copytree(folder, unfinished / str(number), copy_function=os.link)
                except (OSError, shutil.Error):
                    shutil.rmtree(unfinished / str(number), ignore_errors=True)
                    (unfinished / str(number)).symlink_to(folder)
    return base
