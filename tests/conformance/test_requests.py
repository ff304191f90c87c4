"""The embedded server answers recorded requests as a real TensorFlow Serving 2.20.0 did."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import socket
import time
from collections.abc import Iterator

import grpc
import pytest

from tests.conformance import suites
from tests.conformance.answers import Client, recorded
from tests.conformance.deviations import REQUESTS
from tuner.deploy.readiness import free_port

ALIKE = 0.97
_SETTLED_S = 4.0
"""Versions come and go within that time where the disk or the configuration changed."""
ROWS = [row for row in recorded("requests") if row["kind"] in ("rest", "grpc")]
SERVERS = {
    flags: [suite for suite in suites.FLAGS if suites.FLAGS[suite] == flags]
    for flags in suites.FLAGS.values()
}
COUNTS: dict[str, tuple[int, int]] = {}
"""Suite -> (compared, alike), for the last test."""


@contextlib.contextmanager
def _serving(fork_server, flags, folders, log) -> Iterator[Client]:
    port, rest_port = free_port(), free_port()
    for placeholder, folder in folders.items():
        flags = [flag.replace(placeholder, folder) for flag in flags]
    more = ["--max_num_load_retries=0", "--grpc_max_threads=32", "--rest_api_num_threads=16"]
    ports = [f"--port={port}", f"--rest_api_port={rest_port}"]
    number, pid = fork_server.start([*ports, *more, *flags], log)
    try:
        for one in (port, rest_port):
            _await(one, log)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Client(port, channel, rest_port, folders)
    finally:
        fork_server.order(kill=pid, signal=9)
        fork_server.exit_code(number)


def _await(port, log):
    deadline = time.monotonic() + 120
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def _unlike(client, rows, live, models) -> Iterator[tuple[tuple[str, str], str]]:
    """(suite and id, what came) of each row whose answer is not alike the real one."""
    for (suite, step), some in itertools.groupby(rows, lambda row: (row["suite"], _step(row))):
        if suite == "hot":
            suites.change_disk(step, live, models)
            if step not in ("one", "odd-gone", "replace-files"):
                time.sleep(1.2)  # the server looks once a second
        deadline = time.monotonic() + (_SETTLED_S if suite in suites.IN_ORDER else 0.0)
        for row in some:
            alike, came = client.alike(row)
            reload = row.get("method", "").endswith("HandleReloadConfigRequest")
            while not alike and not reload and time.monotonic() < deadline:
                time.sleep(0.1)
                alike, came = client.alike(row)
            if not alike:
                yield (suite, row["id"]), came


def _step(row):
    return row["id"].split(".")[1] if row["suite"] in suites.IN_ORDER else ""


@pytest.mark.parametrize("flags", SERVERS, ids=["+".join(some) for some in SERVERS.values()])
def test_recorded_requests_are_answered_alike_but_for_the_known_deviations(
    flags, fork_server, recorded_models, files, tmp_path
):
    rows = [row for row in ROWS if row["suite"] in SERVERS[flags]]
    live = tmp_path / "live"
    shutil.copytree(recorded_models / "vers" / "1", live / "m" / "1")
    folders = {"$MODELS": str(recorded_models), "$FILES": str(files), "$LIVE": str(live)}
    with _serving(fork_server, flags, folders, tmp_path / "log") as client:
        unlike = dict(_unlike(client, rows, live, recorded_models))
    for suite in SERVERS[flags]:
        missed = sum(one == suite for one, _ in unlike)
        total = sum(row["suite"] == suite for row in rows)
        COUNTS[suite] = (total, total - missed)
    new = [f"{key}: {came}" for key, came in unlike.items() if key not in REQUESTS]
    assert not new, "\n".join(new)


def test_nearly_all_recorded_requests_are_answered_alike():
    if set(COUNTS) != set(suites.FLAGS):
        pytest.skip("needs the suites' tests before it")
    compared, alike = (sum(column) for column in zip(*COUNTS.values()))
    print("; ".join(f"{suite} {k} of {n}" for suite, (n, k) in COUNTS.items()))
    assert alike / compared >= ALIKE, (alike, compared)


def test_every_known_deviation_is_of_a_recorded_request():
    assert set(REQUESTS) <= {(row["suite"], row["id"]) for row in ROWS}
