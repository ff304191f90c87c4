"""Limits bite, and nothing of them is left, whatever ends the study."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.contracts.deployer_contract import wait_for
from tuner.deploy import cgroups, cpufreq, make, proc, programs
from tuner.deploy.cgroups import Hierarchy
from tuner.deploy.processes import Spawner
from tuner.deploy.resources import limits
from tuner.deploy.watchdog import Watchdog
from tuner.errors import TrialFailure, UnavailableError

needs_cgroups = pytest.mark.skipif(
    any(cgroups.why_not(c) for c in cgroups.CONTROLLERS), reason="no right to make cgroups"
)


@pytest.fixture
def watchdog():
    watchdog = Watchdog()
    yield watchdog
    watchdog.close()


@pytest.fixture
def launcher():
    spawner = Spawner(programs.command("tuner.deploy.launcher"), {})
    yield spawner
    spawner.close()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@needs_cgroups
def test_a_cpu_quota_bites(watchdog, launcher, tmp_path) -> None:
    spin = python("import time\nwhile True: pass")
    with limits({"cpu_quota": 0.25}, watchdog) as held:
        server = launcher.start(
            spin, log=tmp_path / "log", timeout_s=10, cgroup_procs=held.cgroup_procs
        )
        time.sleep(0.3)
        begun, before = time.monotonic(), cpu_seconds(server.pid)
        time.sleep(1.2)
        used = (cpu_seconds(server.pid) - before) / (time.monotonic() - begun)
        server.end(0.0)
    assert used < 0.35


@needs_cgroups
def test_a_memory_limit_bites_and_is_told(watchdog, launcher, tmp_path) -> None:
    hog = python("x = bytearray(200 << 20)\nimport time; time.sleep(60)")
    with limits({"memory_limit_mb": 64}, watchdog) as held:
        server = launcher.start(
            hog, log=tmp_path / "log", timeout_s=10, cgroup_procs=held.cgroup_procs
        )
        assert server.wait(20)
        assert server.exit_code == -9
        assert held.out_of_memory


@needs_cgroups
def test_groups_are_removed_with_what_runs_in_them(watchdog, launcher, tmp_path) -> None:
    with limits({"cpu_quota": 1.0, "memory_limit_mb": 64}, watchdog) as held:
        server = launcher.start(
            python("import time; time.sleep(60)"), log=tmp_path / "log", timeout_s=10,
            cgroup_procs=held.cgroup_procs,
        )
        folders = held.group.folders
        assert all(str(server.pid) in (f / "cgroup.procs").read_text() for f in folders)
    assert not any(folder.exists() for folder in folders)
    assert server.wait(5)


@needs_cgroups
def test_groups_of_a_killed_study_are_reaped_at_the_next_start() -> None:
    code = (
        "from tuner.deploy import cgroups; g = cgroups.create('cpu', 'memory');"
        "print(*g.folders, flush=True); import os; os.kill(os.getpid(), 9)"
    )
    ran = subprocess.run(
        python(code), capture_output=True, text=True,
        env={**os.environ, **programs.environment()}, check=False,
    )
    folders = [Path(word) for word in ran.stdout.split()]
    assert folders and all(folder.is_dir() for folder in folders)
    assert set(folders) <= set(cgroups.reap())
    assert not any(folder.exists() for folder in folders)


def test_a_group_of_a_living_study_is_not_reaped(tmp_path) -> None:
    found = {"cpu": Hierarchy("cpu", 1, tmp_path, tmp_path)}
    group = cgroups.create("cpu", found=found)
    assert cgroups.reap(found) == []
    assert group.folders[0].is_dir()


class TestVersion2:
    """A folder stands in for the unified hierarchy; the files are the kernel's."""

    @pytest.fixture
    def found(self, tmp_path: Path) -> dict[str, Hierarchy]:
        own = tmp_path / "user.slice" / "scope"
        own.mkdir(parents=True)
        for place in (tmp_path, own, own.parent):
            (place / "cgroup.subtree_control").write_text("")
        return {c: Hierarchy(c, 2, tmp_path, own) for c in cgroups.CONTROLLERS}

    def test_one_folder_serves_both_controllers(self, found) -> None:
        group = cgroups.create("cpu", "memory", found=found)
        assert len(group.folders) == 1
        assert group.procs_files == (str(group.folders[0] / "cgroup.procs"),)

    def test_controllers_are_handed_down(self, found) -> None:
        cgroups.create("cpu", "memory", found=found)
        control = (found["cpu"].own / "cgroup.subtree_control").read_text()
        assert control == "+cpu +memory"

    def test_limits_are_written_as_version_2_wants(self, found) -> None:
        group = cgroups.create("cpu", "memory", found=found)
        folder = group.folders[0]
        (folder / "memory.swap.max").write_text("max")
        group.limit_cpu(1.5)
        group.limit_memory(64 << 20)
        assert (folder / "cpu.max").read_text() == "150000 100000"
        assert (folder / "memory.max").read_text() == str(64 << 20)
        assert (folder / "memory.swap.max").read_text() == "0"

    def test_an_out_of_memory_kill_is_counted(self, found) -> None:
        group = cgroups.create("memory", found=found)
        events = group.folders[0] / "memory.events"
        events.write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\n")
        assert group.out_of_memory_kills() == 1

    def test_both_versions_are_found_where_they_are_mounted(self, tmp_path) -> None:
        unified = tmp_path / "unified"
        unified.mkdir()
        (unified / "cgroup.controllers").write_text("memory pids")
        (tmp_path / "cgroup").write_text("3:cpu,cpuacct:/a\n0::/b\n")
        (tmp_path / "mounts").write_text(
            f"cgroup {tmp_path}/cpu cgroup rw,cpu,cpuacct 0 0\n"
            f"cgroup2 {unified} cgroup2 rw,nosuid 0 0\n"
        )
        found = cgroups.hierarchies(tmp_path)
        assert found["cpu"] == Hierarchy("cpu", 1, tmp_path / "cpu", tmp_path / "cpu" / "a")
        assert found["memory"] == Hierarchy("memory", 2, unified, unified / "b")


def test_a_missing_controller_is_named() -> None:
    with pytest.raises(UnavailableError, match="no memory cgroup"):
        cgroups.create("memory", found={})


def test_a_program_that_cannot_start_says_so(launcher, tmp_path) -> None:
    with pytest.raises(TrialFailure, match="/no/such/program") as caught:
        launcher.start(["/no/such/program"], log=tmp_path / "log", timeout_s=10)
    assert caught.value.reason == "start_failed"


def test_a_server_that_ignores_sigterm_is_killed(launcher, tmp_path) -> None:
    stubborn = python("import signal, time; signal.signal(15, signal.SIG_IGN)\n"
                      "print('deaf', flush=True)\ntime.sleep(60)")
    server = launcher.start(stubborn, log=tmp_path / "log", timeout_s=10)
    assert wait_for(lambda: "deaf" in (tmp_path / "log").read_text(), 10)
    assert server.end(0.2) == -9


def test_servers_die_with_a_killed_launcher(launcher, tmp_path) -> None:
    server = launcher.start(
        python("import time; time.sleep(60)"), log=tmp_path / "log", timeout_s=10
    )
    os.kill(launcher.pid, 9)
    assert wait_for(lambda: not proc.runs(server.pid, server.started), 5)
    assert server.wait(5)


def test_the_watchdog_kills_what_a_killed_study_left(tmp_path) -> None:
    code = """
import os, subprocess, sys
from tuner.deploy import proc
from tuner.deploy.watchdog import Watchdog
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
watchdog = Watchdog()
watchdog.add({"kill": left.pid, "started": proc.start_time(left.pid)})
watchdog.add({"write": sys.argv[1], "text": "put back"})
print(left.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    target = tmp_path / "setting"
    target.write_text("changed")
    ran = subprocess.run(
        [*python(code), str(target)], stdout=subprocess.PIPE, text=True, check=False,
        env={**os.environ, **programs.environment()},
    )
    assert wait_for(lambda: not proc.runs(int(ran.stdout)), 10)
    assert wait_for(lambda: target.read_text() == "put back", 10)


@pytest.mark.parametrize("waited", [True, False])
def test_a_watchdog_that_was_killed_is_told_everything_once_more(
    watchdog, tmp_path, waited: bool
) -> None:
    files = [tmp_path / name for name in "abc"]
    for file in files:
        file.touch()
    watchdog.add({"remove": str(files[0])})
    settled = watchdog.add({"remove": str(files[1])})
    os.kill(watchdog._process.pid, 9)
    if waited:
        watchdog._process.wait(5)
    watchdog.done(settled)
    watchdog.add({"remove": str(files[2])})
    watchdog.close()
    assert [file.exists() for file in files] == [False, True, False]


CLOCK_STUDY = """
import json, os, sys, tempfile
from pathlib import Path
from tuner.deploy import cpufreq, make
from tuner.deploy.base import DeploymentRequest, ModelToServe
def bounds():
    return [(p / b).read_text().strip() for p in cpufreq.policies() for b in cpufreq._BOUNDS]
out = {"before": bounds(), "range": cpufreq.hardware_range().high_mhz}
folder = Path(tempfile.mkdtemp())
request = DeploymentRequest(ModelToServe("m", folder), {"cpu_frequency_mhz": 1500}, folder)
with make("fake") as deployer, deployer.deploy(request) as deployment:
    out["inside"] = bounds()
    out["told"] = sorted(set(deployment.describe()["limits"]["clock_khz"].values()))
    print(json.dumps(out), flush=True)
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), 9)
"""


def in_namespace(script: str) -> str:
    """Run a shell script in a mount namespace where a cpufreq tree of two policies stands."""
    tree = cpufreq.SYSFS
    build = f"""
    set -e
    mount -t tmpfs none {tree.parent}
    for n in 0 1; do
      mkdir -p {tree}/policy$n; cd {tree}/policy$n
      echo 1000000 > cpuinfo_min_freq; echo 3000000 > cpuinfo_max_freq
      echo 1000000 > scaling_min_freq; echo 3000000 > scaling_max_freq
    done
    cd /
    """
    ran = subprocess.run(
        ["unshare", "--mount", "sh", "-c", build + script], capture_output=True, text=True,
        env={**os.environ, **programs.environment()}, check=False,
    )
    if "unshare" in ran.stderr or "mount" in ran.stderr:
        pytest.skip(f"no private mount namespace: {ran.stderr.strip()}")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def clock_study(how: str) -> str:
    return f"'{sys.executable}' -c '{CLOCK_STUDY}' {how} || test {how} = killed\n"


def test_the_clock_is_pinned_and_put_back() -> None:
    tree = cpufreq.SYSFS
    lines = in_namespace(clock_study("ended") + f"grep -h . {tree}/policy*/scaling_*_freq").splitlines()
    told = json.loads(lines[0])
    assert told["range"] == 3000
    assert told["inside"] == ["1500000"] * 4
    assert told["told"] == ["1500000"]
    assert lines[1:] == ["3000000", "1000000"] * 2


def test_the_clock_is_put_back_after_a_kill() -> None:
    tree = cpufreq.SYSFS
    wait = f"for i in $(seq 100); do grep -q 1500000 {tree}/policy*/scaling_*_freq || break; "
    script = clock_study("killed") + wait + f"sleep 0.1; done\ngrep -h . {tree}/policy*/scaling_*_freq"
    lines = in_namespace(script).splitlines()
    assert json.loads(lines[0])["inside"] == ["1500000"] * 4
    assert lines[1:] == ["3000000", "1000000"] * 2
    assert wait_for(lambda: not cpufreq._state_file(tree).exists(), 5)


def test_the_next_start_puts_back_what_study_and_watchdog_left(tmp_path, monkeypatch) -> None:
    policy = tmp_path / "policy0"
    policy.mkdir()
    for bound in ("scaling_min_freq", "scaling_max_freq"):
        (policy / bound).write_text("1500000")
    monkeypatch.setattr(cpufreq, "_state_file", lambda root: tmp_path / "state.json")
    saved = {str(policy / "scaling_min_freq"): "1000000",
             str(policy / "scaling_max_freq"): "3000000"}
    (tmp_path / "state.json").write_text(
        json.dumps({"pid": 2**22 - 1, "started": 1, "saved": saved})
    )
    assert cpufreq.restore(tmp_path)
    assert (policy / "scaling_max_freq").read_text() == "3000000"
    assert not cpufreq.restore(tmp_path)


@pytest.fixture
def left_clock(tmp_path, monkeypatch):
    """A clock that process 2**22 - 1 pinned and, killed with its watchdog, left so."""
    policy = tmp_path / "policy0"
    policy.mkdir()
    for bound in ("scaling_min_freq", "scaling_max_freq"):
        (policy / bound).write_text("1500000")
    monkeypatch.setattr(cpufreq, "_state_file", lambda root: tmp_path / "state.json")
    monkeypatch.setattr(cpufreq, "SYSFS", tmp_path)
    monkeypatch.setattr(cpufreq.reap, "__defaults__", (tmp_path,))
    saved = {str(policy / "scaling_min_freq"): "1000000",
             str(policy / "scaling_max_freq"): "3000000", str(tmp_path / "other"): "written"}
    (tmp_path / "state.json").write_text(
        json.dumps({"pid": 2**22 - 1, "started": 1, "saved": saved})
    )
    return policy / "scaling_max_freq"


def test_a_study_that_leaves_the_clock_alone_puts_a_killed_ones_back(left_clock, tmp_path) -> None:
    with make("fake"):
        assert left_clock.read_text() == "3000000"
    assert not (tmp_path / "other").exists()


def test_the_clock_of_a_living_study_is_left_alone(left_clock, tmp_path) -> None:
    state = json.loads((tmp_path / "state.json").read_text())
    here = {"pid": os.getpid(), "started": proc.start_time(os.getpid())}
    (tmp_path / "state.json").write_text(json.dumps(state | here))
    with make("fake"):
        assert left_clock.read_text() == "1500000"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": 1, "started": null, "saved": {}}'])
def test_a_damaged_note_of_a_clock_is_passed_over(left_clock, tmp_path, text) -> None:
    (tmp_path / "state.json").write_text(text)
    assert not cpufreq.reap(tmp_path)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
