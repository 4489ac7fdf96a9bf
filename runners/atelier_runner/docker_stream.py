"""The connection to a container's standard streams, in the event loop.

Inwards it carries bytes as they are. Outwards the engine puts a header before each piece: the stream, then the length. The
agent's frames come on standard output; a reader that is full stops the connection, and so the program. Standard error is the
agent's own, for the words of a failed start: a program that finds it and floods it loses its connection.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import Final

from atelier_runner import frames

HEADER: Final = struct.Struct(">BxxxI")
STDOUT, STDERR = 1, 2
KEPT = 4096
MOST_NOISE = 256 * 1024
"""Bytes that are no frames."""


class Demultiplexer(asyncio.StreamReaderProtocol):
    """Takes the engine's headers off: what the agent sent goes to the reader, what it said on standard error is kept."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self._wire: asyncio.BaseTransport | None = None
        self._head = b""
        self._left = 0
        self._stream = STDOUT
        self._noise = 0
        self.said = b""
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, to end it."""
        self._wire = transport
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Split one piece; it may end anywhere. A piece of an unknown stream is left out."""
        view = memoryview(data)
        while view:
            if not self._left:
                take = HEADER.size - len(self._head)
                self._head += view[:take]
                view = view[take:]
                if len(self._head) == HEADER.size:
                    self._stream, self._left = HEADER.unpack(self._head)
                    self._head = b""
                continue
            part, view = view[: self._left], view[self._left :]
            self._left -= len(part)
            if self._stream == STDOUT:
                super().data_received(bytes(part))
            else:
                self._hear(part)

    def _hear(self, part: memoryview) -> None:
        if self._stream == STDERR and len(self.said) < KEPT:
            self.said += part[: KEPT - len(self.said)]
        self._noise += len(part)
        if self._noise > MOST_NOISE and self._wire is not None:
            self._wire.close()

    def eof_received(self) -> bool | None:
        """The container has ended."""
        self.ended.set()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self.ended.set()
        super().connection_lost(exc)


@dataclass(frozen=True, slots=True)
class Line:
    """The connection to an agent."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    protocol: Demultiplexer


async def connect(connection: socket.socket) -> Line:
    """Take a connection into this event loop."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=frames.CHUNK)
    transport, protocol = await loop.create_unix_connection(lambda: Demultiplexer(reader), sock=connection)
    return Line(reader, asyncio.StreamWriter(transport, protocol, reader, loop), protocol)
