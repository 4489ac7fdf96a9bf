"""The log in one SQLite file: what one turn of the event loop hands over is one transaction, written on the loop.

Theory of operation. A commit with synchronous=NORMAL only writes to the write-ahead log's file: the bytes are with the
operating system and survive a kill of this process. That takes some 20 µs, less than a trip to a thread, so the loop
does it itself: then listeners hear of the entries. A sync of the write-ahead log is done by a thread of its own (`wal.py`), at
most one every few milliseconds, shared by everyone who waits. If one ever fails, the kernel may have dropped
the pages, so the log says `log_unavailable` until the server is started again: it never guesses.

Everything slow (compaction, checkpoints, reading) runs in threads with connections of their own, in `archive.py`. When
one of them holds the file's lock, the loop does not wait: what was handed over stays in line and is tried again.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

import structlog

from atelier.db.engine import hold_lock
from atelier.errors import Unavailable
from atelier.log.archive import Archive, connect, prepare
from atelier.log.base import Edit, Entry, Kept, Listener, Settled, Snapshot, Stored
from atelier.log.followers import Followers, settle
from atelier.log.wal import CHECKPOINT_BYTES, Wal

P = ParamSpec("P")
T = TypeVar("T")
logger = structlog.get_logger(__name__)
_SYNC_GAP = 0.012  # seconds between the beginnings of two syncs
_BUSY_RETRY = 0.001
_BUSY_LONGEST = 2.0
_RESERVED = 1_000_000
_INSERT = "insert into entries (document, position, data, author, at) values (?, ?, ?, ?, ?)"


@dataclass(slots=True)
class _Group:
    """Edits of one `append`, and who waits for their positions."""

    done: asyncio.Future[list[int]]
    left: int
    positions: list[int] = field(default_factory=list)


_Job = tuple[str, Edit, Settled | None, _Group | None]


class SqliteLog:
    """See the module. Made by `open_log`."""

    def __init__(self, path: Path) -> None:
        self._lock = hold_lock(path)
        self._loop = asyncio.get_running_loop()
        self._followers = Followers()
        self._writer = connect(path, wait=0.0)
        prepare(self._writer)
        self._ids: dict[str, int] = {}
        self._archive = Archive(path)
        self._wal = Wal(path, self._loop)
        self._next = self._end = self._reserved()
        self._jobs: list[_Job] = []
        self._scheduled: asyncio.Handle | None = None
        self._busy_since: float | None = None
        self._written: list[tuple[Settled, Edit]] = []
        self._committed = self._synced = self._next - 1
        self._syncing = False
        self._sync_began = 0.0
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._broken: OSError | None = None
        self._checkpoints = ThreadPoolExecutor(1, "log-checkpoint")

    # --- writing ------------------------------------------------------------------------------------------------

    def submit(self, document: str, edit: Edit, settled: Settled) -> None:
        """Hand an edit over; see the port."""
        self._take((document, edit, settled, None))

    async def append(self, document: str, edits: Sequence[Edit]) -> list[int]:
        """Append in order; returns the positions once the edits survive a kill."""
        if not edits:
            return []
        if self._broken is not None:
            raise _unavailable(self._broken)
        group = _Group(self._loop.create_future(), len(edits))
        for edit in edits:
            self._take((document, edit, None, group))
        return await group.done

    def _take(self, job: _Job) -> None:
        self._jobs.append(job)
        if self._scheduled is None:
            self._scheduled = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = None
        jobs, self._jobs = self._jobs, []
        if not jobs:
            return
        if self._broken is not None:
            self._refuse(jobs, self._broken)
            return
        try:
            first = self._commit(jobs)
        except sqlite3.Error as error:
            self._not_committed(jobs, error)
            return
        self._busy_since = None
        self._committed = self._next - 1
        self._tell(jobs, first)
        self._sync_soon()

    def _commit(self, jobs: list[_Job]) -> int:
        writer, ids, first = self._writer, self._ids, self._next
        rows: list[tuple[int, int, bytes, str, int]] = []
        writer.execute("begin immediate")
        try:
            position = first
            if position + len(jobs) > self._end:
                self._reserve(position + len(jobs))
            for document, edit, _, _ in jobs:
                number = ids.get(document)
                if number is None:
                    number = self._number(document)
                rows.append((number, position, edit.update, edit.author, edit.at))
                position += 1
            writer.executemany(_INSERT, rows)
            writer.execute("commit")
        except sqlite3.Error:
            if writer.in_transaction:
                writer.execute("rollback")
            self._ids.clear()  # some may have been made in what was rolled back
            self._end = self._next
            raise
        self._next = position
        return first

    def _number(self, document: str) -> int:
        found = self._writer.execute("select id from documents where name = ?", (document,)).fetchone()
        if found is None:
            found = self._writer.execute(
                "insert into documents (name) values (?) returning id", (document,)
            ).fetchone()
        if len(self._ids) > 100_000:
            self._ids.clear()
        self._ids[document] = int(found[0])
        return self._ids[document]

    def _not_committed(self, jobs: list[_Job], error: sqlite3.Error) -> None:
        now = self._loop.time()
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            self._busy_since = self._busy_since or now
            if now - self._busy_since < _BUSY_LONGEST:
                self._jobs = jobs + self._jobs
                if self._scheduled is not None:
                    self._scheduled.cancel()
                self._scheduled = self._loop.call_later(_BUSY_RETRY, self._flush)
                return
        self._busy_since = None
        self._refuse(jobs, error)

    def _tell(self, jobs: list[_Job], position: int) -> None:
        told: dict[str, list[Entry]] = {}
        for document, edit, settled, group in jobs:
            entries = told.get(document)
            if entries is None:
                entries = told[document] = []
            entries.append(Entry(position, edit))
            if settled is not None:
                self._written.append((settled, edit))
            elif group is not None:
                group.positions.append(position)
                group.left -= 1
                if group.left == 0 and not group.done.done():
                    group.done.set_result(group.positions)
            position += 1
        for document, entries in told.items():
            self._followers.tell(document, entries)

    def _refuse(self, jobs: list[_Job], error: Exception) -> None:
        logger.error("the log took nothing", error=str(error), edits=len(jobs))
        settle([(job[2], job[1]) for job in jobs if job[2] is not None], _unavailable(error))
        for *_, group in jobs:
            if group is not None and not group.done.done():
                group.done.set_exception(_unavailable(error))

    # --- syncing ------------------------------------------------------------------------------------------------

    async def sync(self, document: str, position: int) -> None:
        """Return once everything up to `position` survives a power cut."""
        if self._synced >= position:
            return
        if self._broken is not None:
            raise _unavailable(self._broken)
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append((position, waiter))
        self._sync_soon()
        await waiter

    def _sync_soon(self) -> None:
        if self._syncing or not (self._written or self._waiters):
            return
        self._syncing = True
        wait = self._sync_began + _SYNC_GAP - self._loop.time()
        if wait > 0:
            self._loop.call_later(wait, self._sync)
        else:
            self._sync()

    def _sync(self) -> None:
        self._sync_began = self._loop.time()
        written, self._written = self._written, []
        upto = self._committed

        def done(failure: OSError | None) -> None:
            self._after_sync(written, upto, failure)

        self._wal.sync(done)

    def _after_sync(self, written: list[tuple[Settled, Edit]], upto: int, error: OSError | None) -> None:
        self._syncing = False
        if error is not None:
            self._broken = error
            logger.critical("the log cannot be synced; nothing more is taken", error=str(error))
        else:
            self._synced = max(self._synced, upto)
        failure = None if self._broken is None else _unavailable(self._broken)
        settle(written, failure)
        waiters, self._waiters = self._waiters, []
        for position, waiter in waiters:
            if waiter.done():
                continue
            if failure is not None:
                waiter.set_exception(failure)
            elif position <= self._synced:
                waiter.set_result(None)
            else:
                self._waiters.append((position, waiter))
        if self._broken is None:
            self._sync_soon()
            if not self._archive.checkpointing and (size := self._wal.used()) > CHECKPOINT_BYTES:
                self._archive.checkpointing = True
                self._checkpoints.submit(self._archive.checkpoint, size)

    # --- reading and keeping ------------------------------------------------------------------------------------

    def follow(self, document: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` for what is appended from now on."""
        return self._followers.add(document, listener)

    async def read(self, document: str) -> Stored:
        """Return the newest snapshot and what came after it."""
        return await self._apart(self._archive.read, document)

    async def history(self, document: str, after: int = 0, limit: int = 5_000) -> tuple[Entry, ...]:
        """Return every edit after a position, oldest first."""
        return await self._apart(self._archive.history, document, after, limit)

    async def read_at(self, document: str, position: int) -> Stored:
        """Return the document as it was at a position."""
        return await self._apart(self._archive.read_at, document, position)

    async def compact(self, document: str, snapshot: Snapshot, *, keep: Snapshot | None = None) -> bool:
        """Take a verified snapshot; an older one than what is kept changes nothing."""
        return await self._apart(self._archive.compact, document, snapshot, keep)

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
        return await self._apart(self._archive.condense, document, entry, snapshot)

    async def disown(self, author: str) -> int:
        """Take a person's name off every edit."""
        return await self._apart(self._archive.disown, author)

    async def forget(self, document: str) -> None:
        """Remove everything of a document."""
        await self._apart(self._archive.forget, document)
        self._ids.pop(document, None)

    async def survey(self, prefix: str = "") -> list[Kept]:
        """List the documents whose name begins with `prefix`."""
        return await self._apart(self._archive.survey, prefix)

    async def _apart(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(call, *args, **kwargs)
        except sqlite3.Error as error:
            raise _unavailable(error) from error

    def close(self) -> None:
        """Write what was handed over, sync, and let go of the file."""
        deadline = self._loop.time() + _BUSY_LONGEST
        while self._jobs and self._loop.time() < deadline:
            self._flush()
        if self._scheduled is not None:
            self._scheduled.cancel()
        self._checkpoints.shutdown(wait=True)
        self._wal.end()
        written, self._written = self._written, []
        if written and self._broken is None:
            self._wal.sync_now()
            settle(written, None)
        self._archive.close()
        self._writer.close()
        self._wal.close()
        os.close(self._lock)

    # --- positions ----------------------------------------------------------------------------------------------

    def _reserved(self) -> int:
        return int(self._writer.execute("select next from positions").fetchone()[0])

    def _reserve(self, least: int) -> None:
        # Positions are never used again, also not after a kill: they are set aside by the million.
        self._end = least + _RESERVED
        self._writer.execute("update positions set next = ?", (self._end,))


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable(
        "log_unavailable",
        f"The document log did not take this just now ({error}).",
        next_step="Your edits are kept in the browser and sent again. If it stays: free disk space on the server.",
    )
