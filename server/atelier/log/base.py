"""The document log: the only truth about a document. An adapter keeps each document's updates in order.

What a log promises:
- `append` returns once the edits survive a kill of this process, `sync` once they survive a power cut.
- positions of one document grow, are at least 1, and are never used again; they need not be consecutive.
- a listener given to `follow` is called on the event loop, in position order, once for each entry that anybody
  appends after `follow` returned, and only after that entry survives a kill. For what was appended through this very
  object, the entry holds the edit object that was given, so that whoever gave it knows it again.
What it does not promise: that an update decodes (whoever appends has validated it), nor any order between documents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

Listener = Callable[[Sequence["Entry"]], None]


@dataclass(frozen=True, slots=True)
class Edit:
    """One Yjs update (v1) with who made it (a user's id) and when (ms since 1970)."""

    update: bytes
    author: str
    at: int


@dataclass(frozen=True, slots=True)
class Entry:
    """An edit at its place in the log."""

    position: int
    edit: Edit


@dataclass(frozen=True, slots=True)
class Stored:
    """A document as kept: a snapshot that covers everything up to `snapshot_position`, then the tail."""

    snapshot: bytes | None
    snapshot_position: int
    tail: tuple[Entry, ...]


class Log(Protocol):
    """Errors: `Unavailable("log_unavailable")` when the storage is full, locked or gone; then nothing was appended."""

    async def append(self, document: str, edits: Sequence[Edit]) -> list[int]: ...

    async def sync(self, document: str, position: int) -> None: ...

    async def read(self, document: str, after: int = 0) -> Stored:
        """Return what came after position `after`; with `after` below the snapshot's position, the snapshot too."""
        ...

    def follow(self, document: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` for what is appended from now on; returns the function that ends it."""
        ...

    async def compact(self, document: str, upto: int, snapshot: bytes) -> None:
        """Replace everything up to position `upto` by a snapshot the caller has verified; idempotent."""
        ...
