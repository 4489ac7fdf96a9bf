"""The document log: the only truth about a document. An adapter keeps each document's updates in order.

What a log promises:
- a listener given to `follow` is called on the event loop, in position order, once for each entry that is submitted
  through this object after `follow` returned, and for each that comes from elsewhere and was not yet in what a `read`
  showed that began after `follow` returned; and only after that entry survives a kill of this process. For what was
  submitted through this very object, the entry holds the edit object that was given, so that whoever gave it knows it
  again.
- `settled` is called once for each submitted edit, with as many as there are at that moment: after the listeners and
  once the edits survive a power cut, or with the error when they were not taken; then nobody has heard of them (or
  nobody can know whether they survive).
- positions of one document grow, are at least 1, and are never used again; they need not be consecutive.
- who wrote what and when is kept for every edit, also once a snapshot covers it, until the document is forgotten.
What it does not promise: that an update decodes (whoever appends has validated it), nor any order between documents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from atelier.errors import Unavailable

Listener = Callable[[Sequence["Entry"]], None]
Settled = Callable[[Sequence["Edit"], Unavailable | None], None]


class Edit(NamedTuple):
    """One Yjs update (v1) with who made it (a user's id) and when (ms since 1970)."""

    update: bytes
    author: str
    at: int


class Entry(NamedTuple):
    """An edit at its place in the log."""

    position: int
    edit: Edit


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a snapshot, at most about 256 KiB: an update that a client can apply after the parts before it."""

    update: bytes
    ends: bytes
    """A state vector: where the structs of each client in this part end; empty when that is not known."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A document up to a position, as parts in the order in which they can be applied."""

    position: int
    state: bytes
    """Its state vector: what a client that applied all parts says it has; empty when that is not known."""
    segments: tuple[Segment, ...]


NOTHING = Snapshot(0, b"\x00", ())


@dataclass(frozen=True, slots=True)
class Stored:
    """A document as kept: a snapshot (`NOTHING` when there is none), then the tail."""

    snapshot: Snapshot
    tail: tuple[Entry, ...]

    @property
    def position(self) -> int:
        """The position up to which this is."""
        return self.tail[-1].position if self.tail else self.snapshot.position


@dataclass(frozen=True, slots=True)
class Kept:
    """What a log holds of one document."""

    document: str
    edits: int
    bytes: int
    snapshot_position: int
    position: int


class Reader(Protocol):
    """What can be asked of a log without writing to it."""

    async def read(self, document: str) -> Stored:
        """Return the newest snapshot and what came after it."""
        ...

    async def history(self, document: str, after: int = 0, limit: int = 5_000) -> tuple[Entry, ...]:
        """Return every edit after a position, oldest first, also those that a snapshot covers."""
        ...

    async def read_at(self, document: str, position: int) -> Stored:
        """Return the document as it was at a position: the nearest snapshot that was kept, and the edits up to it."""
        ...

    async def survey(self, prefix: str = "") -> list[Kept]:
        """List the documents whose name begins with `prefix`."""
        ...


class Log(Reader, Protocol):
    """Errors: `Unavailable("log_unavailable")` when the storage is full, locked or gone; then nothing was appended."""

    def submit(self, document: str, edit: Edit, settled: Settled) -> None:
        """Hand over an edit; what is submitted in one turn of the event loop is written together. Never raises."""
        ...

    async def append(self, document: str, edits: Sequence[Edit]) -> list[int]:
        """Append in order; returns the positions once the edits survive a kill."""
        ...

    async def sync(self, document: str, position: int) -> None:
        """Return once everything up to `position` survives a power cut."""
        ...

    def follow(self, document: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` for what is appended from now on; returns the function that ends it."""
        ...

    async def compact(self, document: str, snapshot: Snapshot, *, keep: Snapshot | None = None) -> bool:
        """Take a snapshot that the caller has verified; says whether it was newer than what was there.

        One of a document that has been forgotten meanwhile changes nothing. `keep` is one of the same position that
        stays for `read_at` when newer ones come; it may hold more, since history is read from it.
        """
        ...

    def claim(self, document: str) -> AbstractAsyncContextManager[bool]:
        """Be the one that compacts a document while the context is open; False: another process is at it."""
        ...

    async def due(self, age: float) -> list[str]:
        """Return documents that wait to be compacted since `age` seconds, whoever has them open; not all at once.

        Always empty where edits may lie as they came for as long as they like.
        """
        ...

    async def put_off(self, document: str) -> None:
        """Let a document that was due wait anew: it cannot be compacted, or somebody else has done it."""
        ...

    async def condense(self, document: str, entry: Entry, snapshot: Snapshot) -> bool:
        """Put `entry` in the place of every edit up to its position, which is one of them; the others are gone for good.

        `snapshot`, of that position or a later one, becomes the newest, and those kept for history go. False: the
        document has been forgotten or condensed meanwhile, and nothing has changed.
        """
        ...

    async def disown(self, author: str) -> int:
        """Take a person's name off every edit; returns how many there were. What has not been compacted yet keeps it."""
        ...

    async def forget(self, document: str) -> None:
        """Remove everything of a document, for good."""
        ...
