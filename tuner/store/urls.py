"""Where a study is kept: storage URLs, opening them, and the folder of its files."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import random
import re
import sqlite3
import time
import urllib.parse
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy

from tuner import inherited
from tuner.errors import StudyError
from tuner.measurement import Scalar
from tuner.store import patience

STUDIES = Path("studies")
"""Where studies land unless a storage is named."""
DEFAULT_PROXY_PORT = 13000
LOCK_TIMEOUT_S = 30.0
"""SQLite itself waits so long for another program's lock; then ``patience`` tries again."""
_OPENINGS = 5
_MEETING = re.compile("already exists|duplicate key|UNIQUE constraint")
"""What a database says to one of several that make its tables at the same moment."""
_PROXY_PATIENCE_S = 10.0


def given() -> str | None:
    """The storage that the environment names."""
    return os.environ.get(inherited.STORAGE) or None


def default_url(name: str) -> str:
    """The storage that the environment names, else a file in ``studies/``."""
    return given() or f"sqlite:///{STUDIES}/{name}.db"


def is_to_be_made(url: str) -> bool:
    """Whether the URL is of an SQLite file that isn't there yet."""
    parsed = _parsed(url)
    if parsed is None or parsed.drivername.split("+")[0] != "sqlite" or _is_in_memory(parsed):
        return False
    return not Path(str(parsed.database)).exists()


def redact(url: str) -> str:
    """A storage URL without its password, nor any secret among its options."""
    parsed = _parsed(url)
    if parsed is None:
        return "<storage>"
    if _is_torn(url):
        return f"{parsed.drivername}://***"
    secret = re.compile("pass|secret|token|key", re.IGNORECASE)
    hidden = {k: "***" for k in parsed.query if secret.search(k)}
    return parsed.update_query_dict(hidden).render_as_string(hide_password=True)


def _parsed(url: str) -> sqlalchemy.engine.URL | None:
    """A storage's URL as SQLAlchemy takes it; ``None`` for what is none.

    What libpq takes is translated: the scheme ``postgres``, several hosts, a socket's folder in the
    place of the host, and a list of ``keyword=value`` (PostgreSQL's documentation, 34.1.1).
    """
    if _KEYWORDS.match(url):
        return _of_keywords(url)
    scheme, colon, rest = url.partition("://")
    if scheme == "postgres" or scheme.startswith("postgres+"):
        url = f"postgresql{scheme.removeprefix('postgres')}{colon}{rest}"
    hosts = _HOSTS.fullmatch(url) if url.startswith("postgresql") else None
    if hosts is not None and ("," in hosts["hosts"] or hosts["hosts"].lower().startswith("%2f")):
        url = f"{hosts['before']}{hosts['after']}"
    else:
        hosts = None
    try:
        parsed = sqlalchemy.engine.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return None
    if hosts is not None:
        parsed = parsed.update_query_pairs(
            [("host", urllib.parse.unquote(host)) for host in hosts["hosts"].split(",")]
        )
    return parsed


_KEYWORDS = re.compile(r"\s*\w+\s*=")
_HOSTS = re.compile(r"(?P<before>[\w+]+://(?:[^/@]*@)?)(?P<hosts>[^/?]+)(?P<after>/.*|\?.*|)")
_OF_A_URL = {"user": "username", "password": "password", "host": "host", "port": "port",
             "dbname": "database"}


def _of_keywords(text: str) -> sqlalchemy.engine.URL | None:
    """libpq's ``host=… dbname=…``: values may be quoted, with \\ before a quote or a \\."""
    found = {}
    for name, quoted, plain in re.findall(r"(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S*))", text):
        found[name] = re.sub(r"\\(.)", r"\1", quoted) or plain
    several = "," in found.get("host", "") or found.get("host", "").startswith("/")
    try:
        named = {ours: found.pop(name) for name, ours in _OF_A_URL.items()
                 if name in found and not (several and name in ("host", "port"))}
        if "port" in named:
            named["port"] = int(named["port"])  # type: ignore[assignment]
        return sqlalchemy.engine.URL.create("postgresql", query=found, **named)  # type: ignore[arg-type]
    except ValueError:
        return None


def _is_in_memory(url: sqlalchemy.engine.URL) -> bool:
    database = url.database or ""
    return not database or ":memory:" in database or url.query.get("mode") == "memory"


def _is_torn(url: str) -> bool:
    """Whether a password's own @ may be taken for the one before the host, its rest for a host."""
    return not url.startswith("sqlite") and url.count("@") > 1


def artifacts(url: str, name: str) -> Path:
    """Folder for a study's logs, samples and plots: beside an SQLite file, else in ``studies/``."""
    folder = STUDIES
    parsed = _parsed(url)
    if parsed is not None and parsed.get_backend_name() == "sqlite" and not _is_in_memory(parsed):
        folder = Path(str(parsed.database)).parent
    return folder / f"{name}.artifacts"


def level_name(base: str, levels: Mapping[str, Scalar]) -> str:
    """Name of the study of one combination of factor levels."""
    if not levels:
        return base
    return f"{base}@" + ",".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}"
                                 for k, v in sorted(levels.items()))


def connect(url: str, *, create: bool = False, force: bool = False) -> optuna.storages.BaseStorage:
    """Open a storage.

    Args:
        url: an SQLAlchemy URL, e.g. ``sqlite:///studies/batching.db``, or ``grpc://host:port`` of
            a ``tuner proxy``.
        create: make the database (and the folder of an SQLite file) where it is missing.
        force: add a study's tables to an SQLite file that holds another program's.

    Raises:
        StudyError: it cannot be opened; the message never holds a password.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    parsed = _parsed(url)
    if parsed is None:
        raise StudyError(
            "the storage is not a URL; say e.g. sqlite:///studies/batching.db or "
            "postgresql://user@host/database"
        )
    if parsed.drivername == "grpc":
        return _connect_proxy(parsed)
    if _is_torn(url):
        raise StudyError(f"storage {redact(url)}: write an @ in the password (or elsewhere) as %40")
    engine_kwargs: dict[str, Any] = {}
    if parsed.get_backend_name() == "sqlite":
        engine_kwargs = {"connect_args": {"timeout": LOCK_TIMEOUT_S}}
        if _is_in_memory(parsed):
            raise StudyError(
                f"storage {redact(url)}: SQLite would keep the study in memory and lose it at the "
                "end; name a file, sqlite:///FILE.db"
            )
        _prepare_sqlite(str(parsed.database), create, force)
    else:
        engine_kwargs = {"pool_pre_ping": True}
    try:
        if parsed.get_dialect().is_async:
            raise StudyError(
                f"storage {redact(url)}: its driver works asynchronously; leave it out "
                f"({parsed.get_backend_name()}://…)"
            )
        storage = _open(_with_driver(parsed), engine_kwargs)
    except StudyError:
        raise
    except (sqlalchemy.exc.NoSuchModuleError, ImportError) as error:
        raise StudyError(
            f"storage {redact(url)}: its driver is not installed ({_first_line(error)}); "
            "install tuner[postgres] for PostgreSQL, pymysql for MySQL"
        ) from None
    except Exception as error:  # noqa: BLE001 - drivers raise their own kinds
        raise StudyError(f"storage {redact(url)} cannot be opened: {_first_line(error)}") from None
    if parsed.get_backend_name() == "sqlite":
        # Readers and the writer stop blocking each other, and a commit costs one fsync less.
        with storage.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    return storage


def _open(url: str, engine_kwargs: dict[str, Any]) -> optuna.storages.RDBStorage:
    """Open a database; several that make its tables at the same moment get in each other's way."""
    for left in reversed(range(_OPENINGS)):
        try:
            return patience.open_database(url, engine_kwargs)
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError,
                sqlalchemy.exc.OperationalError, optuna.exceptions.StorageInternalError) as error:
            met = isinstance(error, sqlalchemy.exc.IntegrityError)
            if not left or not (met or _MEETING.search(_first_line(error))):
                raise
            time.sleep(random.uniform(0.1, 0.5))
    raise AssertionError("the last opening returns or raises")


DRIVERS = {"postgresql": ("psycopg2", "psycopg"), "mysql": ("MySQLdb", "pymysql")}
"""Modules that can speak to a database whose URL names none, the first installed one is taken."""


def _with_driver(url: sqlalchemy.engine.URL) -> str:
    # What SQLAlchemy takes when no driver is named changes with its versions.
    for module in DRIVERS.get(url.drivername, ()):
        if importlib.util.find_spec(module) is not None:
            url = url.set(drivername=f"{url.drivername}+{module.lower()}")
            break
    return url.render_as_string(hide_password=False)


def _connect_proxy(url: sqlalchemy.engine.URL) -> optuna.storages.BaseStorage:
    if url.host is None or url.username or url.password or url.database:
        raise StudyError("a proxy's URL is grpc://HOST:PORT and nothing more")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        proxy = patience.open_proxy(url.host, url.port or DEFAULT_PROXY_PORT)
    try:
        proxy.wait_server_ready(timeout=_PROXY_PATIENCE_S)
    except ConnectionError:
        raise StudyError(f"storage {url}: nothing answers there; start `tuner proxy`") from None
    return proxy


def _prepare_sqlite(database: str, create: bool, force: bool) -> None:
    path = Path(database)
    if not path.exists():
        if not create:
            raise StudyError(f"no study database at {path}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(f"{path.parent} cannot be made: {error.strerror}") from None
        if not os.access(path.parent, os.W_OK):
            raise StudyError(f"{path.parent} cannot be written to; name another --storage")
        return
    # Never look into the file with open(): closing it would drop the POSIX locks that SQLite's own
    # connections of this process hold on it, and another process could then damage the database.
    if not path.is_file():
        raise StudyError(f"{path} is not a file; name another --storage")
    tables = [] if force else _tables(path)
    if tables and not {"studies", "trials"} <= set(tables):
        raise StudyError(
            f"{path} holds another program's tables ({', '.join(tables[:3])}"
            + (", …" if len(tables) > 3 else "") + "): a study would add its twelve to them; name "
            "another --storage, or say `tuner study --force`"
        )


def _tables(path: Path) -> list[str]:
    """Names of the tables of an SQLite file; none where it cannot be read, which its opening tells."""
    with contextlib.closing(sqlite3.connect(path, timeout=LOCK_TIMEOUT_S)) as connection:
        try:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            return sorted(name for (name,) in rows if not name.startswith("sqlite_"))
        except sqlite3.Error:
            return []


def _first_line(error: BaseException) -> str:
    origin = getattr(error, "orig", None) or error.__cause__ or error
    origin = getattr(origin, "orig", None) or origin
    return (str(origin).strip().splitlines() or [type(error).__name__])[0][:200]
