"""Several workers share a study: nothing is measured twice, nothing lost, nobody left running."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.endtoend.conftest import Tuner, wait_until
from tests.workers.conftest import QUICK
from tests.workers.postgres import Postgres
from tuner import store
from tuner.errors import StudyError
from tuner.measurement import configuration_key

WIDE = "name: wide\nparameters: {threads: {low: 1, high: 100000}}\n"
GRID = "name: grid\nparameters: {threads: {low: 1, high: 40}}\n"
TRIALS = 200


def study(tuner: Tuner, text: str, url: str, *more: str) -> subprocess.Popen[str]:
    (tuner.folder / "space.yaml").write_text(text)
    return tuner.start(
        "study", "--space", "space.yaml", "--storage", url, "--objective", QUICK, "--quiet", *more
    )


def worker(tuner: Tuner, name: str, url: str, *more: str) -> subprocess.Popen[str]:
    return tuner.start(
        "worker", "--study", name, "--storage", url, "--wait", "60s", "--objective", QUICK,
        "--quiet", *more,
    )


def ended(process: subprocess.Popen[str], timeout_s: float = 90) -> str:
    out, err = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, err
    assert "Traceback" not in err and "s3cret" not in out + err
    return out


def records(url: str, name: str) -> list[store.TrialRecord]:
    return store.Store.open(url, name).records()


def finished(url: str, name: str) -> int:
    try:
        return sum(r.is_finished for r in records(url, name))
    except StudyError:
        return 0


def owners(url: str, name: str) -> set[int]:
    try:
        return {r.attributes["owner"]["pid"] for r in records(url, name)}
    except StudyError:
        return set()


def test_killed_workers_and_a_restart_of_the_database_lose_nothing(
    tuner: Tuner, postgres: Postgres
) -> None:
    url = postgres.make("crowd")
    # Long enough that the last worker starts before the first one has done everything.
    tuner.environment["QUICK_TRIAL_S"] = "0.1"
    leader = study(tuner, WIDE, url, "--sampler", "random", "--trials", str(TRIALS))
    first, second, third = (worker(tuner, "wide", url) for _ in range(3))
    everybody = {p.pid for p in (leader, first, second, third)}
    wait_until(lambda: owners(url, "wide") == everybody, 90, "everybody has a trial")
    first.send_signal(signal.SIGKILL)
    postgres.stop()
    time.sleep(1.0)
    postgres.start()
    enough = min(finished(url, "wide") + 10, TRIALS)
    wait_until(lambda: finished(url, "wide") >= enough, 90, "trials after the restart")
    second.send_signal(signal.SIGKILL)
    ended(leader)
    ended(third)
    found = records(url, "wide")
    assert {r.state for r in found} <= {"complete", "failed", "killed"}
    assert sum(r.is_finished for r in found) == TRIALS
    assert all(r.reason for r in found if r.state != "complete")
    assert [r.number for r in found] == list(range(len(found)))
    keys = Counter(configuration_key(r.configuration) for r in found if r.is_finished)
    assert max(keys.values()) == 1
    assert all(r.attributes["machine"]["cpu_model"] for r in found)
    # At most the trial in flight of each killed worker is lost; a lost claim isn't a loss.
    gone = [r for r in found if r.state == "killed" and "process that ran it" in r.message]
    assert len(gone) <= 2


def test_a_grid_is_measured_once_by_whoever_comes_first_and_no_password_is_kept(
    tuner: Tuner, postgres: Postgres
) -> None:
    url = postgres.make("grid")
    leader = study(tuner, GRID, url, "--sampler", "grid")
    other = worker(tuner, "grid", url)
    assert "***" in ended(leader)
    ended(other)
    kept = store.Store.open(url, "grid")
    found = [r for r in kept.records() if r.state != "killed"]
    keys = Counter(configuration_key(r.configuration) for r in found)
    assert len(keys) == 40 and set(keys.values()) == {1}
    assert {r.state for r in found} == {"complete"}
    assert "s3cret" not in repr([kept.facts(), kept.environment, kept.records()])
    files = [p for p in Path(tuner.folder).rglob("*") if p.is_file()]
    assert files and not [p for p in files if b"s3cret" in p.read_bytes()]


def on(host: str | None, tuner: Tuner, *arguments: str) -> subprocess.Popen[str]:
    """Start a hasty tuner, on a host of its own: name, network and process ids."""
    there = f'hostname {host} && ip link set lo up && exec "$@"'
    namespaces = ("--net", "--uts", "--pid", "--fork", "--mount-proc")
    before = ("unshare", *namespaces, "sh", "-c", there, "sh") if host else ()
    return subprocess.Popen(
        [*before, sys.executable, "-m", "tests.workers.hasty", *arguments], cwd=tuner.folder,
        env=tuner.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"),
    reason="skipped: needs root, unshare and ip",
)
def test_what_a_dead_host_ran_is_done_by_the_others(tuner: Tuner, postgres: Postgres) -> None:
    url = postgres.make("hosts")
    tuner.environment["QUICK_TRIAL_S"] = "0.1"
    (tuner.folder / "space.yaml").write_text(WIDE)
    common = ("--storage", url, "--objective", QUICK, "--quiet")
    here = on(None, tuner, "study", "--space", "space.yaml", "--sampler", "random",
              "--trials", "60", *common)
    there = on("host-1", tuner, "worker", "--study", "wide", "--wait", "60s", *common)

    def of_host(name: str) -> list[store.TrialRecord]:
        return [r for r in records(url, "wide") if r.attributes["owner"]["host"] == name]

    wait_until(lambda: finished(url, "wide") and of_host("host-1"), 90, "trials of both hosts")
    wait_until(lambda: any(r.state == "running" for r in of_host("host-1")), 30, "one runs there")
    os.killpg(there.pid, signal.SIGKILL)
    there.wait()
    ended(here)
    found = records(url, "wide")
    assert sum(r.is_finished for r in found) == 60
    assert {r.state for r in found} <= {"complete", "killed"}
    assert {r.attributes["machine"]["host"] for r in found} == {socket.gethostname(), "host-1"}
    silent = [r for r in found if r.message == "its worker on host-1 fell silent"]
    assert len(silent) <= 1
