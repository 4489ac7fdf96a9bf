"""Cuts a large update into parts of at most about 256 KiB that a client can apply one after the other.

One message that takes longer than 30 s on somebody's line ends in a reconnect loop, so no message may be large. The
parts come in causal order: nothing in a part stands beside something that a later part brings, since Yjs would put it
aside and try again with each part. Within a part a client's structs follow each other without a gap, as the format
wants. A string longer than a part is cut as Yjs itself cuts an item. Deletions come last.
"""

from __future__ import annotations

from collections.abc import Iterator

from atelier.documents.lib0 import sized, uint
from atelier.documents.shape import Struct, ranges, structs
from atelier.documents.state import encode
from atelier.log import Segment

PART_BYTES = 256 * 1024


def split(update: bytes, most: int = PART_BYTES) -> tuple[Segment, ...]:
    """Cut an update that decodes into parts with structs, then parts with deletions; a small one stays as it is."""
    if len(update) <= most:
        return (Segment(update, b""),)
    waiting: dict[int, list[Struct]] = {}
    for struct in structs(update):
        if struct.kind != 10:
            waiting.setdefault(struct.client, []).append(struct)
    parts = [Part()]
    for struct in _causal(waiting):
        for start, length, piece in _pieces(update, struct, most):
            if parts[-1].size + len(piece) > most or not parts[-1].follows(struct.client, start):
                parts.append(Part())
            parts[-1].add(struct.client, start, length, piece)
    found = [part.segment() for part in parts if part.size]
    return (*found, *(Segment(part, b"") for part in _deletions(update, most)))


class Part:
    """Structs of several clients, each client's in a row."""

    def __init__(self) -> None:
        self.size = 0
        self._starts: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._pieces: dict[int, list[bytes]] = {}

    def follows(self, client: int, clock: int) -> bool:
        """Say whether a struct may join: its client is new here, or it comes right after that client's last."""
        return self._ends.get(client, clock) == clock

    def add(self, client: int, clock: int, length: int, piece: bytes) -> None:
        """Take a struct's bytes."""
        self._starts.setdefault(client, clock)
        self._ends[client] = clock + length
        self._pieces.setdefault(client, []).append(piece)
        self.size += len(piece)

    def segment(self) -> Segment:
        """Encode it as an update without deletions."""
        out = [uint(len(self._pieces))]
        for client in sorted(self._pieces, reverse=True):
            pieces = self._pieces[client]
            out += [uint(len(pieces)), uint(client), uint(self._starts[client]), *pieces]
        out.append(b"\x00")
        return Segment(b"".join(out), encode(self._ends))


def _causal(waiting: dict[int, list[Struct]]) -> Iterator[Struct]:
    """Order structs so that each comes after what it stands beside; what is not in this update counts as there."""
    first = {client: found[0].clock for client, found in waiting.items()}
    last = {client: found[-1].clock + found[-1].length for client, found in waiting.items()}
    reached = dict(first)
    places = dict.fromkeys(waiting, 0)
    for start in sorted(waiting, reverse=True):
        stack = [start]
        while stack:
            client = stack[-1]
            found, place = waiting[client], places[client]
            if place == len(found):
                stack.pop()
                continue
            struct = found[place]
            blocker = next(
                (
                    other
                    for other, clock in struct.needs
                    if other != client
                    and first.get(other, clock + 1) <= clock < last.get(other, 0)
                    and reached[other] <= clock
                    and other not in stack
                ),
                None,
            )
            if blocker is not None:
                stack.append(blocker)
                continue
            yield struct
            places[client] += 1
            reached[client] = struct.clock + struct.length
            if len(stack) > 1:
                stack.pop()  # look again at the one that waited


def _pieces(update: bytes, struct: Struct, most: int) -> Iterator[tuple[int, int, bytes]]:
    """Return a struct's bytes with clock and length; a long string as several, as Yjs splits an item."""
    whole = update[struct.start : struct.end]
    if len(whole) <= most or struct.text < 0:
        yield struct.clock, struct.length, whole
        return
    head = update[struct.start : struct.text]
    at, size = struct.text, 0
    while update[at] >= 0x80:
        at += 1
    text = update[at + 1 : struct.end].decode()
    right = uint(struct.needs[-1][0]) + uint(struct.needs[-1][1]) if head[0] & 0x40 else b""
    info = bytes([0x84 | head[0] & 0x40])
    clock = struct.clock
    for cut in range(0, len(text), most // 4):
        piece = text[cut : cut + most // 4]
        encoded = piece.encode()
        size = len(piece.encode("utf-16-le")) // 2
        before = head if cut == 0 else info + uint(struct.client) + uint(clock - 1) + right
        yield clock, size, before + sized(encoded)
        clock += size


def _deletions(update: bytes, most: int) -> Iterator[bytes]:
    """Encode the deletions as updates of their own."""
    found = ranges(update)[1]
    for cut in range(0, len(found), most // 16):
        of: dict[int, list[bytes]] = {}
        for client, start, end in found[cut : cut + most // 16]:
            of.setdefault(client, []).append(uint(start) + uint(end - start))
        out = [b"\x00", uint(len(of))]
        for client, deleted in of.items():
            out += [uint(client), uint(len(deleted)), *deleted]
        yield b"".join(out)
