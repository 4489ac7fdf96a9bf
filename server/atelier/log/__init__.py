"""The document log, chosen by URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from sqlalchemy.engine import make_url

from atelier.log.base import NOTHING, Edit, Entry, Kept, Listener, Log, Reader, Segment, Snapshot, Stored
from atelier.log.postgres import PostgresLog
from atelier.log.reader import SqliteReader
from atelier.log.sqlite import SqliteLog

__all__ = [
    "NOTHING",
    "Edit",
    "Entry",
    "Kept",
    "Listener",
    "Log",
    "Reader",
    "Segment",
    "Snapshot",
    "Stored",
    "open_log",
    "open_reader",
]


@asynccontextmanager
async def open_log(url: str) -> AsyncIterator[Log]:
    """Open `url`: sqlite:///PATH (one process) or postgresql://….

    Raises:
        ValueError: another scheme.
        RuntimeError: another server has the file open.
    """
    parsed = make_url(url)
    if parsed.drivername == "sqlite":
        embedded = SqliteLog(Path(parsed.database or ""))
        try:
            yield embedded
        finally:
            embedded.close()
    elif parsed.drivername in ("postgresql", "postgres"):
        dsn = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
        async with asyncpg.create_pool(dsn, min_size=1, max_size=8) as pool:
            await PostgresLog.prepare(pool)
            log = PostgresLog(pool)
            try:
                yield log
            finally:
                await log.close()
    else:
        raise ValueError(f"a log is sqlite:// or postgresql://, not {parsed.drivername}://")


@asynccontextmanager
async def open_reader(url: str) -> AsyncIterator[Reader]:
    """Open `url` for looking only, also while a server has it open.

    Raises:
        FileNotFoundError: there is no such file.
    """
    parsed = make_url(url)
    if parsed.drivername != "sqlite":
        async with open_log(url) as log:
            yield log
        return
    path = Path(parsed.database or "")
    reader = SqliteReader(path)
    try:
        yield reader
    finally:
        reader.close()
