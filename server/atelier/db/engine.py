"""Opens the database, brings its schema up to date, and hands out connections.

SQLite runs in WAL mode with foreign keys on. A lock file beside it, held for the process's life, refuses a second
server on the same file; PostgreSQL serves many.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from atelier.errors import Unavailable

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}
MIGRATIONS = Path(__file__).parents[1] / "migrations"


_READING = "atelier_reading"


class Database:
    """A pool of connections. Never hold one across a wait on a socket, a sandbox or a model."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._reading = engine.execution_options(**{_READING: True})
        event.listen(engine.sync_engine, "before_cursor_execute", _refuse_writes)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction: commits on leaving, rolls back on an error.

        Raises:
            Unavailable: `database_unavailable`, when the database is locked, full or gone.
        """
        async with self._opened(self.engine) as db:
            yield db

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that only reads: it sees one state, and waits for nobody who writes.

        Raises:
            Unavailable: `database_unavailable`.
            RuntimeError: a statement that would write.
        """
        async with self._opened(self._reading) as db:
            yield db

    @asynccontextmanager
    async def _opened(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        try:
            async with engine.begin() as db:
                yield db
        except Exception as error:
            if _away(error):
                raise unavailable(error) from error
            raise

    async def ping(self) -> None:
        """Check that the database answers."""
        async with self.begin() as db:
            await db.execute(text("select 1"))


# PostgreSQL's classes of errors that say nothing about the statement: no connection, no room, being shut down or
# started (https://www.postgresql.org/docs/current/errcodes-appendix.html).
_AWAY = ("08", "53", "57")


def _away(error: Exception) -> bool:
    if isinstance(error, TimeoutError | OperationalError | OSError | sqlite3.OperationalError):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    # While a connection is made, the driver's own errors come through.
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(cause, "sqlstate", None) or "").startswith(_AWAY)


def unavailable(error: BaseException) -> Unavailable:
    """Say a storage failure in words; the cause stays in the log."""
    return Unavailable(
        "database_unavailable",
        f"The database did not take this just now ({type(error).__name__}).",
        next_step="Nothing is lost in the editor. Try again in a moment.",
    )


def async_url(url: str) -> str:
    """Turn sqlite:// and postgresql:// into SQLAlchemy's URL with an async driver.

    Raises:
        ValueError: another scheme.
    """
    parsed = make_url(url)
    driver = _DRIVERS.get(parsed.drivername.split("+")[0])
    if driver is None:
        raise ValueError(f"a database is sqlite:// or postgresql://, not {parsed.drivername}://")
    return parsed.set(drivername=driver).render_as_string(hide_password=False)


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    """Open `url` (sqlite:///PATH or postgresql://…) and migrate it to the newest schema."""
    target = async_url(url)
    sqlite = target.startswith("sqlite")
    lock = hold_lock(Path(make_url(target).database or "")) if sqlite else None
    options: dict[str, Any] = {"connect_args": {"timeout": 5}} if sqlite else {"pool_pre_ping": True}
    engine = create_async_engine(target, **options)
    if sqlite:
        event.listen(engine.sync_engine, "connect", _sqlite_pragmas)
        event.listen(engine.sync_engine, "begin", _begin)
        event.listen(engine.sync_engine, "invalidate", _let_go)
    try:
        await migrate(engine, "head")
        yield Database(engine)
    finally:
        await engine.dispose()
        if lock is not None:
            os.close(lock)


async def migrate(engine: AsyncEngine, revision: str) -> None:
    """Bring the schema up or down to `revision` ("head" or "base" or an id)."""

    def run(connection: Any) -> None:
        if connection.dialect.name == "postgresql":
            # Servers that start at once take turns.
            connection.execute(text("select pg_advisory_xact_lock(715515)"))
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        if revision == "base":
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)

    async with engine.begin() as connection:
        await connection.run_sync(run)


def hold_lock(path: Path) -> int:
    """Take the one-server lock of a SQLite file; returns the descriptor that holds it.

    Raises:
        RuntimeError: another server has the file open.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise RuntimeError(
            f"{path} is already open in another Atelier server (process {holder}). "
            "Stop that one, or give this one its own folder with --data."
        ) from None
    os.truncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle


def _sqlite_pragmas(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Any) -> None:
    # SQLite upgrades a reading transaction to a writing one by failing; taking the write lock first waits instead. Given
    # to the driver as it is: through a cursor it would be three round trips to its thread instead of one.
    begin = "BEGIN" if connection.get_execution_options().get(_READING) else "BEGIN IMMEDIATE"
    try:
        connection.connection.dbapi_connection.run_async(lambda driver: driver.execute(begin))
    except BaseException as error:
        if not isinstance(
            error, Exception
        ):  # cancelled; it may have begun all the same, and would hold the lock
            connection.invalidate(error)
        raise


def _let_go(connection: Any, _record: object, _error: object) -> None:
    # Whoever was cancelled leaves a connection behind that is closed at once; but SQLite keeps the lock of a closed one
    # for as long as a row of some answer was not read.
    connection.rollback()


def _refuse_writes(connection: Any, _cursor: Any, statement: str, *_: object) -> None:
    if connection.get_execution_options().get(_READING) and not statement.lstrip().upper().startswith(
        ("SELECT", "WITH")
    ):
        raise RuntimeError(f"a transaction that only reads was given {statement[:40]!r}")
