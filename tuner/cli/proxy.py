"""``tuner proxy``: lets workers that cannot reach a study's database reach it through this one."""

from __future__ import annotations

import argparse
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

from tuner import interrupts
from tuner.cli import _numbers
from tuner.errors import UsageError

HELP = "pass a study's database on over gRPC, for workers that cannot reach it themselves"
LOOPBACK = "127.0.0.1"
THREADS = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--storage", metavar="URL",
        help="the database, e.g. postgresql://USER@HOST/DATABASE; default: what TUNER_STORAGE says")
    add("--host", default=LOOPBACK, metavar="ADDRESS",
        help="where to listen (default: %(default)s, this machine only); whoever can connect can "
        "read and change every study: there is no password")
    add("--port", type=_numbers.port, default=13000, metavar="N",
        help="(default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    import optuna
    from optuna.storages import get_storage
    from optuna.storages._grpc.server import make_server

    from tuner import store

    url = args.storage or store.urls.given()
    if url is None:
        raise UsageError("say --storage URL, or set TUNER_STORAGE")
    database = store.connect(url, create=True)
    store.patience.serve_whole(database)
    storage = get_storage(database)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    try:
        server = make_server(storage, args.host, args.port, ThreadPoolExecutor(THREADS))
    except RuntimeError:
        raise UsageError(
            f"--host {args.host} --port {args.port}: cannot be listened on; choose another"
        ) from None
    with interrupts.deferred():
        server.start()
        print(f"passing {store.redact(url)} on at grpc://{args.host}:{args.port}", file=sys.stderr,
              flush=True)
        try:
            with interrupts.allowed():
                server.wait_for_termination()
        finally:
            server.stop(grace=5.0).wait()
    return 0
