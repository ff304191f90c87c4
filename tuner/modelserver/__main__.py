"""``python -m tuner.modelserver``: serve until SIGTERM."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from tuner.modelserver import flags
from tuner.modelserver.hush import hushed
from tuner.modelserver.status import Code, ServingError

_LOG = logging.getLogger("tuner.modelserver")
EXIT_FAILED = 255
"""``tensorflow_model_server`` returns -1 from main."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, serve until a signal ends it; returns the exit code."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s", stream=sys.stderr
    )
    try:
        options, ignored = flags.parse(sys.argv[1:] if argv is None else argv)
    except ServingError as error:
        print(f"{error.message}\n{flags.usage()}", file=sys.stderr)
        return EXIT_FAILED
    if options.version:
        return _print_versions()
    try:
        oddities = flags.check(options)
    except ServingError as error:
        return _failed(error)
    for oddity in oddities:
        _LOG.warning("%s", oddity)
    for name in ignored:
        _LOG.warning("Flag --%s is accepted but ignored by this server", name)
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # no search for a GPU's driver at start
    # TensorFlow takes seconds to import: only after the command line is known to be right.
    with hushed():
        from tuner.modelserver import server as server_module
        from tuner.modelserver import session

    try:
        with hushed():
            session.find_devices(options)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
        server = server_module.Server(options)
        server_module.install_signal_handlers(server)
        server.start()
    except (ServingError, OSError) as error:
        return _failed(error)
    server.wait()
    return 0


def _failed(error: Exception) -> int:
    if not isinstance(error, ServingError):  # a port or a socket
        error = ServingError(Code.INVALID_ARGUMENT, str(error))
    print(f"Failed to start server. Error: {error}", file=sys.stderr, flush=True)
    return EXIT_FAILED


def _print_versions() -> int:
    with hushed():
        from tuner.modelserver.server import versions
    print(versions())
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # TensorFlow's and gRPC's threads have nothing left to save; waiting for them can hang.
    os._exit(code)
