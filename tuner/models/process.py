"""Run one of tuner's own programs that needs TensorFlow, in a child process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from tuner import inherited

_TIED = "TUNER_ENDS_WITH_STDIN"
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


class ProgramFailed(Exception):
    """The program ended with an error; the message is the last line that it said."""


def run_program(module: str, *arguments: str, on_line: Callable[[str], None] | None = None) -> str:
    """Run ``python -m module arguments`` and return its standard output.

    ``on_line`` is told each line as it comes. The child sees no GPU: building and counting need
    none, and one in use by a server should stay so. It ends when the caller ends, however that
    happens, if it says ``end_with_caller``.

    Raises:
        ProgramFailed: it ended with an error.
    """
    environment = {
        **inherited.environment(),
        "PYTHONPATH": os.pathsep.join(
            filter(None, (str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH")))
        ),
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        _TIED: "1",
    }
    lines = []
    with tempfile.TemporaryFile("w+") as said:
        command = [sys.executable, "-m", module, *arguments]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closed when this process ends, even by SIGKILL
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=environment,
        ) as child:
            try:
                for line in child.stdout or ():
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


def end_with_caller() -> None:
    """Make this program end as soon as the ``run_program`` that started it is gone."""
    if os.environ.pop(_TIED, None):
        threading.Thread(target=_end_at_end_of_input, daemon=True).start()


def _end_at_end_of_input() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)
