"""State vectors: which of each client's clocks a log holds without a gap, kept up to date by reading updates' ranges."""

from __future__ import annotations

from collections.abc import Iterable

from atelier.documents.lib0 import uint
from atelier.documents.shape import Range


class State:
    """Client id to the clock up to which everything is there; what came ahead of a gap waits."""

    __slots__ = ("_clocks", "_waiting")

    def __init__(self, vector: bytes = b"\x00") -> None:
        self._clocks = decode(vector)
        self._waiting: dict[int, list[tuple[int, int]]] = {}

    def add(self, found: Iterable[Range]) -> None:
        """Take in the structs of an update."""
        for client, start, end in found:
            have = self._clocks.get(client, 0)
            if start > have:
                self._waiting.setdefault(client, []).append((start, end))
            elif end > have:
                self._clocks[client] = end
                if client in self._waiting:
                    again = self._waiting.pop(client)
                    self.add((client, *waiting) for waiting in sorted(again))

    @classmethod
    def of(cls, found: Iterable[Range]) -> State:
        """Return where the structs of each client end, whether or not what is before them is there."""
        made = cls()
        for client, _, end in found:
            made._clocks[client] = max(end, made._clocks.get(client, 0))
        return made

    def covers(self, ends: bytes) -> bool:
        """Say whether everything that a part holds is there; False when it does not say where it ends."""
        return bool(ends) and all(self._clocks.get(client, 0) >= end for client, end in decode(ends).items())

    @property
    def waits(self) -> bool:
        """Whether something came ahead of a gap."""
        return bool(self._waiting)

    def __len__(self) -> int:
        """Return how many clients have written."""
        return len(self._clocks)

    def encode(self) -> bytes:
        """Return it as Yjs writes it."""
        return encode(self._clocks)


def encode(clocks: dict[int, int]) -> bytes:
    """Encode a state vector, as Yjs orders it: clients from the greatest id down."""
    out = bytearray(uint(len(clocks)))
    for client in sorted(clocks, reverse=True):
        out += uint(client) + uint(clocks[client])
    return bytes(out)


def decode(vector: bytes) -> dict[int, int]:
    """Decode a state vector.

    Raises:
        ValueError: it is none.
    """
    numbers: list[int] = []
    value = shift = 0
    for byte in vector:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            value = shift = 0
    if shift or not numbers or len(numbers) != 1 + 2 * numbers[0]:
        raise ValueError("these bytes are no state vector")
    return dict(zip(numbers[1::2], numbers[2::2], strict=True))
