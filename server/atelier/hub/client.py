"""One document socket: its seats, what it may still send, and what goes out to it in this turn of the event loop.

Frames are collected and leave in one write per turn. There is no queue of edits behind that: when the transport has
taken more than it should, the client's seats stop following their rooms, and once it has room again each is brought up
to date from the log, folded into few frames. So a slow reader costs no memory, and nothing is lost. A client that
takes nothing for 30 s is closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atelier.auth import Caller, Role
from atelier.errors import AtelierError, TooMany
from atelier.hub.line import PING, Line, framed
from atelier.hub.presence import Identity
from atelier.hub.protocol import QUERY_AWARENESS_FRAME
from atelier.limits import Limits

if TYPE_CHECKING:
    from atelier.hub.room import Room

STALLED_SECONDS = 30.0
SILENT_SECONDS = 8.0
HALF_OPEN_SECONDS = 45.0
_PING_SECONDS = 20.0
_WINDOW_SECONDS = 10
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
    live: bool = False
    """Whether the room's edits go out to it as they come; else it is still being brought up to date."""
    asked: bool = False
    """Whether it has been told our state."""
    feed: Iterator[bytes] | None = None
    """What is left of the document that it is being sent."""
    considered: int = 0
    """How many of its edits are being looked at, beside everything else, or wait for that."""
    considering: asyncio.Lock | None = None
    edits: int = 0
    """How many edits came since they were counted the last time, and how many bytes."""
    edited_bytes: int = 0

    @property
    def hocuspocus(self) -> bool:
        return bool(self.prefix)

    def push(self, body: bytes) -> None:
        """Send a message to this seat."""
        self.client.push(framed(self.prefix + body))


class Outbox:
    """The clients that have something to send in this turn of the event loop."""

    def __init__(self) -> None:
        self._dirty: list[Client] = []
        self._scheduled = False

    def add(self, client: Client) -> None:
        """Have the client's frames written at the end of this turn."""
        self._dirty.append(client)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        dirty, self._dirty = self._dirty, []
        for client in dirty:
            client.flush()


class Client:
    """A connection of one person, in one dialect, to one or many documents; a `line.Receiver`."""

    def __init__(self, line: Line, caller: Caller, role: Role, limits: Limits, outbox: Outbox) -> None:
        self.caller, self.role = caller, role
        self.identity = Identity(caller.user_id, caller.display_name)
        self.seats: dict[str, Seat] = {}
        self.out: list[bytes] = []
        self.handle: Callable[[bytes], None] = _nothing
        """What to do with a message; may raise AtelierError."""
        self.leave: Callable[[], None] = lambda: None
        """What to do when the connection is gone."""
        self.full = False
        self._throttled = False
        self._pending = 0  # bytes of edits that are not acknowledged
        self._line = line
        self._outbox = outbox
        self._limits = limits
        self._messages = limits.messages_per_second * _WINDOW_SECONDS
        self._bytes = limits.socket_bytes_per_second * _WINDOW_SECONDS
        self._before = (self._messages, self._bytes)
        self._closing = False
        self._pinged: float | None = None
        self._heard = time.monotonic()
        self._spoke = False
        self._waited: tuple[int, float] = (0, self._heard)

    # --- in: what the line says ---------------------------------------------------------------------------------

    def message(self, data: bytes) -> None:
        """Handle one message; a refused one closes the connection with its code."""
        if self._closing:
            return
        self._spoke = True
        self._messages -= 1
        self._bytes -= len(data)
        try:
            if self._messages < 0 or self._bytes < 0:
                raise TooMany(
                    "too_many_messages",
                    f"At most {self._limits.messages_per_second} messages and"
                    f" {self._limits.socket_bytes_per_second:,} bytes a second.",
                    retry_after=_WINDOW_SECONDS,
                    next_step="Wait a moment; your edits are kept.",
                )
            self.handle(data)
        except AtelierError as error:
            self.fail(error)

    def text(self) -> None:
        """Refuse text: documents are spoken in binary."""
        self.close(4400, "text_frame: documents are spoken in binary frames")

    def alive(self) -> None:
        """Note a sign of life below the messages, such as a pong."""
        self._spoke = True

    def paused(self) -> None:
        """Stop following until the transport has room; the peer is not read from either."""
        self.full = True
        self._hold()
        self._waited = (self._line.waiting(), time.monotonic())
        for seat in self.seats.values():
            seat.room.fall_behind(seat)

    def drained(self) -> None:
        """Go on: each seat is brought up to date."""
        self.full = False
        self._hold()
        for seat in list(self.seats.values()):
            if not self.full:
                seat.room.catch_up(seat)

    def throttle(self, throttled: bool) -> None:
        """Stop reading from the peer, or go on."""
        if throttled is not self._throttled:
            self._throttled = throttled
            self._hold()

    def owe(self, size: int) -> None:
        """Count bytes of an edit that waits to be acknowledged (negative: that has been); too many, and it is not read on."""
        before = self._pending > self._limits.pending_bytes_per_socket
        self._pending += size
        if before is not (self._pending > self._limits.pending_bytes_per_socket):
            self._hold()

    def _hold(self) -> None:
        pending = self._pending > self._limits.pending_bytes_per_socket
        self._line.hold(self.full or self._throttled or pending)

    def ended(self) -> None:
        """The connection is gone."""
        self._closing = True
        self.out.clear()
        self.leave()

    # --- out ----------------------------------------------------------------------------------------------------

    def push(self, frame: bytes) -> None:
        """Send a frame (with its WebSocket header) at the end of this turn."""
        if self._closing:
            return
        if not self.out:
            self._outbox.add(self)
        self.out.append(frame)

    def send(self, frames: bytes) -> None:
        """Send frames at once, as the only ones of this turn, unless some wait already."""
        if self.out:
            self.out.append(frames)
        elif not self._closing:
            self._line.write([frames])

    def flush(self) -> None:
        """Write what has been collected."""
        out = self.out
        if out:
            self.out = []
            self._line.write(out)

    def room_to_send(self) -> bool:
        """Write what has been collected and say whether there is room for more."""
        self.flush()
        return not self.full and not self._closing

    def close(self, code: int, reason: str) -> None:
        """Close with a code; what was pushed before goes out first."""
        if not self._closing:
            self.flush()
            self._closing = True
            self._line.close(code, _short(reason))

    @property
    def waiting(self) -> int:
        """Bytes that the peer has not taken yet."""
        return self._line.waiting()

    @property
    def closing(self) -> bool:
        """Whether the connection is about to be closed; what it still says does not count."""
        return self._closing

    def fail(self, error: AtelierError) -> None:
        """Close with an error's own code."""
        self.close(error.close_code, f"{error.code}: {error.detail}")

    # --- now and then -------------------------------------------------------------------------------------------

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

    def sweep(self, now: float, seconds: float) -> tuple[int, int]:
        """Give back allowances; ask after who has been quiet, end who is gone. Returns messages and bytes since then."""
        limits = self._limits
        sent = self._before[0] - self._messages, self._before[1] - self._bytes
        most = limits.messages_per_second * _WINDOW_SECONDS
        if self._messages < most:
            self._messages = min(most, int(self._messages + limits.messages_per_second * seconds))
        most = limits.socket_bytes_per_second * _WINDOW_SECONDS
        if self._bytes < most:
            self._bytes = min(most, int(self._bytes + limits.socket_bytes_per_second * seconds))
        self._before = (self._messages, self._bytes)
        if self.full:
            waiting = self._line.waiting()
            if waiting != self._waited[0]:
                self._waited = (waiting, now)
            elif now - self._waited[1] > STALLED_SECONDS:
                self._line.abort()
        elif self._spoke:
            self._spoke, self._heard = False, now
        elif now - self._heard > HALF_OPEN_SECONDS:
            self._line.abort()
        elif now - self._heard > _PING_SECONDS:
            self._line.write([PING])
        return sent


def _nothing(_: bytes) -> None:
    return


def _short(reason: str) -> str:
    # A close frame holds at most 123 bytes of UTF-8.
    return reason.encode()[:120].decode(errors="ignore")
