"""What PostgreSQL keeps of documents: every edit, the newest snapshot, the snapshots that stay for history.

Two logs stand on it: the one that appends here directly, and the one in Redis, whose edits come with each snapshot.
Entries stay where they are, also once a snapshot covers them: history reads them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from atelier.errors import Unavailable
from atelier.log.base import NOTHING, Edit, Entry, Kept, Segment, Snapshot, Stored
from atelier.log.packs import pack_segments, unpack_segments

FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
_SCHEMA = """
create sequence if not exists log_positions;
create table if not exists log_entries (
  position bigint not null default nextval('log_positions'),
  document text not null, data bytea not null, author text not null, at bigint not null,
  primary key (document, position)
);
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
  if to_regclass('log_entries_document') is not null then
    alter table log_entries alter position drop identity if exists;
    alter table log_entries drop constraint log_entries_pkey;
    alter table log_entries add primary key (document, position);
    alter table log_entries alter position set default nextval('log_positions');
    drop index log_entries_document;
    perform setval('log_positions', coalesce((select max(position) from log_entries), 0) + 1, false);
  end if;
end $$;
"""


class PostgresArchive:
    """The reading half of the port `Log`, and the keeping of snapshots.

    Each call raises `Unavailable` (`log_unavailable`) when PostgreSQL does not answer.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def prepare(self) -> None:
        """Make the tables, or bring those of an earlier Atelier up to date; processes that start at once take turns."""
        async with self._pool.acquire() as db, db.transaction():
            await db.execute("select pg_advisory_xact_lock(715517)")
            await db.execute(_SCHEMA)

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

    async def last(self, document: str) -> int:
        """Return the highest position here; 0 when there is none."""
        async with self._reading() as db:
            return int(
                await db.fetchval(
                    "select coalesce(max(position), 0) from log_entries where document = $1", document
                )
            )

    async def covered(self, document: str) -> int:
        """Return the position of the newest snapshot; 0 when there is none."""
        async with self._reading() as db:
            query = "select position from log_documents where document = $1"
            return int(await db.fetchval(query, document) or 0)

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

    async def compact(
        self,
        document: str,
        snapshot: Snapshot,
        *,
        keep: Snapshot | None = None,
        tail: Callable[[], Awaitable[Sequence[Entry]]] | None = None,
    ) -> bool:
        """Take a verified snapshot; an older one than what is kept, or one of a forgotten document, changes nothing.

        `tail` is asked, while nobody else compacts or forgets the document, for the edits that are not here yet.
        """
        async with self._failing(), self._pool.acquire() as db:
            transaction = db.transaction()
            await transaction.start()
            try:
                taken = await _take(db, document, snapshot, keep, tail)
            except BaseException:
                await transaction.rollback()
                raise
            await (transaction.commit() if taken else transaction.rollback())
            return taken

    async def condense(self, document: str, entry: Entry, snapshot: Snapshot) -> bool:
        """Put one entry in the place of every edit up to its position; see the port."""
        async with self._failing(), self._pool.acquire() as db, db.transaction():
            await _lock(db, document)
            for position in (entry.position, snapshot.position):
                if not await _holds(db, document, position):
                    return False
            await db.execute(
                "delete from log_entries where document = $1 and position <= $2", document, entry.position
            )
            edit = entry.edit
            await db.execute(
                "insert into log_entries (position, document, data, author, at) values ($1, $2, $3, $4, $5)",
                entry.position, document, edit.update, edit.author, edit.at,
            )  # fmt: skip
            await db.execute("delete from log_kept where document = $1", document)
            await _adopt(db, document, snapshot, least=snapshot.position)
            return True

    async def disown(self, author: str) -> int:
        """Take a person's name off every edit."""
        async with self._failing(), self._pool.acquire() as db:
            done = await db.execute("update log_entries set author = '' where author = $1", author)
            return int(done.split()[-1])

    async def forget(self, document: str, first: Callable[[], Awaitable[object]] | None = None) -> None:
        """Remove everything of a document, after `first`, while nobody compacts it."""
        async with self._failing(), self._pool.acquire() as db, db.transaction():
            await _lock(db, document)
            if first is not None:
                await first()
            for table in ("entries", "segments", "kept", "documents"):
                await db.execute(f"delete from log_{table} where document = $1", document)

    @asynccontextmanager
    async def _failing(self) -> AsyncIterator[None]:
        try:
            yield
        except FAILURES as error:
            raise unavailable(error) from error

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Any]:
        async with (
            self._failing(),
            self._pool.acquire() as db,
            db.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield db


async def _lock(db: Any, document: str) -> None:
    await db.execute("select pg_advisory_xact_lock(715518, hashtext($1))", document)


async def _take(
    db: Any,
    document: str,
    snapshot: Snapshot,
    keep: Snapshot | None,
    tail: Callable[[], Awaitable[Sequence[Entry]]] | None,
) -> bool:
    await _lock(db, document)
    if tail is not None:
        await db.executemany(
            "insert into log_entries (position, document, data, author, at) values ($1, $2, $3, $4, $5)"
            " on conflict do nothing",
            [(e.position, document, e.edit.update, e.edit.author, e.edit.at) for e in await tail()],
        )
    # Every edit stays until the document is forgotten: where the snapshot's last one is missing, it has been.
    if not await _holds(db, document, snapshot.position):
        return False
    # One that is as new as what is there says nothing new.
    if not await _adopt(db, document, snapshot, least=snapshot.position - 1):
        return False
    if keep is not None:
        await db.execute(
            "insert into log_kept values ($1, $2, $3, $4) on conflict do nothing",
            document,
            keep.position,
            keep.state,
            pack_segments(keep.segments),
        )
    return True


async def _holds(db: Any, document: str, position: int) -> bool:
    found = await db.fetchval(
        "select 1 from log_entries where document = $1 and position = $2", document, position
    )
    return found is not None


async def _adopt(db: Any, document: str, snapshot: Snapshot, *, least: int) -> bool:
    """Make a snapshot the document's when the one that is there is of position `least` or older."""
    await db.execute("insert into log_documents (document) values ($1) on conflict do nothing", document)
    row = await db.fetchrow(
        "update log_documents set position = $2, generation = generation + 1, state = $3"
        " where document = $1 and position <= $4 returning generation",
        document,
        snapshot.position,
        snapshot.state,
        least,
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
    return True


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


def unavailable(error: BaseException) -> Unavailable:
    """Say that the storage does not answer."""
    return Unavailable(
        "log_unavailable",
        f"The document log did not take this just now ({type(error).__name__}).",
        next_step="Your edits are kept in the browser and sent again.",
    )
