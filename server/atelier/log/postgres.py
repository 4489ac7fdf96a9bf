"""The log in PostgreSQL, for one server process: one writer task, appends in groups, syncs in groups.

Appends commit with synchronous_commit=off: the server has them, so they survive a kill of this process. A sync is one
small transaction with synchronous_commit=on, which flushes the write-ahead log up to itself and so everything before.
Followers hear what this process appends; so a second process is refused, as it is with a SQLite file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext

import asyncpg
import structlog

from atelier.log.base import Edit, Entry, Kept, Listener, Settled, Snapshot, Stored
from atelier.log.followers import Followers, settle
from atelier.log.postgres_archive import FAILURES, PostgresArchive, unavailable

logger = structlog.get_logger(__name__)
_MOST_JOBS = 2_048
_LOCK_SECONDS = 10.0  # a killed process's connection takes a moment to end
_Job = tuple[str, Edit, Settled | None, "asyncio.Future[list[int]] | None", list[int]]


class PostgresLog:
    """See the module. Made by `open_log`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._archive = PostgresArchive(pool)
        self._followers = Followers()
        self._jobs: list[_Job] = []
        self._ready = asyncio.Event()
        self._committed = 0
        self._synced = 0
        self._syncing: asyncio.Task[None] | None = None
        self._written: list[tuple[Settled, Edit]] = []
        self._task = asyncio.create_task(self._write(), name="log-writer")

    @staticmethod
    async def hold(db: asyncpg.Connection) -> None:
        """Make this the only process that appends, for as long as the connection lives.

        Raises:
            RuntimeError: another server has the log open.
        """
        for _ in range(int(_LOCK_SECONDS * 10)):
            if await db.fetchval("select pg_try_advisory_lock(715516)"):
                return
            await asyncio.sleep(0.1)
        raise RuntimeError(
            "this log is already open in another server; for several servers, put the log in Redis (redis://…)"
        )

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
                # `unnest … with ordinality` keeps the order, so positions grow in it.
                found = await db.fetch(
                    "insert into log_entries (document, data, author, at) select document, data, author, at from"
                    " unnest($1::text[], $2::bytea[], $3::text[], $4::bigint[]) with ordinality"
                    " as given(document, data, author, at, n) order by n returning position",
                    *(list(column) for column in zip(*rows, strict=True)),
                )
        except FAILURES as error:
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
        settle([(job[2], job[1]) for job in batch if job[2] is not None], unavailable(error))
        for *_, done, _ in batch:
            if done is not None and not done.done():
                done.set_exception(unavailable(error))

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
                except FAILURES as error:
                    settle(written, unavailable(error))
                    raise unavailable(error) from error
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
        return await self._archive.read(document)

    async def history(self, document: str, after: int = 0, limit: int = 5_000) -> tuple[Entry, ...]:
        """Return every edit after a position, oldest first."""
        return await self._archive.history(document, after, limit)

    async def read_at(self, document: str, position: int) -> Stored:
        """Return the document as it was at a position."""
        return await self._archive.read_at(document, position)

    async def compact(self, document: str, snapshot: Snapshot, *, keep: Snapshot | None = None) -> bool:
        """Take a verified snapshot; an older one than what is kept changes nothing."""
        return await self._archive.compact(document, snapshot, keep=keep)

    def claim(self, document: str) -> AbstractAsyncContextManager[bool]:
        """Nobody else compacts: this is the only process."""
        return nullcontext(True)

    async def due(self, age: float) -> list[str]:
        """Nothing has to be compacted: edits may lie where they are."""
        return []

    async def put_off(self, document: str) -> None:
        """Nothing waits."""

    async def condense(self, document: str, entry: Entry, snapshot: Snapshot) -> bool:
        """Put one entry in the place of every edit up to its position."""
        return await self._archive.condense(document, entry, snapshot)

    async def disown(self, author: str) -> int:
        """Take a person's name off every edit."""
        return await self._archive.disown(author)

    async def forget(self, document: str) -> None:
        """Remove everything of a document."""
        await self._archive.forget(document)

    async def survey(self, prefix: str = "") -> list[Kept]:
        """List the documents whose name begins with `prefix`."""
        return await self._archive.survey(prefix)

    async def close(self) -> None:
        """End the writer; what had not been handed over fails."""
        self._task.cancel()
        if self._syncing is not None:
            self._syncing.cancel()
        tasks = [self._task] if self._syncing is None else [self._task, self._syncing]
        await asyncio.gather(*tasks, return_exceptions=True)
