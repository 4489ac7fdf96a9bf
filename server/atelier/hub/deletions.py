"""The deletions that an update carries, so that a client's answer which only repeats them is not an edit.

Yjs sends all deletions of a document with every difference. Taken for edits, each reconnect would grow the log, and a
reader's honest answer would look like a write.
"""

from __future__ import annotations

from atelier.errors import BadRequest
from atelier.hub.protocol import Reader

Ranges = dict[int, list[tuple[int, int]]]
"""Client id to sorted, joined (start, end) clocks that are deleted."""


def only_deletions(update: bytes) -> bool:
    """Say whether the update holds no structs: its first number counts the clients it has structs of."""
    return update[:1] == b"\x00"


def deletions(update: bytes) -> Ranges | None:
    """Read the deletions of an update without structs; None when it does not decode."""
    reader = Reader(update[1:])
    found: Ranges = {}
    try:
        for _ in range(reader.uint()):
            client = reader.uint()
            for _ in range(reader.uint()):
                start = reader.uint()
                found.setdefault(client, []).append((start, start + reader.uint()))
    except BadRequest:
        return None
    return join(found)


def covers(known: Ranges, asked: Ranges) -> bool:
    """Say whether everything that `asked` deletes is deleted in `known`."""
    return all(
        any(start <= first and last <= end for start, end in known.get(client, ()))
        for client, ranges in asked.items()
        for first, last in ranges
    )


def join(ranges: Ranges) -> Ranges:
    """Sort and join each client's ranges."""
    return {client: _joined(found) for client, found in ranges.items()}


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
