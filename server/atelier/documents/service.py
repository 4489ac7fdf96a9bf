"""Reads and changes documents through the log; heavy work runs in a thread, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from atelier import times
from atelier.documents import crdt, edits
from atelier.documents.edits import Change, Patch, Span
from atelier.log import Edit, Log


async def whole(log: Log, document: str) -> tuple[bytes, int]:
    """Return a document as one update, and the position up to which that is."""
    stored = await log.read(document)
    return await asyncio.to_thread(crdt.merged, stored), stored.position


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


async def map_update(
    log: Log, document: str, name: str, decide: Callable[[dict[str, dict[str, Any]]], Patch]
) -> bytes | None:
    """Return the update that `change_map` would append, for later."""
    update, _ = await whole(log, document)
    change = await asyncio.to_thread(edits.change_map, update, name, decide)
    return None if change is None else change.update


async def apply_update(log: Log, document: str, author: str, update: bytes) -> None:
    """Append an update that came from elsewhere, once it has been checked.

    Raises:
        Invalid: `poison_update`.
    """
    crdt.validate(update)
    positions = await log.append(document, [Edit(update, author, times.now())])
    await log.sync(document, positions[-1])


async def _append(log: Log, document: str, author: str, change: Change | None) -> Change | None:
    if change is not None:
        positions = await log.append(document, [Edit(change.update, author, times.now())])
        await log.sync(document, positions[-1])
    return change
