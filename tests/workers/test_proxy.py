"""Workers behind a proxy: its death loses and repeats nothing, and hosts that see only it take part."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.endtoend.conftest import Tuner, wait_until
from tests.workers.conftest import QUICK
from tests.workers.postgres import Postgres
from tests.workers.test_workers import WIDE, ended, finished, records, running, study, worker
from tuner.deploy.readiness import free_port
from tuner.measurement import configuration_key

TRIALS = 90
GRID = f"name: grid\nparameters: {{threads: {{low: 1, high: {TRIALS}}}}}\n"


def test_a_proxy_that_is_killed_and_started_again_loses_nothing_and_repeats_nothing(
    tuner: Tuner, postgres: Postgres, gate: Path
) -> None:
    url, port = postgres.make("behind"), free_port()
    tuner.environment["QUICK_PAUSE_S"] = "0.2"

    def proxy() -> subprocess.Popen[str]:
        return tuner.start("proxy", "--storage", url, "--port", str(port))

    leader, first_proxy = study(tuner, GRID, url, "--sampler", "grid"), proxy()
    workers = [worker(tuner, "grid", f"grpc://127.0.0.1:{port}") for _ in range(2)]
    everybody = {p.pid for p in (leader, *workers)}
    wait_until(lambda: running(url, "grid", "pid") == everybody, 120, "everybody has a trial")
    gate.touch()
    wait_until(lambda: finished(url, "grid") >= 10, 60, "trials before the kill")
    first_proxy.send_signal(signal.SIGKILL)
    first_proxy.wait()
    last = len(records(url, "grid")) - 1
    time.sleep(1.0)
    second_proxy = proxy()
    for process in (leader, *workers):
        ended(process)
    second_proxy.terminate()
    second_proxy.communicate(timeout=20)
    found = records(url, "grid")
    keys = Counter(configuration_key(r.configuration) for r in found if r.is_finished)
    assert len(keys) == TRIALS and set(keys.values()) == {1}
    assert {r.state for r in found} <= {"complete", "killed"}
    assert not [r for r in found if r.state == "killed" and "another worker" not in r.message]
    # All three went on afterwards.
    assert {r.attributes["owner"]["pid"] for r in found if r.number > last and r.is_finished} == (
        everybody
    )


HOSTS = {"host-1": "10.213.77.1", "host-2": "10.213.77.2"}


@contextmanager
def two_hosts() -> Iterator[dict[str, int]]:
    """Host -> a process in its network: two private ones, joined by a cable of their own."""
    with ExitStack() as stack:
        hosts = {}
        for name in HOSTS:
            holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
            stack.callback(holder.wait)
            stack.callback(holder.kill)
            hosts[name] = holder.pid
        own = os.readlink("/proc/self/ns/net")
        for pid in hosts.values():
            wait_until(lambda: os.readlink(f"/proc/{pid}/ns/net") != own, 10, "a network")  # noqa: B023
        here, there = hosts.values()
        within(here, "ip", "link", "add", "end-1", "type", "veth", "peer", "name", "end-2")
        within(here, "ip", "link", "set", "end-2", "netns", str(there))
        for number, (name, pid) in enumerate(hosts.items(), 1):
            within(pid, "ip", "address", "add", f"{HOSTS[name]}/24", "dev", f"end-{number}")
            for device in (f"end-{number}", "lo"):
                within(pid, "ip", "link", "set", device, "up")
        yield hosts


def within(pid: int, *command: str) -> None:
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"skipped: no private network: {done.stderr.strip()}")


def on(name: str, pid: int, tuner: Tuner, *arguments: str) -> subprocess.Popen[str]:
    """Start a tuner on one of the hosts: its network, and a name and process ids of its own."""
    there = f'hostname {name} && exec "$@"'
    process = subprocess.Popen(
        ["nsenter", f"--net=/proc/{pid}/ns/net", "unshare", "--uts", "--pid", "--fork",
         "--mount-proc", "--kill-child", "sh", "-c", there, "sh", sys.executable, "-m", "tuner",
         *arguments],
        cwd=tuner.folder, env=tuner.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )
    tuner._started.append(process)
    return process


@pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "ip"))),
    reason="skipped: needs root, unshare, nsenter and ip",
)
def test_a_host_that_reaches_only_the_proxy_does_its_share(
    tuner: Tuner, postgres: Postgres, gate: Path
) -> None:
    url = postgres.make("cable")
    tuner.environment["QUICK_PAUSE_S"] = "0.1"
    (tuner.folder / "space.yaml").write_text(WIDE)
    common = ("--objective", QUICK, "--quiet")
    with two_hosts() as hosts:
        leader = on("host-1", hosts["host-1"], tuner, "study", "--space", "space.yaml", "--sampler",
                    "random", "--trials", "30", "--storage", url, *common)
        proxy = on("host-1", hosts["host-1"], tuner, "proxy", "--storage", url,
                   "--host", HOSTS["host-1"], "--port", "13000")
        other = on("host-2", hosts["host-2"], tuner, "worker", "--study", "wide", "--wait", "120s",
                   "--storage", f"grpc://{HOSTS['host-1']}:13000", *common)
        wait_until(lambda: running(url, "wide", "host") == set(HOSTS), 120, "both have a trial")
        gate.touch()
        ended(leader)
        ended(other)
        os.killpg(proxy.pid, signal.SIGKILL)
        proxy.wait()
    done = Counter(r.attributes["machine"]["host"] for r in records(url, "wide") if r.is_finished)
    assert sum(done.values()) == 30
    assert min(done[name] for name in HOSTS) >= 5, done
