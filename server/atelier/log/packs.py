"""Old edits of a document, many in one compressed row: who, when, and the update.

A pack is zlib over columns: for each edit its position and time (as differences), author (as an index) and length,
then all updates. A typed character takes about five bytes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence

from atelier.log.base import Edit, Entry, Segment

PACKED = 1_024
"""Edits in one pack."""


def pack(entries: Sequence[Entry]) -> bytes:
    """Encode entries that follow each other."""
    authors: dict[str, int] = {}
    columns: list[list[int]] = [[], [], [], []]
    position = at = 0
    for entry in entries:
        edit = entry.edit
        columns[0].append(entry.position - position)
        columns[1].append(edit.at - at)
        columns[2].append(authors.setdefault(edit.author, len(authors)))
        columns[3].append(len(edit.update))
        position, at = entry.position, edit.at
    head = json.dumps([list(authors), *columns], separators=(",", ":")).encode()
    return zlib.compress(len(head).to_bytes(4) + head + b"".join(e.edit.update for e in entries), 6)


def unpack(data: bytes) -> list[Entry]:
    """Decode a pack."""
    whole = zlib.decompress(data)
    start = 4 + int.from_bytes(whole[:4])
    authors, positions, times, indexes, lengths = json.loads(whole[4:start])
    entries = []
    position = at = 0
    for by, later, author, length in zip(positions, times, indexes, lengths, strict=True):
        position += by
        at += later
        entries.append(Entry(position, Edit(whole[start : start + length], authors[author], at)))
        start += length
    return entries


def pack_segments(segments: Sequence[Segment]) -> bytes:
    """Encode a snapshot's parts for keeping."""
    parts = [len(data).to_bytes(4) + data for segment in segments for data in (segment.update, segment.ends)]
    return zlib.compress(b"".join(parts), 1)


def unpack_segments(data: bytes) -> tuple[Segment, ...]:
    """Decode what `pack_segments` encoded."""
    whole = zlib.decompress(data)
    parts = []
    at = 0
    while at < len(whole):
        end = at + 4 + int.from_bytes(whole[at : at + 4])
        parts.append(whole[at + 4 : end])
        at = end
    return tuple(Segment(update, ends) for update, ends in zip(parts[::2], parts[1::2], strict=True))
