"""Whether what is kept of a document can be read, and a new snapshot from whatever can."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pycrdt import Doc, Text

from atelier.documents.crdt import EMPTY_UPDATE, TEXT, apply, decodes, difference, fold, squashed, state_of
from atelier.documents.split import split
from atelier.documents.state import decode
from atelier.log import Segment, Snapshot, Stored


@dataclass(frozen=True, slots=True)
class Health:
    """What a document holds and what of it is damaged."""

    characters: int
    clients: int
    waiting: bool
    """Whether there are structs or deletions that wait for an update which has not come."""
    damages: list[str]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A snapshot without a position."""

    characters: int
    state: bytes
    segments: tuple[Segment, ...]

    def at(self, position: int) -> Snapshot:
        """Return it as the snapshot of a position."""
        return Snapshot(position, self.state, self.segments)


def examine(stored: Stored) -> Health:
    """Try every part and every edit of the tail, one by one."""
    damages: list[str] = []
    doc: Doc[Any] = Doc(skip_gc=True)
    good = [
        segment.update
        for number, segment in enumerate(stored.snapshot.segments)
        if _taken(doc, segment.update, f"part {number} of the snapshot", damages)
    ]
    if stored.snapshot.state and not _same(stored.snapshot.state, bytes(doc.get_state())):
        damages.append("the snapshot's state vector is not that of its parts")
    good += [
        entry.edit.update
        for entry in stored.tail
        if _taken(doc, entry.edit.update, f"the edit at {entry.position}", damages)
    ]
    state = bytes(doc.get_state())
    waiting = bool(good) and _residue(good, state) != EMPTY_UPDATE
    return Health(len(str(doc.get(TEXT, type=Text))), len(decode(state)), waiting, damages)


def rebuilt(updates: Iterable[bytes]) -> tuple[Rebuilt, int]:
    """Make a snapshot of every update that can be read; returns it and how many could not."""
    doc: Doc[Any] = Doc(skip_gc=True)
    damages: list[str] = []
    good = [update for update in updates if _taken(doc, update, "an update", damages)]
    try:
        whole = squashed(fold(good))
    except ValueError:
        # They can be read one by one only; what waits for an update that is missing is not in it then.
        whole = bytes(doc.get_update())
    segments = split(whole) if whole != EMPTY_UPDATE else ()
    return Rebuilt(len(str(doc.get(TEXT, type=Text))), state_of(whole), segments), len(damages)


def _taken(doc: Doc[Any], update: bytes, name: str, damages: list[str]) -> bool:
    """Apply an update, if it can be; else note its name."""
    if not decodes(update):
        damages.append(f"{name} is no Yjs update ({len(update):,} bytes)")
        return False
    try:
        apply(doc, update)
    except ValueError as error:
        damages.append(f"{name} does not fit the rest: {error}")
        return False
    return True


def _residue(updates: list[bytes], state: bytes) -> bytes:
    try:
        return difference(fold(updates), state)
    except ValueError:
        return EMPTY_UPDATE


def _same(state: bytes, other: bytes) -> bool:
    try:
        return decode(state) == decode(other)
    except ValueError:
        return False
