"""Engines from a URL, and the schema's revisions through Alembic."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import alembic.command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, OperationalError

from sipagent.core.errors import ConfigError, SetupError
from sipagent.core.resources import shipped_folder

CONNECT_TIMEOUT_S = 5


def default_url(folder: Path) -> str:
    """The URL of the SQLite file a node uses when it is given no URL."""
    return URL.create("sqlite", database=str(folder / "sipagent.db")).render_as_string(hide_password=False)


def parse_url(url: str) -> URL:
    """The URL with our driver in it; raises ConfigError for a database sipagent does not speak."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # their texts may quote the password
        raise ConfigError(
            "the database URL cannot be read: write sqlite:///FILE or postgresql://user:password@host/name, "
            "with %40 for @ and %25 for % in the password"
        ) from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        # Writer and readers are separate connections; each would get a memory of its own.
        if parsed.database in (None, "", ":memory:"):
            raise ConfigError("the database URL names no file: write sqlite:///FILE")
        return parsed.set(drivername="sqlite")
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    raise ConfigError(f"database URL begins with {backend!r}: only sqlite and postgresql are supported")


def make_engine(url: str, *, read_only: bool = False, busy_timeout_ms: int = 5000) -> Engine:
    """An engine for the URL. `busy_timeout_ms`: how long SQLite waits for another writer's lock.

    Raises ConfigError for an unusable URL, SetupError when the driver is not installed. Nothing is connected yet.
    """
    parsed = parse_url(url)
    # hide_parameters: statements' values are numbers and words of calls, and error texts go to logs
    common: dict[str, Any] = {"hide_parameters": True, "pool_pre_ping": True}
    if parsed.get_backend_name() == "sqlite":
        # mode=rw: a file that is missing is an error, not a new file that everybody may read (`upgrade` makes it)
        name = "file:" + quote(str(parsed.database))
        parsed = parsed.set(database=name, query={"uri": "true", "mode": "rw"})
        engine = create_engine(parsed, connect_args={"timeout": busy_timeout_ms / 1000}, **common)
        _prepare_sqlite(engine, read_only=read_only, busy_timeout_ms=busy_timeout_ms)
        return engine
    arguments = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        # a server that vanished without a word is noticed in seconds, not after the kernel's 15 minutes
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
        "application_name": "sipagent",
    }
    if read_only:
        common["execution_options"] = {"postgresql_readonly": True}
    try:
        return create_engine(parsed, connect_args=arguments, pool_size=4, max_overflow=4, **common)
    except ModuleNotFoundError as error:
        raise SetupError("PostgreSQL needs its driver: pip install 'sipagent[postgres]'") from error


def _prepare_sqlite(engine: Engine, *, read_only: bool, busy_timeout_ms: int) -> None:
    # The driver's own transaction handling begins late and without a lock; we say BEGIN ourselves.
    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={busy_timeout_ms}")
        # WAL: readers never wait for the writer. NORMAL: a power cut may lose the last commits, never the file.
        # A read-only opener takes the mode as it finds it, since changing it is a write.
        if not read_only:
            cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        if read_only:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    # IMMEDIATE: the writer waits for its lock at the start; a read turned write halfway fails at once instead.
    begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


class OpenConnections:
    """Those of an engine, so that threads that wait for a server that hangs can be set free."""

    def __init__(self, engine: Engine) -> None:
        self._open: set[Any] = set()
        if engine.dialect.name == "postgresql":  # SQLite answers, or gives up after its busy timeout
            # insert: before SQLAlchemy's own first questions
            event.listen(engine, "connect", lambda connection, _record: self._open.add(connection), insert=True)
            event.listen(engine, "close", lambda connection, _record: self._open.discard(connection))

    def break_off(self) -> None:
        for connection in tuple(self._open):
            # Not closed under the feet of a thread that waits for it: the thread finds the stream at its end.
            try:
                with socket.socket(fileno=os.dup(connection.fileno())) as ended:
                    ended.shutdown(socket.SHUT_RDWR)
            except Exception:  # psycopg.OperationalError when it closed meanwhile, OSError when the peer did
                pass


def describe(error: Exception) -> str:
    """The error without any value of a row: PostgreSQL quotes those in integrity and data errors."""
    if isinstance(error, DBAPIError):
        if isinstance(error, OperationalError) or type(error) is DatabaseError:  # the latter: SQLite's file is broken
            return str(error.orig).strip().partition("\n")[0]
        return f"{type(error.orig).__name__} {getattr(error.orig, 'sqlstate', None) or ''}".strip()
    return type(error).__name__


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the schema to the revision; makes the SQLite file, and its folder, when they do not exist.

    This, `downgrade` and `current` raise SetupError when the database cannot be used, ConfigError for a revision that
    does not exist.
    """
    make_private_file(parse_url(url))
    with _plain_errors(), alembic_config(url) as config:
        alembic.command.upgrade(config, revision)


def downgrade(url: str, revision: str) -> None:
    """Take the schema back to the revision (``base`` removes every table)."""
    with _plain_errors(), alembic_config(url) as config:
        alembic.command.downgrade(config, revision)


def current(url: str) -> str | None:
    """The schema's revision, None for a database without one."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).exists():
        return None  # connecting would make an empty file
    engine = make_engine(url, read_only=True)
    try:
        with _plain_errors(), engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


@contextmanager
def alembic_config(url: str) -> Iterator[Config]:
    """Alembic's configuration with an open connection to the URL, for `alembic.command` functions."""
    engine = make_engine(url)
    config = Config()
    # Alembic's options go through configparser, where % begins an interpolation
    config.set_main_option("script_location", str(shipped_folder("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            yield config
    finally:
        engine.dispose()


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise SetupError(f"the database cannot be used: {describe(error)}") from error
    except CommandError as error:
        raise ConfigError(f"the database's revision: {error}") from error


def make_private_file(url: URL) -> None:
    """Make the SQLite file when it does not exist. Raises SetupError when that cannot be done."""
    # The record holds numbers and words of calls: readable by the node's user only. SQLite gives its
    # -wal and -shm files the mode of the database.
    if url.get_backend_name() != "sqlite":
        return
    file = Path(str(url.database))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise SetupError(f"the database file {file} cannot be opened for writing: {error.strerror}") from error
