"""A TCP line that can be cut, held, or made slow: what lies between two parts when things go wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FaultyLine:
    """Passes connections on to a port of this machine."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.delay = 0.0
        """Seconds that each piece is late."""
        self.connections = 0
        """How many were passed on so far."""
        self._open = asyncio.Event()
        self._open.set()
        self._under_way = 0
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def hold(self, held: bool) -> None:
        """Pass nothing on, as a network that swallows everything; or go on."""
        if held:
            self._open.clear()
        else:
            self._open.set()

    def refuse(self, refused: bool) -> None:
        """Take no connections, and end those that are there."""
        self._refusing = refused
        if refused:
            self.cut()

    async def drained(self) -> None:
        """Be fast from now on, and wait until what was under way has arrived, also of whoever has gone since."""
        self.delay = 0.0
        self.hold(False)
        quiet = 0
        while quiet < 5:
            quiet = 0 if self._under_way else quiet + 1
            await asyncio.sleep(0.01)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        both = (writer, far_writer)
        self._writers.update(both)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._pass(source, sink, both))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, both: tuple[asyncio.StreamWriter, ...]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(64 * 1024):
                self._under_way += 1
                try:
                    if self.delay:
                        await asyncio.sleep(self.delay)
                    await self._open.wait()
                    sink.write(data)
                    await sink.drain()
                finally:
                    self._under_way -= 1
        for writer in both:
            self._writers.discard(writer)
            writer.transport.abort()

    async def close(self) -> None:
        """End everything."""
        self.cut()
        self._open.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def faulty_line(target: int) -> AsyncIterator[FaultyLine]:
    """Open a line to a port."""
    line = FaultyLine(target)
    server = await asyncio.start_server(line._take, "127.0.0.1", 0)
    line.port = int(server.sockets[0].getsockname()[1])
    try:
        yield line
    finally:
        server.close()
        await line.close()
