"""A document socket below Starlette: frames straight from and to the transport.

Theory of operation. uvicorn makes a `LineProtocol` for each WebSocket. The handshake and who may come in are an
ordinary ASGI endpoint's work. Then the endpoint calls `take_over` and ends: from there on, messages are given to a
receiver synchronously, and what it writes goes to the transport in one call, already framed. So a connection costs no
task and a delivered edit no trip through ASGI.

Only what clients nearly always send is read here: whole, masked, binary frames. Everything else (fragments, text,
pings, closing, what breaks the protocol) is passed on, frame by frame, to the `websockets` library below uvicorn's
class, which answers it. This module is the only one that knows uvicorn's insides; its tests pin them. Under another
server, `AsgiLine` does the same through ASGI.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import Any, Protocol, cast

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState

try:
    from websockets.speedups import apply_mask
except ImportError:  # no C compiler's work for this platform
    from websockets.utils import apply_mask

logger = structlog.get_logger(__name__)
EXTENSION = "atelier.line"
HIGH_WATER = 512 * 1024  # bytes that may wait in the transport before the receiver is told to pause
_BINARY = 0x82  # whole and binary
_HEADS = [bytes((_BINARY, size)) for size in range(126)]
_CLOSE_SECONDS = 5.0
_DIRECT_SECONDS = 0.05
PING = b"\x89\x00"


class Receiver(Protocol):
    """Whoever a line's messages are for; called on the event loop, must not block."""

    def message(self, data: bytes) -> None: ...

    def text(self) -> None:
        """A text message came."""
        ...

    def alive(self) -> None:
        """Something below the messages came, such as a pong."""
        ...

    def paused(self) -> None:
        """More waits in the transport than is good."""
        ...

    def drained(self) -> None:
        """The transport has room again."""
        ...

    def ended(self) -> None:
        """The connection is gone; nothing comes after this."""
        ...


class Line(Protocol):
    """Where frames go."""

    def write(self, frames: list[bytes]) -> None:
        """Send frames (with their WebSocket headers) in one write."""
        ...

    def waiting(self) -> int:
        """Return how many bytes have been written and not yet taken by the operating system."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Say goodbye; what was written before still goes out."""
        ...

    def abort(self) -> None:
        """End the connection at once."""
        ...

    def hold(self, held: bool) -> None:
        """Stop or go on reading from the peer."""
        ...


def framed(message: bytes) -> bytes:
    """Put a WebSocket header before a binary message."""
    size = len(message)
    if size < 126:
        return _HEADS[size] + message
    if size < 65_536:
        return bytes((_BINARY, 126)) + size.to_bytes(2) + message
    return bytes((_BINARY, 127)) + size.to_bytes(8) + message


class LineProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, which an endpoint may take over."""

    _receiver: Receiver | None = None
    _rest = b""
    _parts: list[bytes] | None = None
    _lacking = 0
    _direct = False  # whether the socket is written to past the transport, in which nothing waits then
    _handle = -1
    _inside = False  # a message in fragments is being read

    def handle_connect(self, event: Any) -> None:
        """Offer the take-over to the endpoint."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            cast("dict[str, Any]", self.scope["extensions"])[EXTENSION] = self

    def take_over(self, receiver: Receiver) -> None:
        """Give everything that comes from now on to `receiver`; the endpoint should end."""
        self.stop_keepalive()
        self.close_timer = cast(
            "Any", _Held()
        )  # uvicorn closes when the endpoint ends, unless it waits for a close
        self._receiver = receiver
        self._handle = self.transport.get_extra_info("socket").fileno()
        self.loop.call_later(_DIRECT_SECONDS, self._be_direct)
        self.transport.set_write_buffer_limits(high=HIGH_WATER, low=HIGH_WATER // 4)
        while not self.queue.empty():
            event = self.queue.get_nowait()
            if event["type"] == "websocket.receive":
                self._deliver(cast("Any", event).get("bytes"))
            elif event["type"] == "websocket.disconnect":
                self._end()
                return
        # What only the handshake and ASGI needed is most of what a connection takes.
        self.queue = self.writable = cast("Any", _NOWHERE)
        self.scope = cast("Any", {})
        self.response = cast("Any", None)
        if self.disconnected:
            self._end()
        elif self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    # --- in -----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Cut into frames; whole binary ones are delivered, others are left to the library."""
        receiver = self._receiver
        if receiver is None or self.conn.parser_exc is not None:
            super().data_received(data)
            return
        if self._parts is not None:
            self._parts.append(data)
            self._lacking -= len(data)
            if self._lacking > 0:
                return
            data = b"".join(self._parts)
            self._parts = None
        at, size, lacking = 0, len(data), 1
        while size - at >= 6:
            length = data[at + 1] & 0x7F
            start = at + 6
            if length == 126:
                length = data[at + 2] << 8 | data[at + 3]
                start = at + 8
            elif length == 127:
                if size - at < 14:
                    break
                length = int.from_bytes(data[at + 2 : at + 10])
                start = at + 14
            if data[at + 1] < 0x80 or length > self.config.ws_max_size:
                self._unusual(data[at:])
                return
            end = start + length
            if end > size:
                lacking = end - size
                break
            if data[at] == _BINARY and not self._inside:
                if self.close_sent:
                    pass
                elif length:
                    self._deliver(apply_mask(data[start:end], data[start - 4 : start]))
                else:
                    self._deliver(b"")
            else:
                opcode = data[at] & 0x0F
                if opcode < 8:
                    self._inside = data[at] < 0x80
                self._unusual(data[at:end])
                if self.conn.parser_exc is not None or self.transport.is_closing():
                    return
            at = end
        if size - at >= 2 and data[at + 1] < 0x80:
            self._unusual(data[at:])  # not masked: there may be no more to wait for
        elif at < size:
            self._parts = [data[at:]]
            self._lacking = lacking

    def _unusual(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.alive()
        super().data_received(data)

    def _deliver(self, data: bytes | None) -> None:
        receiver = self._receiver
        if receiver is None:
            return
        try:
            if data is None:
                receiver.text()
            else:
                receiver.message(data)
        except Exception:
            logger.exception("a message could not be handled")
            self.close(1011, "something went wrong here; connect again")

    def send_receive_event_to_app(self) -> None:
        """Deliver what the library has put together."""
        if self._receiver is None:
            super().send_receive_event_to_app()
            return
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if not self.close_sent:
            self._deliver(bytes(data) if self.curr_msg_data_type == "bytes" else None)

    def pause_writing(self) -> None:
        """Tell the receiver to hold back."""
        super().pause_writing()
        if self._receiver is not None:
            self._receiver.paused()

    def resume_writing(self) -> None:
        """Tell the receiver to go on."""
        super().resume_writing()
        if self._receiver is not None:
            self._receiver.drained()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the receiver."""
        super().connection_lost(exc)
        self._end()

    def _end(self) -> None:
        receiver, self._receiver = self._receiver, None
        self._parts = None
        if receiver is not None:
            receiver.ended()

    # --- out ----------------------------------------------------------------------------------------------------

    def write(self, frames: list[bytes]) -> None:
        """Send frames in one write."""
        if self.close_sent or self.transport.is_closing():
            return
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        if self._direct and not self.transport.get_write_buffer_size():
            try:
                sent = os.write(self._handle, data)
            except OSError:  # full, or gone: the transport finds out which
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
            self._direct = False
            self.loop.call_later(_DIRECT_SECONDS, self._be_direct)
        self.transport.write(data)

    def _be_direct(self) -> None:
        """Write to the socket itself from here on, as soon as nothing waits in the transport."""
        if self.transport.is_closing() or self.close_sent:
            return
        self._direct = self.transport.get_write_buffer_size() == 0
        if not self._direct:
            self.loop.call_later(_DIRECT_SECONDS, self._be_direct)

    def waiting(self) -> int:
        """Return how many bytes wait in the transport."""
        return self.transport.get_write_buffer_size()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame; the peer has five seconds to answer it."""
        if self.close_sent or self.transport.is_closing():
            return
        self._direct = False
        try:
            self.conn.send_close(code, reason)
        except InvalidState:
            self.transport.close()
            return
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.resume_reading()
        self.close_timer = self.loop.call_later(_CLOSE_SECONDS, self.transport.abort)

    def abort(self) -> None:
        """End the connection at once."""
        self.transport.abort()

    def hold(self, held: bool) -> None:
        """Stop or go on reading."""
        if self.transport.is_closing():
            return
        if held:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()


class _Held:
    """Stands where uvicorn keeps the timer of a close that it waits for."""

    def cancel(self) -> None:
        """Nothing to stop."""


class _Nowhere:
    """Stands where uvicorn tells the endpoint something, once there is none."""

    def put_nowait(self, event: object) -> None: ...

    def set(self) -> None: ...

    def clear(self) -> None: ...


_NOWHERE = _Nowhere()


class AsgiLine:
    """The same over plain ASGI: one task sends, the endpoint's own task receives."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._ready = asyncio.Event()
        self._closing: tuple[int, str] | None = None
        self._paused = False
        self._receiver: Receiver | None = None

    def write(self, frames: list[bytes]) -> None:
        """Queue frames."""
        for frame in frames:
            self._queue.append(frame)
            self._size += len(frame)
        self._ready.set()
        if self._size > HIGH_WATER and not self._paused and self._receiver is not None:
            self._paused = True
            self._receiver.paused()

    def waiting(self) -> int:
        """Return how many bytes wait here."""
        return self._size

    def close(self, code: int, reason: str) -> None:
        """Close once what waits has gone out."""
        if self._closing is None:
            self._closing = (code, reason)
            self._ready.set()

    def abort(self) -> None:
        """Drop what waits and close."""
        self._queue.clear()
        self.close(1013, "")

    def hold(self, held: bool) -> None:
        """Reading goes on: ASGI servers hold it back by themselves."""

    async def run(self, receiver: Receiver) -> None:
        """Serve until the connection ends."""
        self._receiver = receiver
        sender = asyncio.create_task(self._send(), name="socket-sender")
        listener = asyncio.create_task(self._listen(receiver), name="socket-listener")
        try:
            await asyncio.wait([sender, listener], return_when=asyncio.FIRST_COMPLETED)
        finally:
            receiver.ended()
            for task in (sender, listener):
                task.cancel()
            for result in await asyncio.gather(sender, listener, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result

    async def _listen(self, receiver: Receiver) -> None:
        while True:
            event = await self._socket.receive()
            if event["type"] == "websocket.disconnect":
                return
            if self._closing is not None:
                continue
            data = event.get("bytes")
            if data is None:
                receiver.text()
            else:
                receiver.message(bytes(data))

    async def _send(self) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            try:
                while self._queue:
                    frame = self._queue.popleft()
                    for message in unframed(frame):
                        await self._socket.send_bytes(message)
                    self._size -= len(frame)
                if self._paused and self._receiver is not None:
                    self._paused = False
                    self._receiver.drained()
                if self._closing is not None and not self._queue:
                    await self._socket.close(*self._closing)
                    return
            except (WebSocketDisconnect, RuntimeError):
                return  # the connection ended; the listener notices by itself


def unframed(data: bytes) -> list[bytes]:
    """Undo `framed`; several frames may stand behind each other."""
    found = []
    at = 0
    while at < len(data):
        size, start = data[at + 1], at + 2
        if size == 126:
            size, start = int.from_bytes(data[start : start + 2]), start + 2
        elif size == 127:
            size, start = int.from_bytes(data[start : start + 8]), start + 8
        if data[at] == _BINARY:  # a ping is the server's own business here
            found.append(data[start : start + size])
        at = start + size
    return found
