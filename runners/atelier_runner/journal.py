"""A run's events for a reader who may lose its line: numbered, kept until confirmed, told again from any number.

One writer, one reader at a time; a new reader takes the place of the old one, whose line may be dead without either
side knowing. What is bounded is what the reader has not confirmed (WINDOW). When that is full and a reader is there,
however slow, the writer waits, and so in the end does the program. When nobody is there the writer waits too, for the
reader will come back and must find everything; unless the journal is not to wait for the absent (`waits`): then the run
goes on, head and tail of its output are kept, and a `Cut` in between says how much is gone. Confirmed events stay as
long as there is room, so that a reader may begin anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from itertools import chain

from atelier_runner.errors import EventsGone, ReaderReplaced
from atelier_runner.model import Event, Exited, Output
from atelier_runner.wire import Cut, Told

WINDOW = 256 * 1024
"""Bytes that are not confirmed; and, while nobody reads, of the head and of the tail."""
KEPT = 512 * 1024
"""Bytes that are kept altogether, as long as what is not confirmed leaves room."""
OVERHEAD = 64
"""What an event counts beside its data."""


class Journal:
    """See the module."""

    def __init__(self, *, waits: bool) -> None:
        self._waits = waits
        self._finishing = False
        self._head: deque[Told] = deque()
        self._cut: Cut | None = None
        self._tail: deque[Told] = deque()
        self._tail_size = 0
        self._kept = 0
        self._confirmed = 0
        self._open = 0
        """Bytes that are not confirmed."""
        self._last = 0
        self._forgotten = 0
        """Up to which number events have been dropped because they were confirmed."""
        self._reader = 0
        self._present = False
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()

    @property
    def confirmed(self) -> int:
        """The number up to which the reader has everything."""
        return self._confirmed

    def finish(self) -> None:
        """Take what is still on its way without waiting: the run has been ended, so that is bounded."""
        self._finishing = True
        self._writable.set()

    async def append(self, event: Event) -> None:
        """Add an event; waits as the module says, but never with the last one."""
        while self._open >= WINDOW and not self._finishing and not isinstance(event, Exited):
            if not self._present and not self._waits:
                break
            self._writable.clear()
            await self._writable.wait()
        size = _size(event)
        if self._tail or self._cut or self._open >= WINDOW:
            self._tail.append(event)
            self._tail_size += size
        else:
            self._head.append(event)
        self._last = event.seq
        self._kept += size
        self._open += size
        if not self._present and not self._waits and not self._finishing:
            self._shorten()
        self._forget()
        self._readable.set()

    def _shorten(self) -> None:
        """Drop the oldest output of a tail that has become too long."""
        while self._tail_size > WINDOW and isinstance(oldest := self._tail[0], Output):
            self._tail.popleft()
            if self._cut is None:
                self._cut = Cut(oldest.seq, 0)
                self._kept += OVERHEAD
                self._open += OVERHEAD
            self._cut = Cut(oldest.seq, self._cut.size + len(oldest.data))
            self._tail_size -= _size(oldest)
            self._kept -= _size(oldest)
            self._open -= _size(oldest)

    def confirm(self, seq: int) -> None:
        """Take note that the reader has everything up to a number."""
        if seq <= self._confirmed:
            return
        self._open -= sum(_size(event) for event in self._after(self._confirmed) if event.seq <= seq)
        self._confirmed = min(seq, self._last)
        if self._cut is None or self._cut.seq <= self._confirmed:
            self._join()
        self._forget()
        if self._open < WINDOW:
            self._writable.set()

    def _join(self) -> None:
        """Go on with one piece, now that the reader has what was before the cut."""
        if self._cut is not None:
            self._forgotten = self._cut.seq
            self._kept -= sum(map(_size, self._head)) + OVERHEAD
            self._head.clear()
            self._cut = None
        self._head.extend(self._tail)
        self._tail.clear()
        self._tail_size = 0

    def _forget(self) -> None:
        """Drop what is confirmed, the oldest first, as far as the room is needed."""
        while self._kept > KEPT and self._head and self._head[0].seq <= self._confirmed:
            oldest = self._head.popleft()
            self._forgotten = oldest.seq
            self._kept -= _size(oldest)

    def _after(self, seq: int) -> Iterator[Told]:
        """Return what follows a number, in order; as costly as that is long."""
        found: list[Told] = []
        for event in chain(reversed(self._tail), [self._cut] if self._cut else [], reversed(self._head)):
            if event.seq <= seq:
                break
            found.append(event)
        return reversed(found)

    def check(self, after: int) -> None:
        """Raise EventsGone unless reading can begin after a number."""
        if not self._forgotten <= after <= self._last:
            raise EventsGone(
                f"Events after {after} are not there; those after {self._forgotten}, up to {self._last}, are."
            )

    async def read(self, after: int) -> AsyncGenerator[Told, None]:
        """Yield what follows a number, which thereby is confirmed; ends after `Exited`.

        Raises:
            EventsGone: it is not kept any more, or has never been.
            ReaderReplaced: somebody else reads now.
        """
        self.check(after)
        self._reader += 1
        own, self._present = self._reader, True
        self._readable.set()  # the one before is to notice
        self.confirm(after)
        self._writable.set()
        try:
            while True:
                for event in self._after(after):
                    yield event
                    if self._reader != own:
                        raise ReaderReplaced("Somebody else reads these events now.")
                    after = event.seq
                    if isinstance(event, Exited):
                        return
                self._readable.clear()
                if self._last <= after:
                    await self._readable.wait()
                if self._reader != own:
                    self._readable.set()
                    raise ReaderReplaced("Somebody else reads these events now.")
        finally:
            if self._reader == own:
                self._present = False
                self._writable.set()


def _size(event: Told) -> int:
    return OVERHEAD + len(getattr(event, "data", None) or b"")
