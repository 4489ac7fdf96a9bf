"""Sets of Yjs ids as ranges of clocks: what is deleted, what has been written. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from atelier.documents import Range, uint


class Spans:
    """A set of (client, clock), kept as sorted, joined ranges per client."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: dict[int, list[int]] = {}
        self._ends: dict[int, list[int]] = {}
        for found in ranges:
            self.add(found)

    def __iter__(self) -> Iterator[Range]:
        for client, starts in self._starts.items():
            for start, end in zip(starts, self._ends[client], strict=True):
                yield client, start, end

    def __bool__(self) -> bool:
        return any(self._starts.values())

    def __len__(self) -> int:
        """How many ids are in it."""
        return sum(end - start for _, start, end in self)

    def add(self, added: Range) -> list[Range]:
        """Add a range; returns the parts of it that were not in the set."""
        client, start, end = added
        if end <= start:
            return []
        starts, ends = self._starts.setdefault(client, []), self._ends.setdefault(client, [])
        if not starts or start > ends[-1]:  # what is written mostly comes behind what there is
            starts.append(start)
            ends.append(end)
            return [added]
        first = bisect_left(ends, start)  # the first range that touches it, or lies behind it
        last = bisect_right(starts, end)
        new, at = [], start
        for had_start, had_end in zip(starts[first:last], ends[first:last], strict=True):
            if at < had_start:
                new.append((client, at, had_start))
            at = max(at, had_end)
        if at < end:
            new.append((client, at, end))
        if first < last:
            start, end = min(start, starts[first]), max(end, ends[last - 1])
        starts[first:last] = [start]
        ends[first:last] = [end]
        return new

    def add_all(self, added: Iterable[Range]) -> list[Range]:
        """Add ranges; returns the parts that were not in the set."""
        return [part for found in added for part in self.add(found)]

    def common(self, asked: Iterable[Range]) -> list[Range]:
        """Return the parts of some ranges that are in the set."""
        found: list[Range] = []
        for client, start, end in asked:
            starts, ends = self._starts.get(client, []), self._ends.get(client, [])
            found.extend(
                (client, max(start, starts[at]), min(end, ends[at]))
                for at in range(bisect_right(ends, start), bisect_left(starts, end))
            )
        return found

    def without(self, other: Spans) -> Spans:
        """Return what is in this set and not in the other."""
        left = Spans()
        for client, start, end in self:
            at = start
            for _, had_start, had_end in sorted(other.common([(client, start, end)])):
                left.add((client, at, had_start))
                at = had_end
            left.add((client, at, end))
        return left

    def encode(self) -> bytes:
        """Encode it as Yjs encodes a delete set."""
        out = bytearray(uint(sum(1 for starts in self._starts.values() if starts)))
        for client, starts in self._starts.items():
            if not starts:
                continue
            out += uint(client) + uint(len(starts))
            for start, end in zip(starts, self._ends[client], strict=True):
                out += uint(start) + uint(end - start)
        return bytes(out)


def written_by(state: bytes) -> list[Range]:
    """Return what a state vector says is there: each client's clocks from 0."""
    numbers: list[int] = []
    value = shift = 0
    for byte in state:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            value = shift = 0
    return [(client, 0, clock) for client, clock in zip(numbers[1::2], numbers[2::2], strict=True)]
