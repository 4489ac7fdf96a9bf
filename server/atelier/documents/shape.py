"""The shape of an update (v1), read without decoding its values: ranges of structs, deletions, and whether it is safe.

pycrdt decodes nested values by recursion, without a bound, and reserves memory for as many clients or map entries as an
update announces: 20 kB of nested arrays end the process by a stack overflow, six bytes reserve gigabytes. So an update
that could do either is walked here first. Almost none could: the check for that costs less than a microsecond.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

DEEPEST = 64
_OPENINGS = 1_000  # so many nested values are decoded safely, whatever the stack
_LONG_MAP = re.compile(rb"\x76[\x80-\xff]{2}")
_NUMBERS = {122: 8, 123: 8, 124: 4}  # bigint, float64, float32
_V = rb"(?:[\x80-\xff]{0,6}[\x00-\x7f]|[\x80-\xff]{7}[\x00-\x0f])"  # a client id: 53 bits
_N = rb"[\x80-\xff]{0,3}[\x00-\x7f]"  # a clock or length, well below the 32 bits that yrs allows
_KEYSTROKE = re.compile(
    # One client, one struct: a string of less than 128 bytes beside what is there, or first in the root `content`; or
    # no struct. Then deletions: none, or one range of one client.
    rb"(?:\x01\x01"
    + _V
    + _N
    + rb"(?:\xc4"
    + (_V + _N) * 2
    + rb"|[\x84\x44]"
    + _V
    + _N
    + rb"|\x04\x01\x07content)"
    rb"(?P<length>[\x01-\x7f])(?P<text>.+?)|\x00)(?:\x00|\x01" + _V + rb"\x01" + _N * 2 + rb")",
    re.DOTALL,
)
Range = tuple[int, int, int]
"""Client, and the clocks where its structs (or deletions) start and end."""


def is_keystroke(update: bytes) -> bool:
    """Say whether an update is one of the simple shapes that typing makes, complete and valid; False proves nothing."""
    if len(update) > 200:
        return False
    found = _KEYSTROKE.fullmatch(update)
    if found is None:
        return False
    text = found["text"]
    if text is None:
        return True
    return found["length"][0] == len(text) and (text.isascii() or _decodes(text))


def _decodes(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_sane(update: bytes) -> bool:
    """Say whether an update may be decoded: few enough levels, and no more entries than it has bytes for."""
    if len(update) > 3 and update[0] < 0x80:
        if update[0] * 3 > len(update):
            return False
        if update.count(b"\x75") + update.count(b"\x76") < _OPENINGS and not _LONG_MAP.search(update):
            return True
    try:
        for _ in structs(update):
            pass
    except (IndexError, ValueError):
        return False
    return True


def announces_too_much(data: bytes, each: int) -> bool:
    """Say whether bytes begin with a count of entries (of at least `each` bytes) that cannot all be there."""
    try:
        return _Walk(data).uint() * each > len(data)
    except (IndexError, ValueError):
        return True


@dataclass(frozen=True, slots=True)
class Struct:
    """One struct of an update, where it lies in the bytes, and the ids it stands beside or in."""

    client: int
    clock: int
    length: int
    start: int
    end: int
    kind: int
    needs: tuple[tuple[int, int], ...]
    text: int
    """Where the text's length stands, for a string; else -1."""


def structs(update: bytes) -> Iterator[Struct]:
    """Walk the structs in the order of the bytes.

    Raises:
        IndexError: it ends too early. ValueError: nothing that Yjs would write, or too deep.
    """
    walk = _Walk(update)
    yield from walk.structs()


def ranges(update: bytes) -> tuple[list[Range], list[Range]]:
    """Return where each client's structs lie (joined), and what is deleted.

    Raises:
        IndexError, ValueError: these bytes are no update.
    """
    found: list[Range] = []
    walk = _Walk(update)
    for struct in walk.structs():
        if struct.kind == 10:
            continue  # nothing: a hole
        end = struct.clock + struct.length
        if found and found[-1][0] == struct.client and found[-1][2] == struct.clock:
            found[-1] = (struct.client, found[-1][1], end)
        else:
            found.append((struct.client, struct.clock, end))
    return found, walk.deletions()


class _Walk:
    """Reads an update from left to right. IndexError: it ends too early; ValueError: nothing that Yjs would write."""

    __slots__ = ("_data", "_needs", "at")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def uint(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError

    def structs(self) -> Iterator[Struct]:
        clients = self.uint()
        if clients * 3 > len(self._data):
            raise ValueError
        for _ in range(clients):
            count = self.uint()
            client = self.uint()
            clock = self.uint()
            for _ in range(count):
                struct = self._struct(client, clock)
                clock += struct.length
                yield struct

    def deletions(self) -> list[Range]:
        found = []
        for _ in range(self.uint()):
            client = self.uint()
            for _ in range(self.uint()):
                start = self.uint()
                found.append((client, start, start + self.uint()))
        return found

    def _struct(self, client: int, clock: int) -> Struct:
        start = self.at
        info = self._data[start]
        self.at += 1
        kind = info & 0x1F
        if kind in (0, 10):  # collected, or skipped
            return Struct(client, clock, self.uint(), start, self.at, kind, (), -1)
        needs = [(self.uint(), self.uint()) for side in (0x80, 0x40) if info & side]
        if not info & 0xC0:
            if self.uint() == 1:
                self._skip(self.uint())  # the root's name
            else:
                needs.append((self.uint(), self.uint()))
            if info & 0x20:
                self._skip(self.uint())  # the key
        text = self.at if kind == 4 else -1
        length = self._content(kind)
        return Struct(client, clock, length, start, self.at, kind, tuple(needs), text)

    def _content(self, kind: int) -> int:
        """Walk a content; returns how many clocks it takes."""
        match kind:
            case 1:  # deleted
                return self.uint()
            case 2:  # JSON
                count = self.uint()
                for _ in range(count):
                    self._skip(self.uint())
                return count
            case 4:  # string
                size = self.uint()
                self._skip(size)
                text = self._data[self.at - size : self.at]
                return size if text.isascii() else len(text.decode().encode("utf-16-le")) // 2
            case 3 | 5:  # bytes, embed
                self._skip(self.uint())
            case 6:  # format: name and value
                self._skip(self.uint())
                self._skip(self.uint())
            case 7:  # a shared type; XML elements and hooks have a name
                if self.uint() in (3, 5):
                    self._skip(self.uint())
            case 8:  # values
                count = self.uint()
                self._values(count)
                return count
            case 9:  # a document: its id and options
                self._skip(self.uint())
                self._values(1)
            case _:
                raise ValueError
        return 1

    def _values(self, count: int) -> None:
        """Walk values with a stack of our own: how many are left on each level, and whether they have keys."""
        levels = [(count, False)]
        while levels:
            left, keyed = levels.pop()
            if left == 0:
                continue
            if left > len(self._data) - self.at or len(levels) > DEEPEST:
                raise ValueError
            levels.append((left - 1, keyed))
            if keyed:
                self._skip(self.uint())
            kind = self._data[self.at]
            self.at += 1
            if kind in (117, 118):
                levels.append((self.uint(), kind == 118))
            elif kind in (116, 119):
                self._skip(self.uint())
            elif kind == 125:
                while self._data[self.at] >= 0x80:
                    self.at += 1
                self.at += 1
            elif kind in _NUMBERS:
                self._skip(_NUMBERS[kind])
            elif kind not in (120, 121, 126, 127):
                raise ValueError

    def _skip(self, length: int) -> None:
        self.at += length
        if self.at > len(self._data):
            raise IndexError
