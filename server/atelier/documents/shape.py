"""The shape of an update, read before pycrdt sees it: how deep its values nest and how many entries it announces.

pycrdt decodes nested values by recursion, without a bound, and reserves memory for as many clients or map entries as an
update announces: 20 kB of nested arrays end the process by a stack overflow, six bytes reserve gigabytes. So an update
that could do either is walked here first. Almost none could: the check for that costs less than a microsecond.
"""

from __future__ import annotations

import re

DEEPEST = 64
_OPENINGS = 1_000  # so many nested values are decoded safely, whatever the stack
_LONG_MAP = re.compile(rb"\x76[\x80-\xff]{2}")
_NUMBERS = {122: 8, 123: 8, 124: 4}  # bigint, float64, float32


def is_sane(update: bytes) -> bool:
    """Say whether an update (v1) may be decoded: few enough levels, and no more entries than it has bytes for."""
    if len(update) > 3 and update[0] < 0x80:
        if update[0] * 3 > len(update):
            return False
        if update.count(b"\x75") + update.count(b"\x76") < _OPENINGS and not _LONG_MAP.search(update):
            return True
    try:
        return _Walk(update).structs()
    except (IndexError, ValueError):
        return False


def announces_too_much(data: bytes, each: int) -> bool:
    """Say whether bytes begin with a count of entries (of at least `each` bytes) that cannot all be there."""
    try:
        return _Walk(data).uint() * each > len(data)
    except (IndexError, ValueError):
        return True


class _Walk:
    """Reads an update from left to right. IndexError: it ends too early; ValueError: nothing that Yjs would write."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def uint(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError

    def structs(self) -> bool:
        """Walk all structs; says whether they may be decoded."""
        clients = self.uint()
        if clients * 3 > len(self._data):
            return False
        for _ in range(clients):
            count = self.uint()
            self.uint()  # client
            self.uint()  # clock
            for _ in range(count):
                if not self._struct():
                    return False
        return True

    def _struct(self) -> bool:
        info = self._data[self._at]
        self._at += 1
        kind = info & 0x1F
        if kind in (0, 10):  # collected, or skipped
            self.uint()
            return True
        for side in (0x80, 0x40):
            if info & side:
                self.uint()
                self.uint()
        if not info & 0xC0:
            if self.uint() == 1:
                self._skip(self.uint())  # the root's name
            else:
                self.uint()
                self.uint()
            if info & 0x20:
                self._skip(self.uint())  # the key
        return self._content(kind)

    def _content(self, kind: int) -> bool:
        match kind:
            case 1:  # deleted
                self.uint()
            case 2:  # JSON
                for _ in range(self.uint()):
                    self._skip(self.uint())
            case 3 | 4 | 5:  # bytes, string, embed
                self._skip(self.uint())
            case 6:  # format: name and value
                self._skip(self.uint())
                self._skip(self.uint())
            case 7:  # a shared type; XML elements and hooks have a name
                if self.uint() in (3, 5):
                    self._skip(self.uint())
            case 8:  # values
                return self._values(self.uint())
            case 9:  # a document: its id and options
                self._skip(self.uint())
                return self._values(1)
            case _:
                raise ValueError
        return True

    def _values(self, count: int) -> bool:
        """Walk values with a stack of our own: how many are left on each level, and whether they have keys."""
        levels = [(count, False)]
        while levels:
            left, keyed = levels.pop()
            if left == 0:
                continue
            if left > len(self._data) - self._at or len(levels) > DEEPEST:
                return False
            levels.append((left - 1, keyed))
            if keyed:
                self._skip(self.uint())
            kind = self._data[self._at]
            self._at += 1
            if kind in (117, 118):
                levels.append((self.uint(), kind == 118))
            elif kind in (116, 119):
                self._skip(self.uint())
            elif kind == 125:
                while self._data[self._at] >= 0x80:
                    self._at += 1
                self._at += 1
            elif kind in _NUMBERS:
                self._skip(_NUMBERS[kind])
            elif kind not in (120, 121, 126, 127):
                raise ValueError
        return True

    def _skip(self, length: int) -> None:
        self._at += length
        if self._at > len(self._data):
            raise IndexError
