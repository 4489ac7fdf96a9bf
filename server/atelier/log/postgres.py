"""The log in PostgreSQL: one writer task, appends in groups, syncs in groups.

Appends commit with synchronous_commit=off: the server has them, so they survive a kill of this process. A sync is one
small transaction with synchronous_commit=on, which flushes the write-ahead log up to itself and so everything before.
Entries stay where they are, also once a snapshot covers them: history reads them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import structlog

from atelier.errors import Unavailable
from atelier.log.base import NOTHING, Edit, Entry, Kept, Listener, Segment, Settled, Snapshot, Stored
from atelier.log.followers import Followers, settle
from atelier.log.packs import pack_segments, unpack_segments

logger = structlog.get_logger(__name__)
_MOST_JOBS = 2_048
_FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
SCHEMA = """
create table if not exists log_entries (
  position bigint generated always as identity primary key,
  document text not null, data bytea not null, author text not null, at bigint not null
);
create index if not exists log_entries_document on log_entries (document, position);
create table if not exists log_documents (
  document text primary key, position bigint not null default 0, generation integer not null default 0,
  state bytea not null default '\\x00'
);
create table if not exists log_segments (
  document text not null, generation integer not null, number integer not null, data bytea not null,
  ends bytea not null, primary key (document, generation, number)
);
create table if not exists log_kept (
  document text not null, position bigint not null, state bytea not null, data bytea not null,
  primary key (document, position)
);
do $$ begin
  if to_regclass('log_snapshots') is not null then
    insert into log_entries (position, document, data, author, at) overriding system value
      select position, document, data, author, at from log_history on conflict do nothing;
    insert into log_segments select document, 1, 0, data, '' from log_snapshots on conflict do nothing;
    insert into log_documents select document, position, 1, '' from log_snapshots on conflict do nothing;
    drop table log_history;
    drop table log_snapshots;
  end if;
end $$;
"""
_Job = tuple[str, Edit, Settled | None, "asyncio.Future[list[int]] | None", list[int]]


class PostgresLog:
    """See the module. Made by `open_log`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._followers = Followers()
        self._jobs: list[_Job] = []
        self._ready = asyncio.Event()
        self._committed = 0
        self._synced = 0
        self._syncing: asyncio.Task[None] | None = None
        self._written: list[tuple[Settled, Edit]] = []
        self._task = asyncio.create_task(self._write(), name="log-writer")

    @staticmethod
    async def prepare(pool: asyncpg.Pool) -> None:
        """Make the tables; two processes that start at once take turns."""
        async with pool.acquire() as db, db.transaction():
            await db.execute("select pg_advisory_xact_lock(715517)")
            await db.execute(SCHEMA)

    # --- writing ------------------------------------------------------------------------------------------------

    def submit(self, document: str, edit: Edit, settled: Settled) -> None:
        """Hand an edit over; see the port."""
        self._jobs.append((document, edit, settled, None, []))
        self._ready.set()

    async def append(self, document: str, edits: Sequence[Edit]) -> list[int]:
        """Append in order; returns the positions once the edits survive a kill."""
        if not edits:
            return []
        done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        positions: list[int] = []
        for edit in edits[:-1]:
            self._jobs.append((document, edit, None, None, positions))
        self._jobs.append((document, edits[-1], None, done, positions))
        self._ready.set()
        return await done

    async def _write(self) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._jobs:
                # An append's edits end with the one that has its future: a group is never cut.
                end = min(len(self._jobs), _MOST_JOBS)
                while (
                    end < len(self._jobs)
                    and self._jobs[end - 1][2] is None
                    and self._jobs[end - 1][3] is None
                ):
                    end += 1
                batch, self._jobs = self._jobs[:end], self._jobs[end:]
                await self._commit(batch)

    async def _commit(self, batch: list[_Job]) -> None:
        rows = [(document, edit.update, edit.author, edit.at) for document, edit, *_ in batch]
        try:
            async with self._pool.acquire() as db, db.transaction():
                await db.execute("set local synchronous_commit = off")
                # `unnest … with ordinality` keeps the order, so identities grow in it.
                found = await db.fetch(
                    "insert into log_entries (document, data, author, at) select document, data, author, at from"
                    " unnest($1::text[], $2::bytea[], $3::text[], $4::bigint[]) with ordinality"
                    " as given(document, data, author, at, n) order by n returning position",
                    *(list(column) for column in zip(*rows, strict=True)),
                )
        except _FAILURES as error:
            self._refuse(batch, error)
            return
        told: dict[str, list[Entry]] = {}
        for job, position in zip(batch, sorted(row["position"] for row in found), strict=True):
            document, edit, settled, done, positions = job
            told.setdefault(document, []).append(Entry(position, edit))
            self._committed = position
            positions.append(position)
            if settled is not None:
                self._written.append((settled, edit))
            if done is not None and not done.done():
                done.set_result(positions)
        for document, entries in told.items():
            self._followers.tell(document, entries)
        if self._written:
            self._start_sync()

    def _refuse(self, batch: list[_Job], error: BaseException) -> None:
        logger.error("the log took nothing", error=str(error), edits=len(batch))
        settle([(job[2], job[1]) for job in batch if job[2] is not None], _unavailable(error))
        for *_, done, _ in batch:
            if done is not None and not done.done():
                done.set_exception(_unavailable(error))

    # --- syncing ------------------------------------------------------------------------------------------------

    async def sync(self, document: str, position: int) -> None:
        """Return once everything up to `position` survives a power cut."""
        # A position that an earlier process was given counts as committed: it has been read.
        self._committed = max(self._committed, position)
        while self._synced < position:
            await asyncio.shield(self._start_sync())

    def _start_sync(self) -> asyncio.Task[None]:
        if self._syncing is None:
            self._syncing = asyncio.create_task(self._sync_all(), name="log-sync")
            self._syncing.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._syncing

    async def _sync_all(self) -> None:
        """Flush once, settle what that covers, and go on while more came meanwhile."""
        try:
            while True:
                target = self._committed
                written, self._written = self._written, []
                try:
                    async with self._pool.acquire() as db, db.transaction():
                        await db.execute("select pg_logical_emit_message(true, 'atelier', '')")
                except _FAILURES as error:
                    settle(written, _unavailable(error))
                    raise _unavailable(error) from error
                self._synced = max(self._synced, target)
                settle(written, None)
                if not self._written:
                    return
        finally:
            self._syncing = None

    # --- reading and keeping ------------------------------------------------------------------------------------

    def follow(self, document: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` for what this process appends from now on."""
        return self._followers.add(document, listener)

    async def read(self, document: str) -> Stored:
        """Return the newest snapshot and what came after it, of one moment."""
        async with self._reading() as db:
            row = await db.fetchrow(
                "select position, generation, state from log_documents where document = $1", document
            )
            snapshot = NOTHING
            if row is not None and row["generation"]:
                parts = await db.fetch(
                    "select data, ends from log_segments where document = $1 and generation = $2 order by number",
                    document,
                    row["generation"],
                )
                segments = tuple(Segment(part["data"], part["ends"]) for part in parts)
                snapshot = Snapshot(row["position"], row["state"], segments)
            return Stored(snapshot, await _entries(db, document, snapshot.position))

    async def history(self, document: str, after: int = 0, limit: int = 5_000) -> tuple[Entry, ...]:
        """Return every edit after a position, oldest first."""
        async with self._reading() as db:
            return await _entries(db, document, after, limit=limit)

    async def read_at(self, document: str, position: int) -> Stored:
        """Return the document as it was at a position."""
        async with self._reading() as db:
            row = await db.fetchrow(
                "select position, state, data from log_kept where document = $1 and position <= $2"
                " order by position desc limit 1",
                document,
                position,
            )
            snapshot = NOTHING
            if row is not None:
                snapshot = Snapshot(row["position"], row["state"], unpack_segments(row["data"]))
            return Stored(snapshot, await _entries(db, document, snapshot.position, upto=position))

    async def compact(self, document: str, snapshot: Snapshot, *, keep: bool = False) -> bool:
        """Take a verified snapshot; an older one than what is kept changes nothing."""
        async with self._failing(), self._pool.acquire() as db, db.transaction():
            await db.execute(
                "insert into log_documents (document) values ($1) on conflict do nothing", document
            )
            row = await db.fetchrow(
                "update log_documents set position = $2, generation = generation + 1, state = $3"
                " where document = $1 and position < $2 returning generation",
                document,
                snapshot.position,
                snapshot.state,
            )
            if row is None:
                return False
            await db.execute("delete from log_segments where document = $1", document)
            await db.executemany(
                "insert into log_segments values ($1, $2, $3, $4, $5)",
                [
                    (document, row["generation"], number, segment.update, segment.ends)
                    for number, segment in enumerate(snapshot.segments)
                ],
            )
            if keep:
                await db.execute(
                    "insert into log_kept values ($1, $2, $3, $4) on conflict do nothing",
                    document,
                    snapshot.position,
                    snapshot.state,
                    pack_segments(snapshot.segments),
                )
            return True

    async def forget(self, document: str) -> None:
        """Remove everything of a document."""
        async with self._failing(), self._pool.acquire() as db, db.transaction():
            for table in ("entries", "segments", "kept", "documents"):
                await db.execute(f"delete from log_{table} where document = $1", document)

    async def survey(self, prefix: str = "") -> list[Kept]:
        """List the documents whose name begins with `prefix`."""
        async with self._reading() as db:
            rows = await db.fetch(
                "select e.document, count(*), sum(length(data))::bigint,"
                " coalesce((select position from log_documents d where d.document = e.document), 0), max(e.position)"
                " from log_entries e where starts_with(e.document, $1) group by e.document order by e.document",
                prefix,
            )
        return [Kept(*row.values()) for row in rows]

    async def close(self) -> None:
        """End the writer; what had not been handed over fails."""
        self._task.cancel()
        if self._syncing is not None:
            self._syncing.cancel()
        tasks = [self._task] if self._syncing is None else [self._task, self._syncing]
        await asyncio.gather(*tasks, return_exceptions=True)

    @asynccontextmanager
    async def _failing(self) -> AsyncIterator[None]:
        try:
            yield
        except _FAILURES as error:
            raise _unavailable(error) from error

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Any]:
        async with (
            self._failing(),
            self._pool.acquire() as db,
            db.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield db


async def _entries(
    db: Any, document: str, after: int, *, upto: int = 2**62, limit: int | None = None
) -> tuple[Entry, ...]:
    rows = await db.fetch(
        "select position, data, author, at from log_entries where document = $1 and position > $2 and position <= $3"
        " order by position limit $4",
        document,
        after,
        upto,
        limit,
    )
    return tuple(Entry(row[0], Edit(row[1], row[2], row[3])) for row in rows)


def _unavailable(error: BaseException) -> Unavailable:
    return Unavailable(
        "log_unavailable",
        f"The document log did not take this just now ({type(error).__name__}).",
        next_step="Your edits are kept in the browser and sent again.",
    )
