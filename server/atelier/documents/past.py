"""Letting go of a document's past: who wrote what before a point, and what had been deleted by then."""

from __future__ import annotations

from atelier.documents.compact import apart, compacted, size_of
from atelier.documents.crdt import decodes, merged, squashed
from atelier.documents.split import split
from atelier.errors import Unavailable
from atelier.log import Edit, Entry, Log, Snapshot, Stored

NOBODY = ""
"""The author of what several people wrote, and nobody knows any more who."""


async def let_go(log: Log, document: str, upto: int) -> tuple[int, int]:
    """Put one edit of nobody's in the place of all up to a position, holding what was there then and nothing deleted.

    Returns:
        The position from which the document's past can be looked at now, and how many edits have become one.

    Raises:
        Unavailable: `document_busy`, another process compacts the document just now; `document_quarantined`.
    """
    async with log.claim(document) as mine:
        if not mine:
            raise Unavailable(
                "document_busy",
                "This document is being compacted just now.",
                next_step="Try again in a moment.",
            )
        stored = await log.read(document)
        if not stored.position:
            return 0, 0
        before = await log.read_at(document, min(upto, stored.position))
        edits = await _count(log, document, before.position)
        if edits < 2:
            return before.position, 0
        entry, snapshot = await apart(size_of(stored) + size_of(before), _condensed, before, stored)
        # Everything up to here is in the archive afterwards, also where edits arrive in a live store.
        await log.compact(document, snapshot)
        done = await log.condense(document, entry, snapshot)
        return (before.position, edits) if done else (0, 0)


async def _count(log: Log, document: str, upto: int) -> int:
    edits = after = 0
    while entries := await log.history(document, after):
        edits += sum(entry.position <= upto for entry in entries)
        after = entries[-1].position
        if after >= upto:
            break
    return edits


def _condensed(before: Stored, stored: Stored) -> tuple[Entry, Snapshot]:
    if not all(decodes(entry.edit.update) for entry in (*before.tail, *stored.tail)):
        # What can still be recovered of it must not go.
        raise Unavailable(
            "document_quarantined",
            "What is kept of this document is damaged.",
            next_step="Whoever runs this server can look at it: atelier documents inspect, then recover.",
        )
    update = squashed(merged(before), whole_history=False)
    at = before.tail[-1].edit.at if before.tail else 0
    snapshot = compacted(Stored(Snapshot(0, b"", split(merged(stored))), ()))
    return Entry(before.position, Edit(update, NOBODY, at)), Snapshot(
        stored.position, snapshot.state, snapshot.segments
    )
