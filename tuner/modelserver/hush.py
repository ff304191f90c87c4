"""Keeps what TensorFlow's libraries say about GPUs and instruction sets off the terminal.

Its C++ code writes such lines before it can be told not to: TF_CPP_MIN_LOG_LEVEL does not reach
them. They are held back while nothing else has a reason to write, and shown if that fails.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

_STDERR = 2
_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Hold the standard error back, unless whoever started the program chose a log level."""
    if _LEVEL in os.environ:
        yield
        return
    sys.stderr.flush()
    real = os.dup(_STDERR)
    with tempfile.TemporaryFile() as kept:
        os.environ[_LEVEL] = "1"
        os.dup2(kept.fileno(), _STDERR)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(real, kept.read())
            raise
        finally:
            del os.environ[_LEVEL]
            os.dup2(real, _STDERR)
            os.close(real)
