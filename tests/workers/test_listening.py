"""Nothing that a study runs listens beyond 127.0.0.1 or is told the storage's password."""

from __future__ import annotations

import socket

import psutil
import pytest

from tests.endtoend.conftest import Tuner, wait_until
from tuner.deploy.readiness import free_port

SPACE = """
name: small
model: cnn1d
duration_s: 0.5
load: 50
parameters: {max_batch_size: [2, 4]}
fixed: {enable_batching: true, protocol: rest}
"""


def listening(tuner: Tuner) -> set[tuple[str, int]]:
    """Addresses and ports on which anything that the test started listens."""
    found = set()
    for process in tuner.processes():
        try:
            connections = process.net_connections("inet")
        except psutil.Error:
            continue
        found |= {
            # gRPC's IPv6 sockets take IPv4 addresses, too, and then say so.
            (c.laddr.ip.removeprefix("::ffff:"), c.laddr.port) for c in connections
            if c.status == psutil.CONN_LISTEN or (c.type == socket.SOCK_DGRAM and not c.raddr)
        }
    return found


def told_the_storage(tuner: Tuner) -> list[str]:
    """Servers, clients and helpers (``python -m tuner.…``) whose environment holds the storage."""
    found = []
    for process in tuner.processes():
        try:
            command = process.cmdline()
            of_tuner = any(word.startswith("tuner.") for word in command)
            if of_tuner and "TUNER_STORAGE" in process.environ():
                found.append(" ".join(command))
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("deployer", ["fake", "embedded"])
def test_a_running_study_listens_on_127_0_0_1_only_and_keeps_its_storage_to_itself(
    tuner: Tuner, deployer: str
) -> None:
    (tuner.folder / "small.yaml").write_text(SPACE)
    tuner.environment["TUNER_STORAGE"] = "sqlite:///s.db"
    study = tuner.start(
        "study", "--space", "small.yaml", "--deployer", deployer, "--trials", "2", "--quiet",
        "--sampler", "random",
    )
    addresses: set[tuple[str, int]] = set()
    told: set[str] = set()
    programs: set[str] = set()
    while study.poll() is None:
        addresses |= listening(tuner)
        told |= set(told_the_storage(tuner))
        for process in tuner.processes():
            try:
                programs |= set(process.cmdline())
            except psutil.Error:
                continue
    assert study.returncode == 0, study.communicate()[1]
    assert {"tuner.load.client", "tuner.deploy.watchdog"} <= programs
    # Two servers, each with a port for gRPC and one for REST.
    assert len(addresses) >= 4 and {ip for ip, _ in addresses} == {"127.0.0.1"}
    assert not told


@pytest.mark.parametrize("command", [
    ("proxy", "--storage", "sqlite:///s.db", "--port", "PORT"),
    ("serve", "--model", "cnn1d", "--port", "PORT", "--rest_api_port", "PORT"),
], ids=["proxy", "serve"])
def test_what_is_started_by_hand_listens_on_127_0_0_1_only(
    tuner: Tuner, command: tuple[str, ...]
) -> None:
    given = [str(free_port()) if word == "PORT" else word for word in command]
    tuner.start(*given)
    ports = {int(word) for word in given if word.isdigit()}
    wait_until(lambda: ports <= {port for _, port in listening(tuner)}, 60, "it listens")
    assert {ip for ip, _ in listening(tuner)} == {"127.0.0.1"}
