"""The bounded queue between a run and whoever reads its events.

Overflow policy: the writer waits, so the agent stops reading and the program blocks on its output. Once the run is
being ended the writer no longer waits: what is above the bound is dropped, since the program is dead or about to be.
Files come after all output, and for them the writer waits even then, until nobody is to read them any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from atelier_runner.model import CellEvent, Changed, Event, Exited, Looked, Output, Started

BOUND = 256 * 1024
"""Bytes waiting to be read."""
JOINED = 64 * 1024
"""Waiting output of one stream is joined up to this size."""
PIECES = 256
"""Pieces waiting; beyond it output joins the last piece of its stream, so that a program which alternates between its
streams byte by byte makes few events. The order between the two streams is then only rough; within each it is exact."""


@dataclass(slots=True, eq=False)
class _Piece:
    stream: str
    data: bytearray
    cell: int


class Outbox:
    """One writer, one reader; numbers the events as they are read."""

    def __init__(self) -> None:
        self._waiting: deque[_Piece | Started | Changed | Looked | CellEvent] = deque()
        self._last: dict[tuple[str, int], _Piece] = {}
        """The newest waiting piece of each stream, of each cell."""
        self._size = 0
        self._exited: Exited | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._open = True
        self._wanted = True

    def started(self, version: str) -> None:
        """Queue the word that the program begins."""
        self._waiting.append(Started(0, version))
        self._readable.set()

    async def output(self, stream: str, data: bytes, cell: int = 0) -> None:
        """Queue output; waits while the queue is full."""
        while self._open and self._size >= BOUND:
            self._writable.clear()
            await self._writable.wait()
        if self._size >= BOUND:
            return
        last = self._last.get((stream, cell))
        joins = last is not None and (self._waiting[-1] is last or len(self._waiting) >= PIECES)
        if last is not None and joins and len(last.data) + len(data) <= JOINED:
            last.data.extend(data)
        else:
            self._last[stream, cell] = piece = _Piece(stream, bytearray(data), cell)
            self._waiting.append(piece)
        self._size += len(data)
        self._readable.set()

    async def changed(self, path: str, data: bytes | None) -> bool:
        """Queue a file; waits while the queue is full. False: `no_more_files` was said, and it is dropped."""
        while self._wanted and self._size >= BOUND:
            self._writable.clear()
            await self._writable.wait()
        if self._wanted:
            self._waiting.append(Changed(0, path, data))
            self._size += len(data or b"")
            self._readable.set()
        return self._wanted

    async def room(self) -> None:
        """Wait while the queue is full, and the run goes on."""
        while self._open and self._size >= BOUND:
            self._writable.clear()
            await self._writable.wait()

    def add(self, event: CellEvent) -> None:
        """Queue an event about a cell."""
        self._waiting.append(event)
        self._size += len(getattr(event, "data", b""))
        self._readable.set()

    def looked(self) -> None:
        """Queue the word that all files which had changed have been queued."""
        self._waiting.append(Looked(0))
        self._readable.set()

    def no_more_files(self) -> None:
        """Let the writer through: nobody waits for files any more."""
        self._wanted = False
        self._writable.set()

    def stop_waiting(self) -> None:
        """Let the writer through from now on: the run is being ended."""
        self._open = False
        self._writable.set()

    def exited(self, event: Exited) -> None:
        """Queue the last event; its number is set when it is read."""
        self.stop_waiting()
        self._exited = event
        self._readable.set()

    async def read(self) -> AsyncIterator[Event]:
        """Yield every event, in order; ends after `Exited`."""
        seq = 0
        while True:
            await self._readable.wait()
            while self._waiting:
                seq += 1
                item = self._waiting.popleft()
                if isinstance(item, _Piece):
                    if self._last.get((item.stream, item.cell)) is item:
                        del self._last[item.stream, item.cell]
                    self._size -= len(item.data)
                else:
                    self._size -= len(getattr(item, "data", None) or b"")
                self._writable.set()
                yield (
                    Output(seq, item.stream, bytes(item.data), item.cell)
                    if isinstance(item, _Piece)
                    else replace(item, seq=seq)
                )
            if self._exited is not None and not self._waiting:
                yield replace(self._exited, seq=seq + 1)
                return
            if not self._waiting:
                self._readable.clear()
