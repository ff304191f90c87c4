"""``python -m tuner.modelserver`` as a person starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.modelserver.conftest import ROOT, free_port


def test_a_server_on_a_terminal_says_nothing_but_its_own_lines(models):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    flags = [f"--port={free_port()}", f"--model_base_path={models / 'half'}"]
    server = subprocess.Popen(
        [sys.executable, "-m", "tuner.modelserver", *flags],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    said = []
    for line in server.stderr:
        said.append(line)
        if " Ready: " in line:
            break
    server.send_signal(signal.SIGTERM)
    out, rest = server.communicate(timeout=60)
    assert (server.returncode, out, rest) == (0, "", ""), said
    assert [line.split(" ", 3)[2] for line in said] == ["I"] * 3, said
