"""A room's presence on its way out: several changes of one moment as one frame, the more people the slower.

Other processes that have the same document open hear the same over the bus, of this one's connections alone; a room
that begins asks them who is there.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Set

import structlog

from atelier.documents import sized
from atelier.errors import BadRequest
from atelier.hub import protocol
from atelier.hub.client import Seat
from atelier.hub.line import framed
from atelier.hub.presence import Presence
from atelier.limits import Limits

logger = structlog.get_logger(__name__)
_SOON_SECONDS = 0.02
_PER_PERSON = 0.0005  # with 1,500 people, what moved is told every 0.75 s
_REMEMBERED = 8
_ORIGIN_BYTES = 8
_TELLING_BYTES = 32 * 1024  # of a signal's 64 KiB
_ASKING = b""


def presence_topic(session_id: str) -> str:
    """Name the topic on which processes tell each other of a session's presence."""
    return f"presence:{session_id}"


def room_of(message: bytes) -> tuple[str, bytes]:
    """Return which document a message between processes is about, and the rest of it."""
    reader = protocol.Reader(message)
    key = reader.string()
    return key, reader.rest()


class PresenceNews:
    """Takes in what seats say about themselves and tells everybody, soon.

    `publish` brings a message to the other processes.
    """

    def __init__(self, key: str, limits: Limits, seats: Set[Seat], publish: Callable[[bytes], None]) -> None:
        self._presence = Presence(
            most_clients=limits.presence_clients_per_socket, most_bytes=limits.presence_bytes
        )
        self._key = sized(key.encode())
        self._origin = secrets.token_bytes(_ORIGIN_BYTES)
        self._publish = publish
        self._seats = seats
        self._heard: set[Seat] = set()
        self._news: set[int] = set()
        self._own_news: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._said: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._everybody: bytes | None = None
        self.ask()

    def receive(self, seat: Seat, update: bytes) -> None:
        """Take in an awareness update.

        Raises:
            BadRequest: `malformed_frame`, `bad_presence`.
            TooMany: `too_many_presences`.
        """
        if update in self._said:
            return  # y-websocket clients send back what they hear
        first = seat not in self._heard
        self._heard.add(seat)
        outcome = self._presence.receive(seat, seat.client.identity, update, first=first)
        if outcome.probe is not None:
            seat.push(protocol.awareness(outcome.probe))
        self._tell(outcome.changed, own=True)

    def leave(self, seat: Seat) -> None:
        """Remove what a seat said."""
        self._heard.discard(seat)
        self._tell(self._presence.leave(seat), own=True)

    def everybody(self) -> bytes | None:
        """Return a message with everybody who is here; None when nobody is."""
        if not len(self._presence):
            return None
        if self._everybody is None:
            self._everybody = protocol.awareness(self._presence.everybody())
        return self._everybody

    def sweep(self) -> None:
        """Remove those who have been silent."""
        self._tell(self._presence.expire())
        for seat in self._seats:
            if seat.client.silent:
                self.leave(seat)  # it says itself anew when it comes back to life

    def close(self) -> None:
        """Nobody is left to tell here; other processes hear who has gone."""
        if self._timer is not None:
            self._timer.cancel()
        self._tell_others()

    # --- other processes ----------------------------------------------------------------------------------------

    def ask(self) -> None:
        """Ask the other processes who is there; also when something of what they said may be lost."""
        self._publish(self._key + self._origin + _ASKING)

    def hear(self, message: bytes) -> None:
        """Take in what another process says: a question, or who is there."""
        origin, update = message[:_ORIGIN_BYTES], message[_ORIGIN_BYTES:]
        if origin == self._origin:
            return
        if update == _ASKING:
            self._own_news.update(self._presence.own())
            self._tell_others()
            return
        try:
            self._tell(self._presence.hear(origin, update))
        except (BadRequest, ValueError, KeyError, TypeError):
            logger.warning("another process says what cannot be read", document=self._key)

    def _tell_others(self) -> None:
        for update in self._presence.parts(self._own_news, _TELLING_BYTES):
            self._publish(self._key + self._origin + update)
        self._own_news.clear()

    # --- telling ------------------------------------------------------------------------------------------------

    def _tell(self, clients: frozenset[int], *, own: bool = False) -> None:
        if not clients:
            return
        self._everybody = None
        self._news |= clients
        if own:
            self._own_news |= clients
        if self._timer is None:
            wait = _SOON_SECONDS + _PER_PERSON * max(0, len(self._seats) - 20)
            self._timer = asyncio.get_running_loop().call_later(wait, self._send)

    def _send(self) -> None:
        self._timer = None
        news = self._presence.news(self._news)
        self._news.clear()
        self._tell_others()
        self._said.append(news)
        body = protocol.awareness(news)
        plain = framed(body)
        for seat in self._seats:
            if not seat.client.full:
                seat.client.push(framed(seat.prefix + body) if seat.prefix else plain)
