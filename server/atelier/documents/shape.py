"""The shape of an update (v1), read without decoding its values: ranges of structs, deletions, and whether it is safe.

pycrdt decodes nested values by recursion, without a bound, and reserves memory for as many clients or map entries as an
update announces: 20 kB of nested arrays end the process by a stack overflow, six bytes reserve gigabytes. So an update
that could do either is walked here first. Almost none could: the check for that costs less than a microsecond.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

DEEPEST = 64
_OPENINGS = 1_000  # so many nested values are decoded safely, whatever the stack
_LONG_MAP = re.compile(rb"\x76[\x80-\xff]{2}")
_NUMBERS = {122: 8, 123: 8, 124: 4}  # bigint, float64, float32
# Each number is written in one way only, so that equal ones are equal bytes.
_V = rb"(?:[\x80-\xff]{0,6}[\x01-\x7f]|[\x80-\xff]{7}[\x01-\x0f]|\x00)"  # a client id: 53 bits
_L = rb"[\x80-\xff]{0,3}[\x01-\x7f]"  # a length, well below the 32 bits that yrs allows
_N = rb"(?:" + _L + rb"|\x00)"  # a clock
_KEYSTROKE = re.compile(
    # One client, one struct: a string of less than 128 bytes beside what is there, or first in the root `content`; or
    # no struct. Then deletions: none, or one range of one client.
    rb"(?:\x01\x01(?P<client>" + _V + rb")(?P<clock>" + _N + rb")"
    rb"(?:\xc4(?P<left>"
    + _V
    + rb")(?P<left_at>"
    + _N
    + rb")(?P<right>"
    + _V
    + rb")(?P<right_at>"
    + _N
    + rb")"
    rb"|[\x84\x44](?P<side>" + _V + rb")(?P<side_at>" + _N + rb")"
    rb"|\x04\x01\x07content)"
    rb"(?P<length>[\x01-\x7f])(?P<text>.+?)|\x00)(?:\x00|\x01" + _V + rb"\x01" + _N + _L + rb")",
    re.DOTALL,
)
_LARGEST = 2**53 - 1  # that a JavaScript number can hold
Range = tuple[int, int, int]
"""Client, and the clocks where its structs (or deletions) start and end."""


def is_keystroke(update: bytes) -> bool:
    """Say whether an update is one of the simple shapes that typing makes, complete and valid; False proves nothing."""
    if len(update) > 200:
        return False
    found = _KEYSTROKE.fullmatch(update)
    if found is None:
        return False
    client, clock, left, left_at, right, right_at, side, side_at, length, text = found.groups()
    if text is None:
        return True
    if length[0] != len(text) or not (text.isascii() or _decodes(text)):
        return False
    # Beside what the same client wrote earlier, or what another did.
    return (
        (side != client or _less(side_at, clock))
        and (left != client or _less(left_at, clock))
        and (right != client or _less(right_at, clock))
    )


def _less(one: bytes, other: bytes) -> bool:
    """Compare two numbers that are written as short as they can be."""
    return (len(one), one[::-1]) < (len(other), other[::-1])


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


def check(update: bytes) -> None:
    """Walk an update that somebody sent, and refuse what only some decoders take.

    Raises:
        IndexError, ValueError: a browser that is sent this would throw, whoever it belongs to.
    """
    walk = _Walk(update, strict=True)
    for _ in walk.structs():
        pass
    walk.deletions()


def _no_json(name: str) -> None:
    raise ValueError(name)


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

    __slots__ = ("_data", "_strict", "at")

    def __init__(self, data: bytes, *, strict: bool = False) -> None:
        self._data = data
        self._strict = strict
        self.at = 0

    def uint(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > _LARGEST:
                    raise ValueError
                return value
            shift += 7
            if shift > 49:
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
                start, length = self.uint(), self.uint()
                if self._strict and not length:
                    raise ValueError  # where it has to wait, Yjs cannot write it down
                found.append((client, start, start + length))
        return found

    def _struct(self, client: int, clock: int) -> Struct:
        start = self.at
        info = self._data[start]
        self.at += 1
        kind = info & 0x1F
        if kind in (0, 10):  # collected, or skipped
            length = self.uint()
            if self._strict and not length:
                raise ValueError
            return Struct(client, clock, length, start, self.at, kind, (), -1)
        needs = [(self.uint(), self.uint()) for side in (0x80, 0x40) if info & side]
        if not info & 0xC0:
            if self.uint() == 1:
                self._skip(self.uint())  # the root's name
            else:
                needs.append((self.uint(), self.uint()))
            if info & 0x20:
                self._skip(self.uint())  # the key
        if self._strict and any(of == client and at >= clock for of, at in needs):
            raise ValueError  # beside or in itself, or what the same client writes later
        text = self.at if kind == 4 else -1
        length = self._content(kind)
        if self._strict and not length:
            raise ValueError
        return Struct(client, clock, length, start, self.at, kind, tuple(needs), text)

    def _content(self, kind: int) -> int:
        """Walk a content; returns how many clocks it takes."""
        match kind:
            case 1:  # deleted
                return self.uint()
            case 2:  # JSON
                count = self.uint()
                for _ in range(count):
                    self._json()
                return count
            case 4:  # string
                size = self.uint()
                self._skip(size)
                text = self._data[self.at - size : self.at]
                return size if text.isascii() else len(text.decode().encode("utf-16-le")) // 2
            case 3:  # bytes
                self._skip(self.uint())
            case 5:  # embed
                self._json()
            case 6:  # format: name and value
                self._skip(self.uint())
                self._json()
            case 7:  # a shared type; XML elements and hooks have a name
                kind = self.uint()
                if kind in (3, 5):
                    self._skip(self.uint())
                if self._strict and (kind == 5 or kind > 6):
                    raise ValueError  # hooks are not written by yrs as they are read
            case 8:  # values
                count = self.uint()
                self._values(count)
                return count
            case 9:  # a document: its id and options
                self._skip(self.uint())
                if self._strict and self._data[self.at] != 118:
                    raise ValueError  # no object
                self._values(1)
            case _:
                raise ValueError
        return 1

    def _json(self) -> None:
        size = self.uint()
        self._skip(size)
        text = self._data[self.at - size : self.at]
        if self._strict and text != b"undefined":
            json.loads(text.decode(), parse_constant=_no_json)

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
