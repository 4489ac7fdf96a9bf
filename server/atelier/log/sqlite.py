"""The log in one SQLite file: appends in groups, syncs in groups.

Theory of operation. One thread owns the writing connection. It takes every append that is waiting and commits them
as one transaction with synchronous=NORMAL: the bytes are then in the write-ahead log's file, handed to the operating
system, and survive a kill of this process. Back on the event loop the listeners hear of the entries, then the
appends return. A sync is an fsync of the write-ahead log, shared by everyone who waits for one; what was committed
before it began is then on the disk. If an fsync ever fails, the kernel may have dropped the pages, so the log says
`log_unavailable` from then on until the server is started again: it never guesses.

Compaction moves the covered entries to `history`, so who wrote what and when is kept.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import structlog

from atelier.db.engine import hold_lock
from atelier.errors import Unavailable
from atelier.log.base import Edit, Entry, Listener, Stored
from atelier.log.followers import Followers

logger = structlog.get_logger(__name__)
_MOST_JOBS = 512  # appends in one transaction: bounds how long the first of them waits
_SCHEMA = """
create table entries (
  position integer primary key autoincrement,
  document text not null,
  data blob not null,
  author text not null,
  at integer not null
);
create index entries_document on entries (document, position);
create table history (
  position integer primary key,
  document text not null,
  data blob not null,
  author text not null,
  at integer not null
);
create index history_document on history (document, position);
create table snapshots (document text primary key, position integer not null, data blob not null) without rowid;
pragma user_version = 1;
"""


@dataclass(slots=True)
class _Append:
    document: str
    edits: Sequence[Edit]
    done: asyncio.Future[list[int]]
    positions: list[int]


@dataclass(slots=True)
class _Compact:
    document: str
    upto: int
    snapshot: bytes
    done: asyncio.Future[None]


class SqliteLog:
    """See the module. Made by `open_log`; `close` ends the thread."""

    def __init__(self, path: Path) -> None:
        self._lock = hold_lock(path)
        self._loop = asyncio.get_running_loop()
        self._followers = Followers()
        self._jobs: SimpleQueue[_Append | _Compact | None] = SimpleQueue()
        self._syncing: asyncio.Task[None] | None = None
        self._broken = False
        self._writer = self._connect(path)
        self._prepare(self._writer)
        self._reader = self._connect(path)
        self._reading = threading.Lock()
        # The write-ahead log exists since the connection wrote to it; its own descriptor is for fsync alone.
        self._wal = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        os.fsync(self._wal)
        _sync_folder(path.parent)
        # What is read here has just been synced, also what an earlier process committed and was killed before syncing.
        self._committed = self._synced = self._last_position()
        self._thread = threading.Thread(target=self._write, name="log-writer", daemon=True)
        self._thread.start()

    async def append(self, document: str, edits: Sequence[Edit]) -> list[int]:
        """Append in order; returns the positions once the edits survive a kill."""
        if not edits:
            return []
        self._refuse_if_broken()
        done: asyncio.Future[list[int]] = self._loop.create_future()
        self._jobs.put(_Append(document, edits, done, []))
        return await done

    async def sync(self, document: str, position: int) -> None:
        """Return once everything up to `position` survives a power cut."""
        while self._synced < position:
            self._refuse_if_broken()
            if self._syncing is None:
                self._syncing = asyncio.create_task(self._sync_once(), name="log-sync")
            await asyncio.shield(self._syncing)

    async def _sync_once(self) -> None:
        target = self._committed
        try:
            await asyncio.to_thread(os.fsync, self._wal)
            self._synced = max(self._synced, target)
        except OSError as error:
            self._broken = True
            raise _unavailable(error) from error
        finally:
            self._syncing = None

    async def read(self, document: str, after: int = 0) -> Stored:
        """Return the snapshot, if it is newer than `after`, and the tail."""
        try:
            return await asyncio.to_thread(self._read, document, after)
        except sqlite3.Error as error:
            raise _unavailable(error) from error

    def _read(self, document: str, after: int) -> Stored:
        with self._reading:
            self._reader.execute("begin")
            try:
                row = self._reader.execute(
                    "select position, data from snapshots where document = ?", (document,)
                ).fetchone()
                covered, snapshot = (row[0], row[1]) if row is not None and row[0] > after else (0, None)
                rows = self._reader.execute(
                    "select position, data, author, at from entries where document = ? and position > ? order by position",
                    (document, max(after, covered)),
                ).fetchall()
            finally:
                self._reader.execute("commit")
        tail = tuple(Entry(position, Edit(data, author, at)) for position, data, author, at in rows)
        return Stored(snapshot, covered, tail)

    def follow(self, document: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` for what is appended from now on."""
        return self._followers.add(document, listener)

    async def compact(self, document: str, upto: int, snapshot: bytes) -> None:
        """Keep the snapshot for everything up to `upto`; an older one than what is kept changes nothing."""
        self._refuse_if_broken()
        done: asyncio.Future[None] = self._loop.create_future()
        self._jobs.put(_Compact(document, upto, snapshot, done))
        await done

    def close(self) -> None:
        """Finish what was handed over, sync, and let go of the file."""
        self._jobs.put(None)
        self._thread.join()
        os.close(self._wal)
        self._reader.close()
        self._writer.close()
        os.close(self._lock)

    # --- the writer's thread ------------------------------------------------------------------------------------

    def _write(self) -> None:
        last = False
        while not last:
            batch: list[_Append] = []
            job = self._jobs.get()
            while isinstance(job, _Append):
                batch.append(job)
                if len(batch) >= _MOST_JOBS or self._jobs.empty():
                    job = None
                    break
                job = self._jobs.get()
                last = job is None
            else:
                last = job is None
            if batch:
                self._commit_appends(batch)
            if isinstance(job, _Compact):
                self._commit_compaction(job)

    def _commit_appends(self, batch: list[_Append]) -> None:
        writer = self._writer
        try:
            writer.execute("begin immediate")
            for job in batch:
                for edit in job.edits:
                    cursor = writer.execute(
                        "insert into entries (document, data, author, at) values (?, ?, ?, ?)",
                        (job.document, edit.update, edit.author, edit.at),
                    )
                    assert cursor.lastrowid is not None
                    job.positions.append(cursor.lastrowid)
            writer.execute("commit")
        except sqlite3.Error as error:
            self._roll_back()
            self._on_loop(self._refuse, batch, error)
        else:
            self._on_loop(self._appended, batch)

    def _commit_compaction(self, job: _Compact) -> None:
        writer = self._writer
        try:
            writer.execute("begin immediate")
            changed = writer.execute(
                "insert into snapshots (document, position, data) values (?, ?, ?) on conflict (document) do update"
                " set position = excluded.position, data = excluded.data where excluded.position > snapshots.position",
                (job.document, job.upto, job.snapshot),
            ).rowcount
            if changed:
                covered = (job.document, job.upto)
                writer.execute(
                    "insert or ignore into history select * from entries where document = ? and position <= ?",
                    covered,
                )
                writer.execute("delete from entries where document = ? and position <= ?", covered)
            writer.execute("commit")
        except sqlite3.Error as error:
            self._roll_back()
            self._on_loop(_fail, job.done, _unavailable(error))
        else:
            self._on_loop(_finish, job.done)

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("rollback")

    def _on_loop(self, call: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *arguments)

    # --- back on the loop ---------------------------------------------------------------------------------------

    def _appended(self, batch: list[_Append]) -> None:
        for job in batch:
            self._committed = job.positions[-1]
            entries = [Entry(position, edit) for position, edit in zip(job.positions, job.edits, strict=True)]
            self._followers.tell(job.document, entries)
            if not job.done.done():
                job.done.set_result(job.positions)

    def _refuse(self, batch: list[_Append], error: sqlite3.Error) -> None:
        logger.error("the log took nothing", error=str(error), appends=len(batch))
        for job in batch:
            _fail(job.done, _unavailable(error))

    def _refuse_if_broken(self) -> None:
        if self._broken:
            raise _unavailable(OSError("an earlier sync failed"))

    def _last_position(self) -> int:
        row = self._writer.execute("select seq from sqlite_sequence where name = 'entries'").fetchone()
        return int(row[0]) if row else 0

    @staticmethod
    def _connect(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=2.0)
        for pragma in (
            "journal_mode=wal",
            "synchronous=normal",
            "wal_autocheckpoint=2000",
            "cache_size=-8000",
        ):
            connection.execute(f"pragma {pragma}").fetchall()
        return connection

    @staticmethod
    def _prepare(connection: sqlite3.Connection) -> None:
        version = connection.execute("pragma user_version").fetchone()[0]
        if version == 0:
            connection.executescript(f"begin immediate;{_SCHEMA}commit;")
        elif version != 1:
            raise RuntimeError(
                f"this log was written by a newer Atelier (schema {version}, this one knows 1)"
            )
        else:
            # Writes the write-ahead log's first frame, so that its file is there to be synced.
            connection.execute("pragma user_version = 1")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _fail(done: asyncio.Future[list[int]] | asyncio.Future[None], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable(
        "log_unavailable",
        f"The document log did not take this just now ({error}).",
        next_step="Your edits are kept in the browser and sent again. If it stays: free disk space on the server.",
    )
