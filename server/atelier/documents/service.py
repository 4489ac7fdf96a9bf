"""Reads and changes documents through the log; heavy work runs in a thread, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from atelier import times
from atelier.documents import crdt, edits
from atelier.documents.edits import Change, Patch, Span
from atelier.errors import TooLarge
from atelier.log import Edit, Log

logger = structlog.get_logger(__name__)
_TAIL_ENTRIES = 400
_TAIL_BYTES = 1024 * 1024


async def whole(log: Log, document: str) -> tuple[bytes, int]:
    """Return a document as one update, and the position up to which that is."""
    stored = await log.read(document)
    position = stored.tail[-1].position if stored.tail else stored.snapshot_position
    return await asyncio.to_thread(crdt.merged, stored), position


async def text_of(log: Log, document: str) -> str:
    """Return a document's text; empty for one that nobody wrote."""
    update, _ = await whole(log, document)
    return await asyncio.to_thread(crdt.text_in, update)


async def set_text(log: Log, document: str, author: str, text: str) -> Change | None:
    """Make the document's text equal to `text` by a small edit; line ends become line feeds."""
    wanted = text.replace("\r\n", "\n").replace("\r", "\n")
    return await change_text(log, document, author, lambda old: edits.spans_between(old, wanted))


async def change_text(
    log: Log, document: str, author: str, spans_of: Callable[[str], Sequence[Span]]
) -> Change | None:
    """Change a document's text; returns what was appended and its inverse once both survive a power cut."""
    update, _ = await whole(log, document)
    change = await asyncio.to_thread(edits.change_text, update, spans_of)
    return await _append(log, document, author, change)


async def map_of(log: Log, document: str, name: str) -> dict[str, dict[str, Any]]:
    """Return the root map `name` as plain dictionaries."""
    update, _ = await whole(log, document)
    return await asyncio.to_thread(edits.read_map, update, name)


async def change_map(
    log: Log, document: str, author: str, name: str, decide: Callable[[dict[str, dict[str, Any]]], Patch]
) -> Change | None:
    """Change entries of the root map `name`; `decide` sees its content and returns the patch (it may raise)."""
    update, _ = await whole(log, document)
    change = await asyncio.to_thread(edits.change_map, update, name, decide)
    return await _append(log, document, author, change)


async def apply_update(log: Log, document: str, author: str, update: bytes) -> None:
    """Append an update that came from elsewhere, once it has been checked.

    Raises:
        Invalid: `poison_update`.
    """
    crdt.validate(update)
    positions = await log.append(document, [Edit(update, author, times.now())])
    await log.sync(document, positions[-1])


async def compact_if_long(log: Log, document: str, *, most_bytes: int) -> bool:
    """Make a verified snapshot when the tail has grown long; says whether it did.

    Raises:
        TooLarge: `document_too_large`, the snapshot alone is over the limit.
    """
    stored = await log.read(document)
    if len(stored.tail) < _TAIL_ENTRIES and sum(len(e.edit.update) for e in stored.tail) < _TAIL_BYTES:
        return False
    snapshot = await asyncio.to_thread(lambda: crdt.snapshot_of(crdt.merged(stored)))
    if len(snapshot.update) > most_bytes:
        raise TooLarge(
            "document_too_large",
            f"The document has {len(snapshot.update):,} bytes; the limit is {most_bytes:,}.",
            next_step="Split the file.",
        )
    await log.compact(document, stored.tail[-1].position, snapshot.update)
    logger.info("compacted", document=document, entries=len(stored.tail), bytes=len(snapshot.update))
    return True


async def _append(log: Log, document: str, author: str, change: Change | None) -> Change | None:
    if change is not None:
        positions = await log.append(document, [Edit(change.update, author, times.now())])
        await log.sync(document, positions[-1])
    return change
