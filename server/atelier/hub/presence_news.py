"""A room's presence on its way out: several changes of one moment as one frame, the more people the slower."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Set

from atelier.hub import protocol
from atelier.hub.client import Seat
from atelier.hub.line import framed
from atelier.hub.presence import Presence
from atelier.limits import Limits

_SOON_SECONDS = 0.02
_PER_PERSON = 0.0005  # with 1,500 people, what moved is told every 0.75 s
_REMEMBERED = 8


class PresenceNews:
    """Takes in what seats say about themselves and tells everybody, soon."""

    def __init__(self, limits: Limits, seats: Set[Seat]) -> None:
        self._presence = Presence(
            most_clients=limits.presence_clients_per_socket, most_bytes=limits.presence_bytes
        )
        self._seats = seats
        self._news: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._said: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._everybody: bytes | None = None

    def receive(self, seat: Seat, update: bytes) -> None:
        """Take in an awareness update.

        Raises:
            BadRequest: `malformed_frame`, `bad_presence`.
            TooMany: `too_many_presences`.
        """
        if update in self._said:
            return  # y-websocket clients send back what they hear
        outcome = self._presence.receive(seat, seat.client.identity, update)
        if outcome.probe is not None:
            seat.push(protocol.awareness(outcome.probe))
        self._tell(outcome.changed)

    def leave(self, seat: Seat) -> None:
        """Remove what a seat said."""
        self._tell(self._presence.leave(seat))

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
        """Nobody is left to tell."""
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self, clients: frozenset[int]) -> None:
        if not clients:
            return
        self._everybody = None
        self._news |= clients
        if self._timer is None:
            wait = _SOON_SECONDS + _PER_PERSON * max(0, len(self._seats) - 20)
            self._timer = asyncio.get_running_loop().call_later(wait, self._send)

    def _send(self) -> None:
        self._timer = None
        news = self._presence.news(self._news)
        self._news.clear()
        self._said.append(news)
        body = protocol.awareness(news)
        plain = framed(body)
        for seat in self._seats:
            if not seat.client.full:
                seat.client.push(framed(seat.prefix + body) if seat.prefix else plain)
