"""The embedded server starts, waits or ends as a real TensorFlow Serving 2.20.0 did."""

from __future__ import annotations

import contextlib
import re
import socket
import time

import pytest

from tests.conformance.answers import recorded
from tests.conformance.deviations import STARTS
from tuner.deploy.readiness import free_port

ALIKE = 0.95
_START_S, _WAITS_S, _SETTLED_S = 30.0, 1.5, 0.2
"""A start takes at most so long; one that runs so long without its ports waits; a server whose
port answers has not failed after all."""
ROWS = recorded("starts")
OUTCOMES: dict[str, bool] = {}
"""Start -> whether it was alike, for the last test."""


@pytest.fixture(scope="module")
def taken():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def _answers(port):
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


def _given(flags, name):
    found = [flag.partition("=")[2] for flag in flags if flag.startswith(f"--{name}=")]
    return found[-1] if found else None


def _outcome(fork_server, row, folders, log):
    """(ready, waiting or exit; the exit code)."""
    flags = row["flags"]
    for placeholder, value in folders.items():
        flags = [flag.replace(placeholder, str(value)) for flag in flags]
    if row["ports"]:
        for name in ("port", "rest_api_port"):
            if _given(flags, name) is None:
                flags = [*flags, f"--{name}={free_port()}"]
    ports = [_given(flags, name) or "0" for name in ("port", "rest_api_port")]
    rest_port = int(ports[1]) if ports[1].isdecimal() else 0
    number, pid = fork_server.start(flags, log)
    began = time.monotonic()
    waits_s = _WAITS_S if row["real"]["state"] == "waiting" else _START_S
    try:
        while time.monotonic() - began < waits_s:
            if fork_server.has_ended(number):
                return "exit", fork_server.exit_code(number)
            if rest_port and ports[1] != str(folders["$TAKEN"]) and _answers(rest_port):
                time.sleep(_SETTLED_S)
                if not fork_server.has_ended(number):
                    return "ready", None
            time.sleep(0.02)
        return "waiting", None
    finally:
        if not fork_server.has_ended(number):
            fork_server.order(kill=pid, signal=9)
            fork_server.exit_code(number)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_recorded_start_ends_alike_but_for_the_known_deviations(
    row, fork_server, recorded_models, taken, tmp_path
):
    (tmp_path / "mon.config").write_text("prometheus_config { enable: true }")
    for name, text in row.get("files", {}).items():
        (tmp_path / name).write_text(text.replace("$MODELS", str(recorded_models)))
    folders = {
        "$MODELS": recorded_models, "$FILES": tmp_path, "$TAKEN": taken, "$SAME": free_port()
    }
    log = tmp_path / "log"
    state, code = _outcome(fork_server, row, folders, log)
    real = row["real"]
    OUTCOMES[row["id"]] = (state, code) == (real["state"], real.get("exit"))
    assert OUTCOMES[row["id"]] or row["id"] in STARTS, (state, code, log.read_text()[-2000:])
    if OUTCOMES[row["id"]] and "said" in real:
        assert re.search(f"{_reason(real['said'])}|needs a value|unknown argument", log.read_text())


def _reason(said):
    """The code that the real server's message names."""
    return re.search(r"Error: ([A-Z_]+):", said)[1]


def test_nearly_all_recorded_starts_end_alike():
    if len(OUTCOMES) < len(ROWS):
        pytest.skip("needs the starts' tests before it")
    assert sum(OUTCOMES.values()) / len(ROWS) >= ALIKE


def test_every_known_deviation_is_of_a_recorded_start():
    assert set(STARTS) <= {row["id"] for row in ROWS}
