"""``tuner serve``: the embedded model server by hand, in this process."""

from __future__ import annotations

import argparse
import os
import socket

from tuner.errors import UsageError

HELP = "serve a model with the embedded server, with tensorflow_model_server's flags"


_OURS = ("model_name", "model_base_path", "version")
"""Flags whose value follows from ``--model``, or that end at once."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from tuner.modelserver.flags import flag_table

    parser.add_argument("--model", required=True, metavar="NAME|DIR", help="a model or SavedModel")
    parser.add_argument(
        "--signature", metavar="NAME",
        help="a signature that the model must have (default: any; all are served)",
    )
    group = parser.add_argument_group("flags of tensorflow_model_server")
    for flag in flag_table():
        if flag.name in _OURS:
            continue
        switch = isinstance(flag.default, bool)
        default = str(flag.default).lower() if switch else flag.default
        text = flag.help or f"accepted, ignored: {flag.ignored}"
        optional = {"nargs": "?", "const": "true", "metavar": "true|false"}
        group.add_argument(
            f"--{flag.name}",
            help=f"{text} (default: {default})".replace("%", "%%"),
            **(optional if switch else {"metavar": "VALUE"}),  # type: ignore[arg-type]
        )


def run(args: argparse.Namespace) -> int:
    from tuner import inherited, models
    from tuner.deploy import programs
    from tuner.modelserver.flags import flag_table

    for flag in ("port", "rest_api_port"):
        _refuse_taken(flag, getattr(args, flag, None))
    record = models.resolve(args.model, signature=args.signature)
    given = [
        f"--{flag.name}={value}"
        for flag in flag_table()
        if (value := getattr(args, flag.name, None)) is not None
    ]
    if args.model_config_file is None:
        given = [f"--model_name={record.name}", f"--model_base_path={record.path}", *given]
    print(f"serving {record.name}{_where(args)}; Ctrl-C ends it", flush=True)
    command = programs.command("tuner.modelserver", *given)
    os.execve(command[0], command, {**inherited.environment(), **programs.environment()})


def _where(args: argparse.Namespace) -> str:
    ports = {"gRPC": args.port or "8500", "REST": args.rest_api_port or "0"}
    open_ports = [f"{name} on port {port}" for name, port in ports.items() if port != "0"]
    return f" by {' and '.join(open_ports)}" if open_ports else ""


def _refuse_taken(flag: str, port: str | None) -> None:
    """Raise UsageError where another process listens on the port already."""
    if port is None or not port.isdigit() or int(port) == 0:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(port)))
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"--{flag} {port}: cannot listen there ({error}); choose another port"
            ) from None
