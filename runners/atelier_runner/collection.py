"""Takes in the files that a program wrote, as the agent sends them. All of it is untrusted and bounded before it is kept.

The agent looks at the files where they are; this side believes nothing of what it says: a path is checked like one
that a person gives, sizes and counts are held against what was allowed, and whatever does not fit ends the collection,
never more. One file at a time is put together here; whole ones are handed on.
"""

from __future__ import annotations

import io
import struct
from asyncio import StreamReader
from collections.abc import Awaitable, Callable
from typing import Any

from atelier_runner import frames
from atelier_runner.errors import SpecInvalid
from atelier_runner.model import PATH_BYTES, Collect, Collected, LeftOut, check_path

CODES = frozenset(
    ("link", "hard_link", "special", "name", "unreadable", "too_large", "too_many", "too_much", "too_deep")
)
NAMED = 50
HEAD = struct.Struct(">HQ")
Emit = Callable[[str, bytes | None], Awaitable[bool]]
"""Takes a whole file, or None for one that is gone; says whether more are wanted."""


class Collection:
    """What has changed at one moment; `summary` says how far it came. `known` are the paths that are there, kept up to date."""

    def __init__(self, known: set[str], wanted: Collect, emit: Emit) -> None:
        self._known, self._wanted, self._emit = known, wanted, emit
        self._seen: set[str] = set()
        self._files, self._bytes = wanted.files, wanted.total_bytes
        self._name, self._left = "", 0
        self._data = io.BytesIO()  # hands its buffer on without a copy
        self.summary = Collected(complete=False)

    async def take(self, reader: StreamReader) -> None:
        """Read until the agent has said what it left out. Raises as `add`."""
        while (frame := await frames.read(reader)) is not None:
            if await self.add(*frame):
                return

    async def add(self, kind: int, payload: bytes) -> bool:
        """Take the next frame; says whether it was the last that is wanted.

        Raises:
            BadFrame: what came makes no sense, or is more than was allowed.
        """
        if self._left and kind != frames.ADDED:
            raise frames.BadFrame("a file ended before its size")
        if kind == frames.CHANGED:
            self._name, size, first = self._begun(payload)
            self._data = io.BytesIO()
            self._data.write(first)
            self._left = size - len(first)
        elif kind == frames.ADDED and 0 < len(payload) <= self._left:
            self._data.write(payload)
            self._left -= len(payload)
        elif kind == frames.DELETED:
            return not await self._emit(self._deleted(payload), None)
        elif kind == frames.LEFT_OUT:
            self.summary = summary_of(frames.json_object(payload))
            return True
        else:
            raise frames.BadFrame(f"a frame of kind {kind} came among the files")
        if self._left:
            return False
        data = self._data.getvalue()
        self._data = io.BytesIO()
        self._known.add(self._name)
        return not await self._emit(self._name, data)

    def _begun(self, payload: bytes) -> tuple[str, int, bytes]:
        if len(payload) < HEAD.size:
            raise frames.BadFrame("a file came without a name and a size")
        length, size = HEAD.unpack_from(payload)
        start = HEAD.size + length
        path = self._path(payload[HEAD.size : start])
        first = payload[start:]
        self._files -= 1
        self._bytes -= size
        if self._files < 0 or self._bytes < 0 or size > self._wanted.file_bytes or len(first) > size:
            raise frames.BadFrame("more came than was allowed")
        if size and not first:
            raise frames.BadFrame("a file came without its first bytes")
        return path, size, first

    def _deleted(self, payload: bytes) -> str:
        path = self._path(payload)
        if path not in self._known:
            raise frames.BadFrame("a file is gone that was never there")
        self._known.discard(path)
        return path

    def _path(self, raw: bytes) -> str:
        try:
            path = raw.decode()
            check_path(path)
        except (UnicodeDecodeError, SpecInvalid) as error:
            raise frames.BadFrame("a file came with a path that is none") from error
        if path in self._seen:
            raise frames.BadFrame("a file came twice")
        self._seen.add(path)
        return path


def summary_of(said: dict[str, Any]) -> Collected:
    """Read what the agent says it left out; what makes no sense is not repeated."""
    listed, count = said.get("left_out"), said.get("count")
    left_out = tuple(
        LeftOut(item[0][:PATH_BYTES], item[1])
        for item in (listed if isinstance(listed, list) else [])[:NAMED]
        if isinstance(item, list)
        and len(item) == 2
        and isinstance(item[0], str)
        and isinstance(item[1], str)
        and item[1] in CODES
    )
    most = count if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 1 << 31 else 0
    return Collected(complete=True, left_out=left_out, count=max(most, len(left_out)))
