"""The slow side of the SQLite log: reading, snapshots, packing of old edits, checkpoints; called from threads.

Tables: `entries` holds edits as they came; those that a snapshot covers are packed 1,024 at a time. A snapshot's parts
are written one transaction each under a new generation, so that the loop's writes wait for one part at most; a last
transaction makes that generation the document's. Every edit stays, in `entries` or in `packs`, until it is forgotten.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atelier.log.base import NOTHING, Edit, Entry, Kept, Segment, Snapshot, Stored
from atelier.log.packs import PACKED, pack, pack_segments, unpack, unpack_segments

_SCHEMA = """
create table documents (
  id integer primary key autoincrement,
  name text not null unique,
  position integer not null default 0,
  generation integer not null default 0,
  state blob not null default x'00'
);
create table entries (
  document integer not null, position integer not null, data blob not null, author text not null, at integer not null,
  primary key (document, position)
) without rowid;
create table packs (
  document integer not null, first integer not null, last integer not null, edits integer not null, data blob not null,
  primary key (document, last)
);
create table segments (
  document integer not null, generation integer not null, number integer not null, data blob not null,
  ends blob not null,
  primary key (document, generation, number)
);
create table kept (
  document integer not null, position integer not null, state blob not null, data blob not null,
  primary key (document, position)
);
create table positions (next integer not null);
pragma user_version = 2;
"""
_FROM_1 = """
begin immediate;
alter table entries rename to entries_1;
alter table snapshots rename to snapshots_1;
alter table history rename to history_1;
"""
_MOVE_1 = """
insert into documents (name) select distinct document from entries_1 union select document from history_1
  union select document from snapshots_1;
insert into entries select d.id, e.position, e.data, e.author, e.at from entries_1 e join documents d on d.name = e.document;
insert or ignore into entries select d.id, h.position, h.data, h.author, h.at from history_1 h
  join documents d on d.name = h.document;
insert into segments select d.id, 1, 0, s.data, x'' from snapshots_1 s join documents d on d.name = s.document;
update documents set generation = 1, state = x'',
  position = (select position from snapshots_1 s where s.document = name)
  where name in (select document from snapshots_1);
insert into positions select coalesce(max(seq), 0) + 1 from sqlite_sequence where name = 'entries_1';
drop table entries_1;
drop table history_1;
drop table snapshots_1;
commit;
"""


_FREE_PAGES = 512  # of 4 KiB; edits that come are written there
_PAGES_AT_ONCE = 64
_PAGES_AT_END = 65_536


def connect(path: Path, *, wait: float) -> sqlite3.Connection:
    """Open the file; `wait` seconds at most for another connection's lock."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=wait)
    # The first takes effect before anything is in the file, or never: room that packing frees can be given back then.
    for pragma in (
        "auto_vacuum=incremental",
        "journal_mode=wal",
        "synchronous=normal",
        "wal_autocheckpoint=0",
        "cache_size=-8000",
    ):
        connection.execute(f"pragma {pragma}").fetchall()
    return connection


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables, or bring those of an earlier Atelier up to date."""
    version = connection.execute("pragma user_version").fetchone()[0]
    if version == 0:
        connection.executescript(f"begin immediate;{_SCHEMA}insert into positions values (1);commit;")
    elif version == 1:
        connection.executescript(_FROM_1 + _SCHEMA + _MOVE_1)
    elif version != 2:
        raise RuntimeError(f"this log was written by a newer Atelier (schema {version}, this one knows 2)")
    else:
        # Writes the write-ahead log's first frame, so that its file is there to be synced.
        connection.execute("pragma user_version = 2")


class Archive:
    """Connections for everything that is not on the loop."""

    def __init__(self, path: Path) -> None:
        self._reader = connect(path, wait=5.0)
        self._reading = threading.Lock()
        self._keeper = connect(path, wait=5.0)
        self._keeping = threading.Lock()
        self.checkpointing = False

    def close(self) -> None:
        """Close the connections."""
        with self._reading, self._keeping:
            self._give_back(_PAGES_AT_END)
            self._reader.close()
            self._keeper.close()

    # --- reading ------------------------------------------------------------------------------------------------

    def read(self, document: str) -> Stored:
        """Return the newest snapshot and the tail, of one moment."""
        with self._reading:
            self._reader.execute("begin")
            try:
                found = self._reader.execute(
                    "select id, position, generation, state from documents where name = ?", (document,)
                ).fetchone()
                if found is None:
                    return Stored(NOTHING, ())
                number, position, generation, state = found
                segments = self._reader.execute(
                    "select data, ends from segments where document = ? and generation = ? order by number",
                    (number, generation),
                ).fetchall()
                snapshot = Snapshot(position, state, tuple(Segment(data, ends) for data, ends in segments))
                return Stored(snapshot, tuple(self._entries(number, position, -1)))
            finally:
                self._reader.execute("commit")

    def history(self, document: str, after: int, limit: int) -> tuple[Entry, ...]:
        """Return edits after a position, packed ones too."""
        with self._reading:
            self._reader.execute("begin")
            try:
                number = self._id(document)
                return () if number is None else tuple(self._history(number, after, None, limit))
            finally:
                self._reader.execute("commit")

    def read_at(self, document: str, position: int) -> Stored:
        """Return the nearest kept snapshot and the edits from there to a position."""
        with self._reading:
            self._reader.execute("begin")
            try:
                number = self._id(document)
                if number is None:
                    return Stored(NOTHING, ())
                found = self._reader.execute(
                    "select position, state, data from kept where document = ? and position <= ?"
                    " order by position desc limit 1",
                    (number, position),
                ).fetchone()
                snapshot = NOTHING
                if found is not None:
                    snapshot = Snapshot(found[0], found[1], unpack_segments(found[2]))
                return Stored(snapshot, tuple(self._history(number, snapshot.position, position, -1)))
            finally:
                self._reader.execute("commit")

    def survey(self, prefix: str) -> list[Kept]:
        """List documents with what they hold."""
        with self._reading:
            rows = self._reader.execute(
                "select name, (select count(*) from entries where document = id)"
                " + (select coalesce(sum(edits), 0) from packs where document = id),"
                " (select coalesce(sum(length(data)), 0) from entries where document = id)"
                " + (select coalesce(sum(length(data)), 0) from packs where document = id)"
                " + (select coalesce(sum(length(data)), 0) from segments s where s.document = id)"
                " + (select coalesce(sum(length(data)), 0) from kept k where k.document = id), position,"
                " max(position, coalesce((select max(position) from entries where document = id), 0))"
                " from documents where substr(name, 1, ?) = ? order by name",
                (len(prefix), prefix),
            ).fetchall()
        return [Kept(*row) for row in rows]

    def _id(self, document: str) -> int | None:
        found = self._reader.execute("select id from documents where name = ?", (document,)).fetchone()
        return None if found is None else int(found[0])

    def _entries(self, number: int, after: int, limit: int) -> list[Entry]:
        rows = self._reader.execute(
            "select position, data, author, at from entries where document = ? and position > ? order by position limit ?",
            (number, after, limit),
        )
        return [Entry(position, Edit(data, author, at)) for position, data, author, at in rows]

    def _history(self, number: int, after: int, upto: int | None, limit: int) -> list[Entry]:
        found: list[Entry] = []
        packs = self._reader.execute(
            "select data from packs where document = ? and last > ? and first <= ? order by last",
            (number, after, upto if upto is not None else 2**62),
        )
        for (data,) in packs:
            found += [entry for entry in unpack(data) if entry.position > after]
            if 0 <= limit <= len(found):
                break
        if limit < 0 or len(found) < limit:
            found += self._entries(number, found[-1].position if found else after, limit)
        if upto is not None:
            found = [entry for entry in found if entry.position <= upto]
        return found if limit < 0 else found[:limit]

    # --- keeping ------------------------------------------------------------------------------------------------

    def compact(self, document: str, snapshot: Snapshot, keep: Snapshot | None) -> bool:
        """Make a snapshot the document's, unless a newer one is; then pack what it covers.

        Every edit stays until the document is forgotten: where the snapshot's last one is missing, it has been.
        """
        with self._keeping:
            if not self._holds(document, snapshot.position):
                return False
            number, generation = self._write_segments(document, snapshot)
            with self._transaction():
                # One that is as new as what is there says nothing new.
                taken = self._adopt(number, generation, snapshot, newer=True)
                if taken and keep is not None:
                    kept = (number, keep.position, keep.state, pack_segments(keep.segments))
                    self._keeper.execute("insert or ignore into kept values (?, ?, ?, ?)", kept)
            if taken:
                self._pack(number, snapshot.position)
                self._give_back(_PAGES_AT_ONCE)
            return taken

    def _write_segments(self, document: str, snapshot: Snapshot) -> tuple[int, int]:
        """Write a snapshot's parts, one transaction each; returns the document's number and their generation."""
        number, generation = self._fresh_generation(document)
        for place, segment in enumerate(snapshot.segments):
            self._keeper.execute(
                "insert into segments values (?, ?, ?, ?, ?)",
                (number, generation, place, segment.update, segment.ends),
            )
        return number, generation

    def _adopt(self, number: int, generation: int, snapshot: Snapshot, *, newer: bool = False) -> bool:
        """Make a generation of parts the document's, unless there is a newer one; the other generations go."""
        least = snapshot.position - 1 if newer else snapshot.position
        taken = self._keeper.execute(
            "update documents set position = ?, generation = ?, state = ? where id = ? and position <= ?",
            (snapshot.position, generation, snapshot.state, number, least),
        ).rowcount
        self._keeper.execute(
            "delete from segments where document = ? and generation"
            " <> (select generation from documents where id = ?)",
            (number, number),
        )
        return bool(taken)

    def _give_back(self, most: int) -> None:
        """Make the file smaller by at most so many pages, when much of it is free."""
        free = self._keeper.execute("pragma freelist_count").fetchone()[0]
        if free > _FREE_PAGES:
            # A script, since each row that is asked for would free one page only.
            self._keeper.executescript(f"pragma incremental_vacuum({min(most, free - _FREE_PAGES // 2)})")

    def _holds(self, document: str, position: int) -> bool:
        found = self._keeper.execute(
            "select exists (select 1 from entries e where e.document = d.id and position = ?)"
            " or exists (select 1 from packs p where p.document = d.id and last >= ? and first <= ?)"
            " from documents d where name = ?",
            (position, position, position, document),
        ).fetchone()
        return found is not None and bool(found[0])

    def _fresh_generation(self, document: str) -> tuple[int, int]:
        self._keeper.execute("insert or ignore into documents (name) values (?)", (document,))
        found = self._keeper.execute(
            "select id, max(generation, coalesce((select max(generation) from segments where document = id), 0)) + 1"
            " from documents where name = ?",
            (document,),
        ).fetchone()
        return int(found[0]), int(found[1])

    def _pack(self, number: int, upto: int) -> None:
        while True:
            rows = self._keeper.execute(
                "select position, data, author, at from entries where document = ? and position <= ?"
                " order by position limit ?",
                (number, upto, PACKED),
            ).fetchall()
            if len(rows) < PACKED:
                return
            entries = [Entry(position, Edit(data, author, at)) for position, data, author, at in rows]
            with self._transaction():
                self._insert_pack(number, entries)
                self._keeper.execute(
                    "delete from entries where document = ? and position <= ?", (number, entries[-1].position)
                )

    def _insert_pack(self, number: int, entries: list[Entry]) -> None:
        row = (number, entries[0].position, entries[-1].position, len(entries), pack(entries))
        self._keeper.execute("insert into packs values (?, ?, ?, ?, ?)", row)

    def condense(self, document: str, entry: Entry, snapshot: Snapshot) -> bool:
        """Put one entry in the place of every edit up to its position; see the port."""
        with self._keeping:
            if not (self._holds(document, entry.position) and self._holds(document, snapshot.position)):
                return False
            number, generation = self._write_segments(document, snapshot)
            with self._transaction():
                packs = self._keeper.execute(
                    "delete from packs where document = ? and first <= ? returning data",
                    (number, entry.position),
                ).fetchall()
                rest = [e for (data,) in packs for e in unpack(data) if e.position > entry.position]
                self._insert_pack(number, [entry])
                if rest:
                    self._insert_pack(number, sorted(rest, key=lambda e: e.position))
                for table in ("entries", "kept"):
                    upto = entry.position if table == "entries" else 2**62
                    self._keeper.execute(
                        f"delete from {table} where document = ? and position <= ?", (number, upto)
                    )
                self._adopt(number, generation, snapshot)
            self._give_back(_PAGES_AT_ONCE)
            return True

    def disown(self, author: str) -> int:
        """Take a person's name off every edit, a pack at a time."""
        with self._keeping:
            with self._transaction():
                done = self._keeper.execute(
                    "update entries set author = '' where author = ?", (author,)
                ).rowcount
            for number, last in self._keeper.execute("select document, last from packs").fetchall():
                with self._transaction():
                    data = self._keeper.execute(
                        "select data from packs where document = ? and last = ?", (number, last)
                    ).fetchone()
                    entries = [] if data is None else unpack(data[0])
                    own = sum(entry.edit.author == author for entry in entries)
                    if own:
                        again = [
                            e._replace(edit=e.edit._replace(author="")) if e.edit.author == author else e
                            for e in entries
                        ]
                        self._keeper.execute(
                            "update packs set data = ? where document = ? and last = ?",
                            (pack(again), number, last),
                        )
                        done += own
            return done

    def forget(self, document: str) -> None:
        """Remove a document from every table."""
        with self._keeping, self._transaction():
            found = self._keeper.execute("select id from documents where name = ?", (document,)).fetchone()
            if found is not None:
                for table in ("entries", "packs", "segments", "kept"):
                    self._keeper.execute(f"delete from {table} where document = ?", found)
                self._keeper.execute("delete from documents where id = ?", found)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._keeper.execute("begin immediate")
        try:
            yield
            self._keeper.execute("commit")
        except BaseException:
            if self._keeper.in_transaction:
                self._keeper.execute("rollback")
            raise

    def checkpoint(self, size: int) -> None:
        """Move the write-ahead log into the file; when it has grown very long, make writers wait for it."""
        kind = "restart" if size > 64 * 1024 * 1024 else "passive"
        try:
            with self._keeping:
                self._keeper.execute(f"pragma wal_checkpoint({kind})").fetchall()
        finally:
            self.checkpointing = False
