"""Runs tests marked ``private_mounts`` in a mount namespace of their own.

They mount a powercap tree over ``/sys/class``, so they run in a second pytest below ``unshare``,
once a module, and what that one reports of each test is reported here. Where namespaces are not
permitted they are skipped, and say so.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest

INSIDE = "TUNER_TESTS_INSIDE_NAMESPACE"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "private_mounts: runs in a private mount namespace")


@cache
def unshare() -> tuple[str, ...] | str:
    """The command that makes a private mount namespace, or why there is none."""
    if shutil.which("unshare") is None:
        return "unshare (util-linux) is not installed"
    probe = "mount -t tmpfs none /sys/class"
    # A user namespace stands in for root, except for tests that change their user.
    for command in (("unshare", "--mount"), ("unshare", "--map-root-user", "--mount")):
        if not subprocess.run(
            [*command, "sh", "-c", probe], capture_output=True, check=False
        ).returncode:
            return command
    return "mount namespaces are not permitted here (unshare --mount failed)"


@cache
def results_inside(module: Path, tmp: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """(class, test) -> (outcome, text) of the module's marked tests."""
    command = unshare()
    if isinstance(command, str):
        pytest.skip(command)
    report = tmp / f"{module.stem}.xml"
    run = subprocess.run(
        [*command, sys.executable, "-m", "pytest", str(module), "-m", "private_mounts"]
        + ["-p", "no:cacheprovider", f"--junit-xml={report}"],
        env={**os.environ, INSIDE: "1"},
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    if not report.exists():
        pytest.fail(f"pytest inside the namespace ended by itself:\n{run.stdout}\n{run.stderr}")
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        outcome = next((c for c in case if c.tag in ("failure", "error", "skipped")), None)
        key = (case.attrib["classname"].rpartition(".")[2], case.attrib["name"])
        if outcome is None:
            found[key] = ("passed", "")
        else:
            text = outcome.text if outcome.tag != "skipped" else outcome.attrib["message"]
            found[key] = (outcome.tag, text or "")
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Outside, take the fixtures away: they would mount here what belongs in the namespace."""
    if os.environ.get(INSIDE):
        return
    for item in items:
        if item.get_closest_marker("private_mounts") and isinstance(item, pytest.Function):
            item.fixturenames.clear()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if os.environ.get(INSIDE) or not pyfuncitem.get_closest_marker("private_mounts"):
        return None
    tmp = pyfuncitem.config._tmp_path_factory.getbasetemp()
    owner = pyfuncitem.cls.__name__ if pyfuncitem.cls else pyfuncitem.path.stem
    outcome, text = results_inside(pyfuncitem.path, tmp)[owner, pyfuncitem.name]
    if outcome == "skipped":
        pytest.skip(text)
    if outcome != "passed":
        pytest.fail(text, pytrace=False)
    return True


@pytest.fixture
def burner():
    """Starts processes that burn CPU: ``burner(code)`` gives the process id; ended after the test."""
    started: list[subprocess.Popen] = []

    def start(code: str = "while True: pass") -> int:
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", code], stdout=subprocess.DEVNULL, start_new_session=True
            )
        )
        return started[-1].pid

    yield start
    for process in started:
        # The whole session: a burner's own children must not burn on.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
