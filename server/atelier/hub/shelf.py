"""A document as a room keeps it for newcomers: the parts of its snapshot and its tail, as bytes, never decoded.

A fresh client gets the parts as they are; a returning one gets the difference, made only of parts that hold something
it lacks. Made in a thread when somebody joins, kept up to date while the room relays, thrown away when nobody has
joined for a while.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence

import structlog

from atelier.documents import (
    EMPTY_STATE,
    EMPTY_UPDATE,
    PART_BYTES,
    State,
    decodes,
    difference,
    fold,
    ranges,
    split,
    state_of,
    waits,
)
from atelier.hub.deletions import Ranges, covers, join
from atelier.log import Edit, Entry, Stored

_SMALL = 64 * 1024  # bytes
logger = structlog.get_logger(__name__)


class Shelf:
    """See the module."""

    def __init__(self, stored: Stored) -> None:
        snapshot = stored.snapshot
        self._segments = snapshot.segments
        self._tail: list[bytes] = []
        self._folded: list[bytes] | None = []
        self._whole: bytes | None = None
        self._fresh: list[Entry] = []
        self.position = stored.position
        self.used = time.monotonic()
        if snapshot.state and waits(snapshot):
            # All of it is one tail, so that what waits and what it waits for come in one update.
            self._state = State()
            self._segments = ()
            self._fresh = [Entry(0, Edit(segment.update, "", 0)) for segment in snapshot.segments]
        elif snapshot.state:
            self._state = State(snapshot.state)
        else:  # written by an earlier Atelier
            self._state = State(state_of(fold([segment.update for segment in self._segments])))
        self._deleted: Ranges = {}
        for segment in self._segments:
            if not segment.ends:
                update = segment.update
                # Its deletions alone are the difference to its own state.
                self._delete(update if update[:1] == b"\x00" else difference(update, state_of(update)))
        self.add(stored.tail)
        self._read_fresh()
        self._tail_parts()  # here and not when it is asked for: this is a thread

    def add(self, entries: Sequence[Entry]) -> None:
        """Take in what the log has taken."""
        if entries:
            self._fresh += entries
            self.position = entries[-1].position

    @property
    def size(self) -> int:
        """Return about how many bytes it holds."""
        return sum(len(segment.update) for segment in self._segments) + sum(map(len, self._tail))

    def state(self) -> bytes:
        """Return the state vector of everything here."""
        self._read_fresh()
        return self._state.encode()

    def knows(self, asked: Ranges) -> bool:
        """Say whether all these deletions are in here."""
        self._read_fresh()
        self._deleted = join(self._deleted)
        return covers(self._deleted, asked)

    def whole_for(self, state: bytes) -> bytes | None:
        """Return one update that brings a client at `state` here, or None when that is too much for one."""
        self._read_fresh()
        self.used = time.monotonic()
        if self._whole is None:
            parts = [segment.update for segment in self._segments] + self._tail
            if sum(map(len, parts)) > _SMALL:
                return None
            whole = fold(parts)
            if not decodes(whole):
                return None
            self._whole = whole
        return self._whole if state == EMPTY_STATE else difference(self._whole, state)

    def updates_for(self, state: bytes) -> Iterator[bytes]:
        """Yield updates, in order, that bring a client at `state` here; each of at most about 256 KiB.

        May be read slowly: what is added meanwhile is not part of it.
        """
        self._read_fresh()
        self.used = time.monotonic()
        tail = self._tail_parts()
        if state == EMPTY_STATE:
            return itertools.chain((segment.update for segment in self._segments), tail)
        theirs = State(state)
        lacking = [segment.update for segment in self._segments if not theirs.covers(segment.ends)]
        found = (difference(part, state) for part in (*lacking, *tail))
        return (part for part in found if part != EMPTY_UPDATE)

    def _tail_parts(self) -> Sequence[bytes]:
        if self._folded is None:
            folded = fold(self._tail)
            # Updates that decode alone can merge into bytes that do not, when ids are taken twice.
            if not decodes(folded):
                self._folded = self._tail
            elif len(folded) > PART_BYTES:
                self._folded = [segment.update for segment in split(folded)]
            else:
                self._folded = [folded]
        return tuple(self._folded)

    def _read_fresh(self) -> None:
        for entry in self._fresh:
            update = entry.edit.update
            self._tail.append(update)
            try:
                found, deleted = ranges(update)
            except (IndexError, ValueError):
                logger.warning("an update cannot be read", position=entry.position, bytes=len(update))
                continue
            self._state.add(found)
            for client, start, end in deleted:
                self._deleted.setdefault(client, []).append((start, end))
            self._folded = self._whole = None
        self._fresh.clear()

    def _delete(self, update: bytes) -> None:
        for client, start, end in ranges(update)[1]:
            self._deleted.setdefault(client, []).append((start, end))
