"""Several workers share a study: nothing is measured twice, nothing lost, nobody left running."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy

from tests.endtoend.conftest import Tuner, wait_until
from tests.study.conftest import measured
from tests.workers.conftest import QUICK
from tests.workers.mariadb import MariaDb
from tests.workers.postgres import Postgres
from tests.workers.test_sharing import values_seen
from tuner import store
from tuner.errors import StudyError
from tuner.measurement import configuration_key
from tuner.space_file import parse

WIDE = "name: wide\nparameters: {threads: {low: 1, high: 100000}}\n"
TRIALS = 200
GRID = f"name: grid\nparameters: {{threads: {{low: 1, high: {TRIALS}}}}}\n"


def study(tuner: Tuner, text: str, url: str, *more: str) -> subprocess.Popen[str]:
    (tuner.folder / "space.yaml").write_text(text)
    return tuner.start(
        "study", "--space", "space.yaml", "--storage", url, "--objective", QUICK, "--quiet", *more
    )


def worker(tuner: Tuner, name: str, url: str, *more: str) -> subprocess.Popen[str]:
    return tuner.start(
        "worker", "--study", name, "--storage", url, "--wait", "120s", "--objective", QUICK,
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


def running(url: str, name: str, key: str) -> set[object]:
    """Of the trials that run: their owners' process ids or hosts."""
    try:
        return {r.attributes["owner"][key] for r in records(url, name) if r.state == "running"}
    except StudyError:
        return set()


def killed_in_a_trial(process: subprocess.Popen[str], url: str, name: str) -> bool:
    """Kill it if it runs a trial at this moment, and only then; whether it was."""
    process.send_signal(signal.SIGSTOP)  # What it runs stays so while the database is asked.
    if process.pid in running(url, name, "pid"):
        process.send_signal(signal.SIGKILL)
        return True
    process.send_signal(signal.SIGCONT)
    return False


def test_killed_workers_and_a_restart_of_the_database_lose_nothing_and_repeat_nothing(
    tuner: Tuner, database: Postgres | MariaDb, gate: Path
) -> None:
    url = database.make("crowd")
    tuner.environment["QUICK_PAUSE_S"] = "0.1"
    leader = study(tuner, GRID, url, "--sampler", "grid")
    first, second, third = (worker(tuner, "grid", url) for _ in range(3))
    everybody = {p.pid for p in (leader, first, second, third)}
    wait_until(lambda: running(url, "grid", "pid") == everybody, 120, "everybody has a trial")
    first.send_signal(signal.SIGKILL)
    gate.touch()
    database.stop()
    time.sleep(1.0)
    database.start()
    enough = min(finished(url, "grid") + 10, TRIALS)
    wait_until(lambda: finished(url, "grid") >= enough, 90, "trials after the restart")
    wait_until(lambda: killed_in_a_trial(second, url, "grid"), 60, "the second one runs a trial")
    assert "***" in ended(leader)
    ended(third)
    kept = store.Store.open(url, "grid")
    found = kept.records()
    assert {r.state for r in found} <= {"complete", "failed", "killed"}
    assert all(r.reason for r in found if r.state != "complete")
    assert [r.number for r in found] == list(range(len(found)))
    keys = Counter(configuration_key(r.configuration) for r in found if r.is_finished)
    assert len(keys) == TRIALS and set(keys.values()) == {1}
    assert all(r.attributes["machine"]["cpu_model"] for r in found)
    # The trial in flight of each killed worker is lost, no more; a lost claim isn't a loss.
    gone = [r for r in found if r.state == "killed" and "process that ran it" in r.message]
    assert {r.attributes["owner"]["pid"] for r in gone} == {first.pid, second.pid}
    assert len(gone) == 2
    assert "s3cret" not in repr([kept.facts(), kept.environment, found])
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
def test_what_a_dead_host_ran_is_done_by_the_others(
    tuner: Tuner, postgres: Postgres, gate: Path
) -> None:
    url = postgres.make("hosts")
    (tuner.folder / "space.yaml").write_text(WIDE)
    common = ("--storage", url, "--objective", QUICK, "--quiet")
    here = on(None, tuner, "study", "--space", "space.yaml", "--sampler", "random",
              "--trials", "20", *common)
    there = on("host-1", tuner, "worker", "--study", "wide", "--wait", "120s", *common)

    both = {socket.gethostname(), "host-1"}
    wait_until(lambda: running(url, "wide", "host") == both, 120, "a trial runs on both hosts")
    os.killpg(there.pid, signal.SIGKILL)
    there.wait()
    gate.touch()
    ended(here)
    found = records(url, "wide")
    assert sum(r.is_finished for r in found) == 20
    assert {r.state for r in found} <= {"complete", "killed"}
    (lost,) = [r for r in found if r.attributes["machine"]["host"] == "host-1"]
    assert (lost.state, lost.message) == ("killed", "its worker on host-1 fell silent")


def test_of_many_workers_that_keep_a_fact_at_once_one_has_it(postgres: Postgres) -> None:
    url = postgres.make("facts")
    kept = [store.Store.create(url, "s", parse(WIDE), {}) for _ in range(6)]
    for _ in range(5):
        assert len(values_seen(kept)) == 1


def test_a_server_that_is_a_standby_for_a_while_is_waited_for(postgres: Postgres) -> None:
    url = postgres.make("failover")
    space = parse(WIDE)
    kept = store.Store.create(url, "s", space, {})
    number = kept.start({"threads": 1}, space, {}, {})
    url = url.replace("postgresql:", "postgresql+psycopg2:")  # What no driver means changes.
    admin = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    database = "ALTER DATABASE failover SET default_transaction_read_only = "

    def say(*commands: str) -> None:
        with admin.connect() as connection:
            for command in ("SET default_transaction_read_only = off", *commands):
                connection.execute(sqlalchemy.text(command))

    say(database + "on",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'failover' "
        "AND pid <> pg_backend_pid()")
    over = threading.Timer(1.5, say, [database + "off"])
    over.start()
    begun = time.monotonic()
    assert kept.finish(number, measured(20.0, 0.5), space).state == "complete"
    assert time.monotonic() - begun > 1.0
    over.join()
    admin.dispose()
