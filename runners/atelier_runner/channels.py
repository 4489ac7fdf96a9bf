"""Many connections over one agent's stream, each with a window in either direction.

What comes from the agent is taken in at once and never waited for: an agent that sends more than it was granted breaks
the protocol and loses its run, so what is held here is bounded by the windows. What goes to it waits for its window and for
the stream. So a program that does not read, or floods, holds up its own connection only, and never its output.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable
from typing import Final

from atelier_runner import frames

WINDOW: Final = 64 * 1024
"""Bytes of one connection that may be sent and not have been taken, each way."""
STDIN_WINDOW: Final = 1024 * 1024
"""The same of standard input: as much as an agent holds of it where there is no network."""
CONNECTIONS: Final = 64
"""Of one program at once; the agent lets the others wait."""
LINE: Final = 16 * 1024
"""Bytes that `read_until` looks through."""
_NUMBER: Final = struct.Struct(">I")
_BOTH: Final = struct.Struct(">II")


class Credit:
    """How much the other side takes at present."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._most = size
        self._open = True
        self._changed = asyncio.Event()

    async def take(self, most: int) -> int:
        """Wait until something is taken, and return how much of `most`; 0 once it is closed."""
        while self._open and not self._size:
            self._changed.clear()
            await self._changed.wait()
        count = min(most, self._size) if self._open else 0
        self._size -= count
        return count

    def give(self, count: int) -> None:
        """Let it take so much more, and never more than at the start."""
        self._size = min(self._most, self._size + count)
        self._changed.set()

    def close(self) -> None:
        """Let everybody through who waits: nothing more is taken."""
        self._open = False
        self._changed.set()


class Channel:
    """One connection of the program's. Reading and writing raise ConnectionResetError once it has broken."""

    def __init__(self, number: int, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self._writer = writer
        self._reader = asyncio.StreamReader(limit=LINE)
        self._granted = WINDOW
        self._consumed = 0
        self._credit = Credit(WINDOW)
        self._heard_end = False
        self._said_end = False
        self._broken = False

    async def read(self, most: int) -> bytes:
        """Return what the program has sent; nothing at its end."""
        data = await self._reader.read(most)
        await self._took(len(data))
        return data

    async def read_until(self, end: bytes) -> bytes:
        """Return what the program has sent up to and including `end`.

        Raises:
            IncompleteReadError: it ended before; LimitOverrunError: that would be more than LINE bytes.
        """
        data = await self._reader.readuntil(end)
        await self._took(len(data))
        return data

    async def _took(self, count: int) -> None:
        self._consumed += count
        if self._consumed * 2 >= WINDOW and not self._heard_end:
            granted, self._consumed = self._consumed, 0
            self._granted += granted
            await self._send(frames.CREDIT, _BOTH.pack(self.number, granted))

    async def write(self, data: bytes) -> None:
        """Send to the program; waits while it does not read."""
        view = memoryview(data)
        while view:
            count = await self._credit.take(len(view))
            if not count:
                raise ConnectionResetError("the program closed the connection")
            await self._send(frames.CARRIED, _NUMBER.pack(self.number) + view[:count])
            view = view[count:]

    async def end(self) -> None:
        """Tell the program that no more comes."""
        if not self._said_end:
            self._said_end = True
            await self._send(frames.ENDED, _NUMBER.pack(self.number))

    def take(self, kind: int, payload: bytes) -> None:
        """Take what the agent says of it. Raises BadFrame."""
        if kind == frames.CARRIED:
            if not payload or len(payload) > self._granted or self._heard_end:
                raise frames.BadFrame("the sandbox sent more on a connection than it may")
            self._granted -= len(payload)
            self._reader.feed_data(payload)
        elif kind == frames.CREDIT:
            if len(payload) != _NUMBER.size:
                raise frames.BadFrame("the sandbox took an amount that is none")
            self._credit.give(_NUMBER.unpack(payload)[0])
        elif kind == frames.ENDED:
            self._heard_end = True
            self._reader.feed_eof()
        else:
            self.broke()

    def broke(self) -> None:
        """Let whoever reads or writes know that it is gone."""
        self._broken = True
        self._credit.close()
        if self._reader.exception() is None:
            self._reader.set_exception(ConnectionResetError("the program closed the connection"))

    async def close(self) -> None:
        """Forget it, on the other side too."""
        if not self._broken and not (self._heard_end and self._said_end):
            await self._send(frames.BROKEN, _NUMBER.pack(self.number))

    async def _send(self, kind: int, payload: bytes) -> None:
        self._writer.write(frames.encode(kind, payload))
        await self._writer.drain()


class Channels:
    """The connections of one program; `serve` has each, until it returns."""

    def __init__(self, writer: asyncio.StreamWriter, serve: Callable[[Channel], Awaitable[None]]) -> None:
        self._writer = writer
        self._serve = serve
        self._last = 0
        self._open: dict[int, Channel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.stdin = Credit(STDIN_WINDOW)
        """What the program takes of its standard input."""

    def take(self, kind: int, payload: bytes) -> None:
        """Take a frame; never waits. Raises BadFrame."""
        if len(payload) < _NUMBER.size:
            raise frames.BadFrame("the sandbox did not say which connection it means")
        number = _NUMBER.unpack_from(payload)[0]
        if kind == frames.CONNECTED:
            # What has ended there may not have ended here.
            if number <= self._last or len(self._tasks) >= 2 * CONNECTIONS:
                raise frames.BadFrame("the sandbox opened a connection that it may not")
            self._last = number
            self._open[number] = channel = Channel(number, self._writer)
            task = asyncio.create_task(self._drive(channel), name=f"connection {number}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif number == 0 and kind == frames.CREDIT and len(payload) == _BOTH.size:
            self.stdin.give(_BOTH.unpack(payload)[1])
        elif (found := self._open.get(number)) is not None:
            found.take(kind, payload[_NUMBER.size :])
        elif not 0 < number <= self._last:
            raise frames.BadFrame("the sandbox speaks of a connection that never was")

    async def _drive(self, channel: Channel) -> None:
        try:
            with contextlib.suppress(OSError, RuntimeError):  # the latter of a stream that has been closed
                await self._serve(channel)
        finally:
            del self._open[channel.number]
            with contextlib.suppress(OSError, RuntimeError):
                await channel.close()

    async def close(self) -> None:
        """End them all."""
        self.stdin.close()
        for channel in self._open.values():
            channel.broke()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
