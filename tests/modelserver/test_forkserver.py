"""The fork server: its protocol, and that no server outlives whoever asked for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.modelserver.conftest import ROOT, ForkServerProcess, free_port

_HOLDER = """
import subprocess, sys, time
fork_server = subprocess.Popen([sys.executable, "-m", "tuner.modelserver.forkserver"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
fork_server.stdin.write(sys.argv[1].encode() + b"\\n")
fork_server.stdin.flush()
print(fork_server.pid, fork_server.stdout.readline().decode().strip(), flush=True)
time.sleep(60)
"""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _wait_until_gone(*pids: int) -> None:
    deadline = time.monotonic() + 15
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still there: {[p for p in pids if _alive(p)]}"
        time.sleep(0.05)


def test_sigterm_ends_a_server_gracefully_and_its_exit_is_told(start_server, fork_server, models):
    with start_server(f"--model_base_path={models / 'half'}") as server:
        fork_server.order(kill=server.pid, signal=signal.SIGTERM)
        assert fork_server.exit_code(server.number) == 0


def test_a_killed_server_is_told_by_its_signal(start_server, fork_server, models):
    with start_server(f"--model_base_path={models / 'half'}") as server:
        fork_server.order(kill=server.pid, signal=signal.SIGKILL)
        assert fork_server.exit_code(server.number) == -signal.SIGKILL


def test_a_server_gets_its_variables_cpus_niceness_and_cgroup(start_server, models, tmp_path):
    cpu = min(os.sched_getaffinity(0))
    procs = tmp_path / "cgroup.procs"
    procs.write_text("")
    with start_server(
        f"--model_base_path={models / 'half'}",
        env={"TUNER_TEST_MARK": "1"},
        affinity=[cpu],
        nice=3,
        cgroup_procs=[str(procs)],
    ) as server:
        assert procs.read_text() == str(server.pid)
        assert os.sched_getaffinity(server.pid) == {cpu}
        assert os.getpriority(os.PRIO_PROCESS, server.pid) >= 3
        assert os.getsid(server.pid) == server.pid


def test_a_server_that_cannot_be_prepared_ends_at_once(fork_server, tmp_path):
    log = tmp_path / "log"
    number, _ = fork_server.start([], log, cgroup_procs=["/nowhere/cgroup.procs"])
    assert fork_server.exit_code(number) == 127
    assert "/nowhere/cgroup.procs" in log.read_text()


def test_an_order_that_makes_no_sense_is_answered_by_an_error(fork_server):
    fork_server.order(id=9999, argv=[], log="/nowhere/log")
    answer = fork_server.answer()
    assert answer["id"] == 9999
    assert "/nowhere/log" in answer["error"]


def test_servers_end_with_the_fork_server_and_the_fork_server_with_its_holder(models, tmp_path):
    import json

    order = {
        "id": 1,
        "argv": [f"--port={free_port()}", f"--model_base_path={models / 'half'}"],
        "log": str(tmp_path / "log"),
    }
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, json.dumps(order)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    fork_pid, answer = holder.stdout.readline().split(" ", 1)
    server_pid = json.loads(answer)["pid"]
    assert _alive(server_pid)
    holder.kill()  # as a study dies by SIGKILL
    holder.wait()
    _wait_until_gone(int(fork_pid), server_pid)


def test_servers_die_with_a_fork_server_that_is_killed(models, tmp_path):
    server = ForkServerProcess(tmp_path / "forkserver.log")
    flags = [f"--port={free_port()}", f"--model_base_path={models / 'half'}"]
    _, pid = server.start(flags, tmp_path / "log")
    server.process.kill()
    server.process.wait()
    _wait_until_gone(pid)


def test_end_of_input_kills_the_servers_and_ends_the_program(models, tmp_path):
    server = ForkServerProcess(tmp_path / "forkserver.log")
    flags = [f"--port={free_port()}", f"--model_base_path={models / 'half'}"]
    _, pid = server.start(flags, tmp_path / "log")
    server.process.stdin.close()
    assert server.process.wait(15) == 0
    assert not _alive(pid)
