"""The WebSocket to a pod's standard streams as a reader and a writer, in the channel protocol v4 or v5 of Kubernetes.

Each message begins with the number of its channel: 0 standard input, 1 standard output, 2 standard error, 3 how it ended
(JSON), in v5 also 255, the end of one. v4 cannot close standard input alone; nothing here needs that, since the agent's
frames say where input ends. A reader that is full is not fed, the WebSocket is not read then, and so the program waits.
No answer to a ping is waited for: a container that takes no input holds up everything that is sent to it, pings too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

from atelier_runner import frames

STDIN, STDOUT, STDERR, ENDED, CLOSED = 0, 1, 2, 3, 255
KEPT: Final = 4096
MOST_NOISE: Final = 256 * 1024
"""Bytes that are no frames."""
PIECE: Final = 64 * 1024
HIGH: Final = 256 * 1024
"""Bytes that wait to be sent before a writer is asked to wait."""
PING_SECONDS: Final = 20.0
"""What stands between is not to take the connection for idle."""


class Line:
    """The connection to an agent. `ended` is set once nothing more can come."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        loop = asyncio.get_running_loop()
        self.reader = asyncio.StreamReader(limit=frames.CHUNK)
        self._protocol = asyncio.StreamReaderProtocol(self.reader)
        self._wire = _Wire(self.abort)
        self.writer = asyncio.StreamWriter(self._wire, self._protocol, self.reader, loop)
        self._protocol.connection_made(self._wire)
        self._wire.protocol = self._protocol
        self.ended = asyncio.Event()
        self.said = b""
        self.why = ""
        """What the server said about the end, or what broke."""
        self._noise = 0
        self._closed = False
        """Whether the server has said that the container ended."""
        self._tasks = [
            asyncio.create_task(self._receive(), name="pod-receive"),
            asyncio.create_task(self._send(), name="pod-send"),
            asyncio.create_task(self._ping(), name="pod-ping"),
        ]

    async def _receive(self) -> None:
        try:
            async for message in self._socket:
                data = message.data
                if not isinstance(data, bytes) or not data:
                    continue
                channel, payload = data[0], data[1:]
                if channel == STDOUT and payload:
                    self._protocol.data_received(payload)
                elif channel == STDERR:
                    self._hear(payload)
                elif channel == ENDED:
                    self._closed = True
                    self.why = str(frames.json_object(payload).get("message", ""))
                elif channel == CLOSED and payload[:1] == bytes([STDOUT]):
                    self._closed = True
                    break
                await self._wire.may_read.wait()
        except (OSError, RuntimeError) as error:
            self.why = str(error)
        finally:
            if not self._closed and not self.why:
                broke = self._socket.exception()
                self.why = str(broke or "") or f"it was closed ({self._socket.close_code})"
            self._end()

    def _hear(self, part: bytes) -> None:
        """Keep the words of a failed start; a program that finds that stream and floods it loses its connection."""
        self.said += part[: KEPT - len(self.said)]
        self._noise += len(part)
        if self._noise > MOST_NOISE:
            self.abort()

    async def _send(self) -> None:
        wire = self._wire
        with contextlib.suppress(OSError, RuntimeError):
            while True:
                await wire.has_more.wait()
                piece = bytes(wire.pending[:PIECE])
                await self._socket.send_bytes(bytes([STDIN]) + piece)
                wire.taken(len(piece))

    async def _ping(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            while True:
                await asyncio.sleep(PING_SECONDS)
                await self._socket.ping()

    def _end(self) -> None:
        if not self.ended.is_set():
            self.ended.set()
            self._protocol.eof_received()
            self._protocol.connection_lost(None)

    def abort(self) -> None:
        """Cut the connection: standard input ends, and with it the agent."""
        self._wire.closing = True
        # Closing properly waits for an answer, and for what has not been sent.
        connection = getattr(self._socket, "_conn", None)
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        self._wire.may_read.set()
        self._end()

    async def close(self) -> None:
        """Cut it, and leave no task behind."""
        self.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(OSError, RuntimeError):
            await self._socket.close()


class _Wire(asyncio.Transport):
    """What the stream classes of asyncio write to, and by which they stop reading."""

    def __init__(self, shut: Callable[[], None]) -> None:
        super().__init__()
        self._shut = shut
        self.protocol: asyncio.StreamReaderProtocol | None = None
        self.pending = bytearray()
        self.has_more = asyncio.Event()
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.closing = False
        self._full = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes to send; what comes after the end is left out."""
        if self.closing:
            return
        self.pending += data
        self.has_more.set()
        if len(self.pending) > HIGH and not self._full and self.protocol is not None:
            self._full = True
            self.protocol.pause_writing()

    def taken(self, count: int) -> None:
        """Take note that bytes have been sent."""
        del self.pending[:count]
        if not self.pending:
            self.has_more.clear()
        if self._full and len(self.pending) < HIGH // 2 and self.protocol is not None:
            self._full = False
            self.protocol.resume_writing()

    def pause_reading(self) -> None:
        """Stop."""
        self.may_read.clear()

    def resume_reading(self) -> None:
        """Go on."""
        self.may_read.set()

    def get_write_buffer_size(self) -> int:
        """Return how much waits."""
        return len(self.pending)

    def is_closing(self) -> bool:
        """Say whether it is cut."""
        return self.closing

    def close(self) -> None:
        """Cut it."""
        self.abort()

    def abort(self) -> None:
        """Cut it."""
        if not self.closing:
            self._shut()
