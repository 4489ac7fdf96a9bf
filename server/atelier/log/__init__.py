"""The document log, chosen by URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy.engine import URL, make_url

from atelier.channels import Channels, connected
from atelier.log.base import NOTHING, Edit, Entry, Kept, Listener, Log, Reader, Segment, Snapshot, Stored
from atelier.log.postgres import PostgresLog
from atelier.log.postgres_archive import PostgresArchive
from atelier.log.reader import SqliteReader
from atelier.log.redis import RedisLog
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
    """Open `url`: sqlite:///PATH or postgresql://… (one process), redis://…?archive=postgresql://… (any number).

    Raises:
        ValueError: another scheme, or no archive.
        RuntimeError: another server has it open, or it may lose what it acknowledges.
    """
    parsed = make_url(url)
    async with AsyncExitStack() as stack:
        if parsed.drivername == "sqlite":
            embedded = SqliteLog(Path(parsed.database or ""))
            stack.callback(embedded.close)
            yield embedded
        elif parsed.drivername in ("postgresql", "postgres"):
            pool = await stack.enter_async_context(_pool(parsed))
            await PostgresArchive(pool).prepare()
            holder = await asyncpg.connect(_dsn(parsed))
            stack.push_async_callback(holder.close)
            await PostgresLog.hold(holder)
            log = PostgresLog(pool)
            stack.push_async_callback(log.close)
            yield log
        elif parsed.drivername in ("redis", "rediss"):
            yield await _open_redis(parsed, stack)
        else:
            raise ValueError(f"a log is sqlite://, postgresql:// or redis://, not {parsed.drivername}://")


async def _open_redis(url: URL, stack: AsyncExitStack) -> RedisLog:
    archive_url = url.query.get("archive", "")
    vouched = url.query.get("vouched") == "yes"
    if not isinstance(archive_url, str) or not archive_url.startswith(("postgresql", "postgres")):
        raise ValueError(
            "a log in Redis needs PostgreSQL to keep documents in: redis://…?archive=postgresql://…"
        )
    pool = await stack.enter_async_context(_pool(make_url(archive_url)))
    archive = PostgresArchive(pool)
    await archive.prepare()
    plain = url.difference_update_query(["archive", "vouched"]).render_as_string(hide_password=False)
    redis = await stack.enter_async_context(connected(plain))
    channels = await stack.enter_async_context(Channels(redis))
    log = RedisLog(redis, channels, archive)
    stack.push_async_callback(log.close)
    await log.check(vouched=vouched)
    return log


@asynccontextmanager
async def open_reader(url: str) -> AsyncIterator[Reader]:
    """Open `url` for looking only, also while a server has it open.

    Raises:
        FileNotFoundError: there is no such file.
    """
    parsed = make_url(url)
    if parsed.drivername == "sqlite":
        path = Path(parsed.database or "")
        reader = SqliteReader(path)
        try:
            yield reader
        finally:
            reader.close()
    elif parsed.drivername in ("postgresql", "postgres"):
        async with _pool(parsed) as pool:
            await PostgresArchive(pool).prepare()
            yield PostgresArchive(pool)
    else:
        async with open_log(url) as log:
            yield log


def _dsn(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _pool(url: URL) -> Any:
    return asyncpg.create_pool(_dsn(url), min_size=1, max_size=8)
