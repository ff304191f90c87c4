"""Runs the tests of a group of modules against its mutants, each in a fork of one warm process.

Importing Optuna, pandas or TensorFlow takes longer than most tests. So the process imports every
third-party library that the tests use, forks for each mutant, and only the fork imports tuner: with
the mutated module from memory, so that no file changes and mutants never meet. A program that a test
starts sees the module unchanged: such tests kill nothing here.

Reads a job as JSON from stdin, writes a JSON line for each mutant (``mutants.py`` is the caller).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
from cosmic_ray.ast import get_ast
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.plugins import get_operator
from hypothesis import Phase, settings

OURS = ("tuner", "tests", "objectives", "conftest", "test_", "__m")
"""Starts of the names of modules that each fork imports for itself."""
PATIENCE = 4.0
"""A mutant gets this many times what the tests take without one, and ``GRACE_S``."""
GRACE_S = 10.0


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from another text than its file's."""

    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._text, self.path, "exec", dont_inherit=True)


class Finder(importlib.abc.MetaPathFinder):
    def __init__(self, path: Path, text: str) -> None:
        self._name = ".".join(path.with_suffix("").parts)
        self._loader = Loader(self._name, str(path.resolve()), text)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._name:
            return None
        return importlib.util.spec_from_loader(name, self._loader)


class Failures:
    """A plugin of pytest that notes which test failed first."""

    def __init__(self) -> None:
        self.first: str | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.first is None:
            self.first = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and self.first is None:
            self.first = f"{report.nodeid} (import)"


def mutated(text: str, tree: Any, operator: str, occurrence: int) -> tuple[str, str, str] | None:
    """The mutant's text, its first line that differs, and that line before; None if there is none."""
    visitor = MutationVisitor(occurrence, get_operator(operator)())
    new = visitor.walk(tree).get_code()
    with contextlib.suppress(SyntaxError):
        compile(new, "mutant", "exec", dont_inherit=True)
        pairs = zip(text.splitlines(), new.splitlines())
        was, now = next(((a, b) for a, b in pairs if a != b), ("", ""))
        return (new, was.strip(), now.strip()) if was != now else None
    return None


def in_fork(work: Any, timeout_s: float, temporary: Path) -> dict[str, Any]:
    """What ``work()`` gives in a fork; ``{"timeout": True}`` or ``{"died": status}`` without it."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.close(out)
        log = os.open(temporary / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        told = json.dumps(work()).encode()
        os.write(into, len(told).to_bytes(4, "big"))
        for start in range(0, len(told), 1 << 16):
            os.write(into, told[start : start + (1 << 16)])
        os._exit(0)
    os.close(into)
    held, wanted, end_s = b"", 4, time.monotonic() + timeout_s
    while len(held) < wanted and (left_s := end_s - time.monotonic()) > 0:
        if select.select([out], [], [], left_s)[0]:
            part = os.read(out, 1 << 16)
            if not part:
                break
            held += part
            wanted = 4 + int.from_bytes(held[:4], "big") if len(held) >= 4 else 4
    os.close(out)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if 4 < wanted == len(held):
        return dict(json.loads(held[4:]))
    return {"timeout": True} if time.monotonic() >= end_s else {"died": status}


def main() -> None:
    job = json.load(sys.stdin)
    settings.register_profile(
        "mutants", database=None, derandomize=True, deadline=None,
        phases=(Phase.explicit, Phase.generate),
    )
    settings.load_profile("mutants")
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # databases wait for disks
    with tempfile.TemporaryDirectory(prefix="mutants-", dir=memory) as folder:
        room = Path(folder)
        arguments = ["-q", "-x", "-p", "no:cacheprovider", "--tb=line",
                     "--basetemp", str(room / "base"), *job["tests"]]

        def tested() -> dict[str, Any]:
            failures = Failures()
            code = pytest.main(arguments, plugins=[failures])
            return {"code": int(code), "failed": failures.first}

        def clean() -> dict[str, Any]:
            return {**tested(), "modules": [m for m in sys.modules if not m.startswith(OURS)]}

        found = in_fork(clean, 600.0, room)
        if found.get("code") != 0:
            log = (room / "log").read_text(errors="replace")
            sys.exit(f"the tests fail without a mutant: {found}\n{log[-2000:]}")
        for name in found["modules"]:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        begun_s = time.monotonic()
        in_fork(tested, 600.0, room)
        usual_s = time.monotonic() - begun_s
        print(json.dumps({"usual_s": usual_s}), flush=True)
        texts = {path: Path(path).read_text() for path in {m["path"] for m in job["mutants"]}}
        trees = {path: get_ast(text) for path, text in texts.items()}

        def attempt(path: str, operator: str, occurrence: int) -> dict[str, Any]:
            change = mutated(texts[path], trees[path], operator, occurrence)
            if change is None:
                return {"none": True}
            text, was, now = change
            (room / "change").write_text(json.dumps([was, now]))
            sys.meta_path.insert(0, Finder(Path(path), text))
            return tested()

        for mutant in job["mutants"]:
            (room / "change").write_text('["", ""]')
            begun_s = time.monotonic()
            work = partial(attempt, mutant["path"], mutant["operator"], mutant["occurrence"])
            told = in_fork(work, GRACE_S + PATIENCE * usual_s, room)
            change = json.loads((room / "change").read_text())
            print(json.dumps({
                **told, "id": mutant["id"], "change": change, "took_s": time.monotonic() - begun_s,
            }), flush=True)


if __name__ == "__main__":
    main()
