"""The log in PostgreSQL: one writer task, appends in groups, syncs in groups.

Appends commit with synchronous_commit=off: the server has them, so they survive a kill of this process. A sync is one
small transaction with synchronous_commit=on, which flushes the write-ahead log up to itself and so everything before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import asyncpg
import structlog

from atelier.errors import Unavailable
from atelier.log.base import Edit, Entry, Listener, Stored
from atelier.log.followers import Followers

logger = structlog.get_logger(__name__)
_MOST_JOBS = 512
_FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
_SCHEMA = """
create table if not exists log_entries (
  position bigint generated always as identity primary key,
  document text not null, data bytea not null, author text not null, at bigint not null
);
create index if not exists log_entries_document on log_entries (document, position);
create table if not exists log_history (
  position bigint primary key,
  document text not null, data bytea not null, author text not null, at bigint not null
);
create index if not exists log_history_document on log_history (document, position);
create table if not exists log_snapshots (document text primary key, position bigint not null, data bytea not null);
"""


@dataclass(slots=True)
class _Append:
    document: str
    edits: Sequence[Edit]
    done: asyncio.Future[list[int]]


class PostgresLog:
    """See the module. Made by `open_log`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._followers = Followers()
        self._jobs: asyncio.Queue[_Append] = asyncio.Queue()
        self._committed = 0
        self._synced = 0
        self._syncing: asyncio.Task[None] | None = None
        self._task = asyncio.create_task(self._write(), name="log-writer")

    @staticmethod
    async def prepare(pool: asyncpg.Pool) -> None:
        """Make the tables; two processes that start at once take turns."""
        async with pool.acquire() as db, db.transaction():
            await db.execute("select pg_advisory_xact_lock(715517)")
            await db.execute(_SCHEMA)

    async def append(self, document: str, edits: Sequence[Edit]) -> list[int]:
        """Append in order; returns the positions once the edits survive a kill."""
        if not edits:
            return []
        done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._jobs.put_nowait(_Append(document, edits, done))
        return await done

    async def sync(self, document: str, position: int) -> None:
        """Return once everything up to `position` survives a power cut."""
        # A position that an earlier process was given counts as committed: it has been read.
        self._committed = max(self._committed, position)
        while self._synced < position:
            if self._syncing is None:
                self._syncing = asyncio.create_task(self._sync_once(), name="log-sync")
            await asyncio.shield(self._syncing)

    async def _sync_once(self) -> None:
        target = self._committed
        try:
            async with self._pool.acquire() as db, db.transaction():
                await db.execute("select pg_logical_emit_message(true, 'atelier', '')")
            self._synced = max(self._synced, target)
        except _FAILURES as error:
            raise _unavailable(error) from error
        finally:
            self._syncing = None

    async def read(self, document: str, after: int = 0) -> Stored:
        """Return the snapshot, if it is newer than `after`, and the tail."""
        try:
            async with self._pool.acquire() as db, db.transaction(isolation="repeatable_read", readonly=True):
                row = await db.fetchrow(
                    "select position, data from log_snapshots where document = $1 and position > $2",
                    document,
                    after,
                )
                covered, snapshot = (row["position"], row["data"]) if row else (0, None)
                rows = await db.fetch(
                    "select position, data, author, at from log_entries where document = $1 and position > $2 order by position",
                    document,
                    max(after, covered),
                )
        except _FAILURES as error:
            raise _unavailable(error) from error
        return Stored(
            snapshot,
            covered,
            tuple(Entry(r["position"], Edit(r["data"], r["author"], r["at"])) for r in rows),
        )

    def follow(self, document: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` for what this process appends from now on."""
        return self._followers.add(document, listener)

    async def compact(self, document: str, upto: int, snapshot: bytes) -> None:
        """Keep the snapshot for everything up to `upto`; an older one than what is kept changes nothing."""
        try:
            async with self._pool.acquire() as db, db.transaction():
                changed = await db.fetchrow(
                    "insert into log_snapshots (document, position, data) values ($1, $2, $3) on conflict (document) do update"
                    " set position = excluded.position, data = excluded.data"
                    " where excluded.position > log_snapshots.position returning position",
                    document,
                    upto,
                    snapshot,
                )
                if changed:
                    await db.execute(
                        "with covered as (delete from log_entries where document = $1 and position <= $2 returning *)"
                        " insert into log_history select * from covered on conflict do nothing",
                        document,
                        upto,
                    )
        except _FAILURES as error:
            raise _unavailable(error) from error

    async def close(self) -> None:
        """End the writer; what had not been handed over fails."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _write(self) -> None:
        while True:
            batch = [await self._jobs.get()]
            while len(batch) < _MOST_JOBS and not self._jobs.empty():
                batch.append(self._jobs.get_nowait())
            try:
                positions = await self._commit(batch)
            except _FAILURES as error:
                logger.error("the log took nothing", error=str(error), appends=len(batch))
                for job in batch:
                    if not job.done.done():
                        job.done.set_exception(_unavailable(error))
                continue
            for job in batch:
                own, positions = positions[: len(job.edits)], positions[len(job.edits) :]
                self._committed = own[-1]
                self._followers.tell(job.document, [Entry(p, e) for p, e in zip(own, job.edits, strict=True)])
                if not job.done.done():
                    job.done.set_result(own)

    async def _commit(self, batch: list[_Append]) -> list[int]:
        rows = [(job.document, edit.update, edit.author, edit.at) for job in batch for edit in job.edits]
        async with self._pool.acquire() as db, db.transaction():
            await db.execute("set local synchronous_commit = off")
            # `unnest … with ordinality` keeps the order, so identities grow in it.
            found = await db.fetch(
                "insert into log_entries (document, data, author, at) select document, data, author, at from"
                " unnest($1::text[], $2::bytea[], $3::text[], $4::bigint[]) with ordinality"
                " as given(document, data, author, at, n) order by n returning position",
                *(list(column) for column in zip(*rows, strict=True)),
            )
        return sorted(row["position"] for row in found)


def _unavailable(error: BaseException) -> Unavailable:
    return Unavailable(
        "log_unavailable",
        f"The document log did not take this just now ({type(error).__name__}).",
        next_step="Your edits are kept in the browser and sent again.",
    )
