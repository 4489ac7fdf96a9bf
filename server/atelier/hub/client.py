"""One document socket: a bounded outbox and the one task that sends from it.

What waits is counted in bytes. When it is too much, the waiting edits are dropped and each of the client's rooms is
asked to replay from the last position that really went out; nothing is lost, since the log has it. A client that takes
nothing for 30 s is closed.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from atelier.auth import Caller, Role
from atelier.errors import AtelierError
from atelier.hub import metrics
from atelier.hub.presence import Identity
from atelier.hub.protocol import QUERY_AWARENESS_FRAME, uint

if TYPE_CHECKING:
    from atelier.hub.room import Room

STALLED_SECONDS = 30.0
SILENT_SECONDS = 8.0
GOING_AWAY = 1012


@dataclass(slots=True, eq=False)
class Seat:
    """A client's place in one room."""

    client: Client
    room: Room
    prefix: bytes
    """The document's name as a length and bytes, in the Hocuspocus dialect; empty in y-websocket's."""
    sent: int = 0
    """The log position up to which everything has gone out."""
    backlog: list[tuple[int, bytes]] | None = field(default_factory=list)
    """Edits that arrived while the document was being loaded for this seat; None once it is live."""

    @property
    def hocuspocus(self) -> bool:
        return bool(self.prefix)

    def push(self, body: bytes, *, position: int = 0) -> None:
        """Queue a frame's body."""
        self.client.push(self.prefix + body, self, position)


class Client:
    """A connection of one person, in one dialect, to one or many documents."""

    def __init__(self, socket: WebSocket, caller: Caller, role: Role, *, queue_bytes: int) -> None:
        self.caller, self.role = caller, role
        self.identity = Identity(caller.user_id, caller.display_name)
        self.seats: dict[str, Seat] = {}
        self._socket = socket
        self._most = queue_bytes
        self._queue: deque[tuple[bytes, Seat | None, int]] = deque()
        self._waiting = 0
        self._ready = asyncio.Event()
        self._behind: set[Seat] = set()
        self._closing: tuple[int, str] | None = None
        self._pinged: float | None = None

    def ping(self) -> None:
        """Note that the client asked whether we are there; clients that do so do it every few seconds."""
        if self.silent:
            for seat in self.seats.values():
                seat.push(QUERY_AWARENESS_FRAME)  # its presence was taken for gone
        self._pinged = time.monotonic()

    @property
    def silent(self) -> bool:
        """Whether a client that used to ping has stopped: its machine sleeps or its line is dead."""
        return self._pinged is not None and time.monotonic() - self._pinged > SILENT_SECONDS

    def push(self, frame: bytes, seat: Seat | None = None, position: int = 0) -> None:
        """Queue a frame; `position` is the log position that it brings the seat to, 0 for none."""
        if self._closing is not None:
            return
        if position and seat in self._behind:
            return  # the replay will bring it
        self._queue.append((frame, seat, position))
        self._waiting += len(frame)
        if self._waiting > self._most:
            self._overflow()
        self._ready.set()

    def close(self, code: int, reason: str) -> None:
        """Close with a code once what is being sent has gone out; what else waits is dropped."""
        if self._closing is None:
            self._closing = (code, _short(reason))
            self._queue.clear()
            self._ready.set()

    @property
    def closing(self) -> bool:
        """Whether the connection is about to be closed; what it still says does not count."""
        return self._closing is not None

    def fail(self, error: AtelierError) -> None:
        """Close with an error's own code."""
        self.close(error.close_code, f"{error.code}: {error.detail}")

    async def send_queued(self) -> None:
        """Send until the client is closed; run by the route, one task per connection."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._queue:
                frame, seat, position = self._queue.popleft()
                try:
                    await asyncio.wait_for(self._socket.send_bytes(frame), STALLED_SECONDS)
                except TimeoutError:
                    self.close(1013, "nothing was taken for 30 s")
                    break
                except (WebSocketDisconnect, RuntimeError):
                    return  # the connection ended; its route notices by itself
                self._waiting -= len(frame)
                if seat is not None and position > seat.sent:
                    seat.sent = position
            if self._closing is not None:
                await self._say_goodbye(*self._closing)
                return
            behind, self._behind = self._behind, set()
            for seat in behind:
                seat.room.replay(seat)

    async def _say_goodbye(self, code: int, reason: str) -> None:
        if self._socket.application_state is not WebSocketState.CONNECTED:
            return
        try:
            await asyncio.wait_for(self._socket.close(code, reason), 2)
        except (TimeoutError, RuntimeError, WebSocketDisconnect):
            return  # it was gone already

    def _overflow(self) -> None:
        metrics.OVERFLOWS.inc()
        kept: deque[tuple[bytes, Seat | None, int]] = deque()
        for item in self._queue:
            if item[1] is not None and item[2]:
                self._behind.add(item[1])
            else:
                kept.append(item)
        self._queue = kept
        self._waiting = sum(len(frame) for frame, _, _ in kept)
        if self._waiting > self._most:
            self.close(1013, "too much presence waits for this connection")


def name_prefix(name: str) -> bytes:
    """Encode a Hocuspocus routing name."""
    encoded = name.encode()
    return uint(len(encoded)) + encoded


def _short(reason: str) -> str:
    # A close frame holds at most 123 bytes of UTF-8.
    return reason.encode()[:120].decode(errors="ignore")
