"""Edits as a person would tell them: what each did, and bursts of them. Pure, and always the same for the same log.

Yjs repeats a document's whole set of deletions whenever a client comes back, so an update says less about who deleted
something than it seems: a `Ledger` goes through the log in order and counts only what an update did first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from atelier import times
from atelier.documents import Range, difference, ranges, state_of
from atelier.history.spans import Spans, written_by
from atelier.log import Entry

QUIET = 30 * times.SECOND
"""A burst ends when nobody writes for so long."""
LONG_QUIET = 30 * times.MINUTE
"""The state before an edit that comes after so long is marked by itself."""
_LONGEST = 10 * times.MINUTE
_MOST_EDITS = 500
_YOUNG = times.MINUTE  # two who write at once share a burst; who begins later than this begins a new one
_ENOUGH = 8


@dataclass(frozen=True, slots=True)
class Effect:
    """What an update did that no earlier one had done; `again` is what it deletes that others had deleted already."""

    written: list[Range]
    deleted: list[Range]
    again: list[Range]


_NO_EFFECT = Effect([], [], [])


class Ledger:
    """What has been written and deleted so far, from a document (as one update) on."""

    def __init__(self, base: bytes) -> None:
        state = state_of(base)
        deleted = ranges(difference(base, state))[1]  # all deletions, without the structs
        self._written = Spans(written_by(state))
        self.deleted = Spans(deleted)
        self._first = deleted[:_ENOUGH]

    def take(self, update: bytes) -> Effect:
        """Take the next update of the log in."""
        try:
            written, deleted = ranges(update)
        except (IndexError, ValueError):
            return _NO_EFFECT  # it decodes to nothing, and changed nothing
        again = self.deleted.common(deleted) if deleted else []
        new_written = self._written.add_all(written)
        new_deleted = self.deleted.add_all(deleted)
        if again and (written or new_deleted) and self._repeats(deleted):
            again = []
        if not self._first:
            self._first = new_deleted[:_ENOUGH]
        return Effect(new_written, new_deleted, again)

    def _repeats(self, deleted: list[Range]) -> bool:
        """Say whether a client that came back sent all deletions it knows: then the oldest ones are among them."""
        return sum(end - start for _, start, end in Spans(deleted).common(self._first)) == sum(
            end - start for _, start, end in self._first
        )


@dataclass(slots=True)
class Share:
    """One person's part of a burst; lengths in UTF-16 units."""

    edits: int = 0
    inserted: int = 0
    deleted: int = 0


@dataclass(slots=True)
class Burst:
    """Edits that follow each other, from position `first` to `last`."""

    first: int
    last: int
    started_at: int
    ended_at: int
    edits: int = 0
    authors: dict[str, Share] = field(default_factory=dict)

    def takes(self, author: str, at: int) -> bool:
        """Say whether an edit belongs to this burst."""
        if at - self.ended_at >= QUIET or self.edits >= _MOST_EDITS or at - self.started_at >= _LONGEST:
            return False
        return author in self.authors or at - self.started_at < _YOUNG


class Grouping:
    """Edits in the order of the log into bursts; `open` is the one that may still grow."""

    def __init__(self, base: bytes) -> None:
        self._ledger = Ledger(base)
        self.open: Burst | None = None

    def take(self, entries: Iterable[Entry]) -> Iterator[Burst]:
        """Take the next entries in; yields bursts that are complete."""
        for entry in entries:
            edit = entry.edit
            if self.open is not None and not self.open.takes(edit.author, edit.at):
                yield self.open
                self.open = None
            if self.open is None:
                self.open = Burst(entry.position, entry.position, edit.at, edit.at)
            burst = self.open
            effect = self._ledger.take(edit.update)
            share = burst.authors.setdefault(edit.author, Share())
            share.edits += 1
            share.inserted += _length(effect.written)
            share.deleted += _length(effect.deleted)
            burst.edits += 1
            burst.last = entry.position
            burst.ended_at = max(burst.ended_at, edit.at)


def _length(found: list[Range]) -> int:
    return sum(end - start for _, start, end in found)
