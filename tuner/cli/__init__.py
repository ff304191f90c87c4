"""The command line: the only room that prints and exits. One module a command."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import re
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from tuner import __version__
from tuner.errors import TunerError, UsageError

_OF_STORAGES = ("grpc", "optuna", "psycopg", "psycopg2", "sqlalchemy", "sqlite3")
"""Packages whose errors tell of a storage."""


def command_names() -> list[str]:
    """Every command; modules whose name starts with ``_`` are helpers."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def _command(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser; with ``only`` just that command is imported, which keeps it quick to start."""
    parser = Parser(
        prog="tuner",
        description="Find how to run a model server: latency and energy of real deployments.",
    )
    parser.add_argument("--version", action="version", version=f"tuner {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in command_names() if only is None else [only]:
        module = _command(name)
        child = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(child)
        child.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code: 0 done, 1 failed, 2 wrong use, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    only = argv[0] if argv and argv[0] in command_names() else None
    try:
        args = build_parser(only).parse_args(argv)
        return args.run(args)
    except UsageError as error:
        return _tell(error, 2)
    except TunerError as error:
        return _tell(error, 1)
    except KeyboardInterrupt:
        print("tuner: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _tell(error, 2)  # A full disk, a folder that cannot be written to.
    except Exception as error:
        # A database or proxy that breaks while it is used (full disk, lost connection).
        if type(error).__module__.split(".")[0] in _OF_STORAGES:
            return _tell(error.__cause__ or error, 2)
        raise


def _tell(error: BaseException, code: int) -> int:
    print(f"tuner: {one_line(error)}", file=sys.stderr)
    return code


def one_line(error: BaseException) -> str:
    """An error's text on one line of printable characters, SQL left out."""
    text = str(getattr(error, "orig", None) or error)
    if isinstance(error, OSError) and error.strerror:
        text = ": ".join(str(part) for part in (error.filename, error.strerror) if part)
    elif callable(details := getattr(error, "details", None)):
        text = f"the storage's proxy does not answer: {details()}"
    # A URL typed in the wrong place is quoted by whoever refuses it, password and all.
    text = re.sub(r"(\w://[^\s:/@]*):(?!\*{3}@)\S*@", r"\1:***@", text)
    text = re.sub(r"(?i)(\bpass\w*=)[^\s&]+", r"\1***", text)
    return "".join(c if c.isprintable() else " " for c in text.strip())
