"""Run one of tuner's own programs that needs TensorFlow, in a child process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


class ProgramFailed(Exception):
    """The program ended with an error; the message is the last line that it said."""


def run_program(module: str, *arguments: str, on_line: Callable[[str], None] | None = None) -> str:
    """Run ``python -m module arguments`` and return its standard output.

    ``on_line`` is told each line as it comes. The child sees no GPU: building and counting need
    none, and one in use by a server should stay so.

    Raises:
        ProgramFailed: it ended with an error.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            filter(None, (str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH")))
        ),
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    lines = []
    with tempfile.TemporaryFile("w+") as said:
        command = [sys.executable, "-m", module, *arguments]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment
        ) as child:
            try:
                assert child.stdout is not None
                for line in child.stdout:
                    lines.append(line)
                    if on_line:
                        on_line(line.rstrip("\n"))
            except BaseException:
                child.kill()
                raise
        if child.returncode:
            said.seek(0)
            last = [line.strip() for line in said.read().splitlines() if line.strip()][-1:]
            raise ProgramFailed(last[0] if last else f"it ended with status {child.returncode}")
    return "".join(lines)
