"""What people, documents and sessions may send together: looked at every two seconds, and answered by reading slower.

A connection has allowances of its own, counted with each message (`client.py`); who exceeds those is closed. What many
connections exceed together is nobody's fault: those that have sent something are not read from until the excess is
made up for, at most ten seconds. Nothing is refused or lost; their lines hold what they send.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from atelier.hub.client import Client
from atelier.limits import Limits

_WINDOW_SECONDS = 10
Sent = tuple[Client, int, int]
"""A connection, and how many messages and bytes it has sent."""


@dataclass(slots=True)
class Quota:
    """Messages and bytes a second, over a window of ten seconds."""

    messages: int
    bytes: int


@dataclass(slots=True, eq=False)
class Share:
    """What is left of one person's, document's or session's quota; negative while it is exceeded."""

    quota: Quota
    messages: float = field(init=False)
    bytes: float = field(init=False)
    held: set[Client] = field(default_factory=set)
    """Who is not read from until it is made up for."""

    def __post_init__(self) -> None:
        self.messages, self.bytes = self._most

    @property
    def _most(self) -> tuple[int, int]:
        return self.quota.messages * _WINDOW_SECONDS, self.quota.bytes * _WINDOW_SECONDS

    def settle(self, sent: Sequence[Sent], seconds: float) -> None:
        """Count what was sent in the last seconds."""
        self.messages = _left(self.messages, self.quota.messages, sum(row[1] for row in sent), seconds)
        self.bytes = _left(self.bytes, self.quota.bytes, sum(row[2] for row in sent), seconds)
        if self.messages < 0 or self.bytes < 0:
            self.held.update(row[0] for row in sent)
        else:
            self.held.clear()

    @property
    def whole(self) -> bool:
        """Whether nothing of it is used up, so that it need not be kept."""
        return (self.messages, self.bytes) == self._most


def _left(left: float, rate: int, used: int, seconds: float) -> float:
    most = rate * _WINDOW_SECONDS
    # What is owed is bounded too: nobody is held for longer than a window.
    return max(-most, min(most, left + rate * seconds) - used)


class Quotas:
    """The shares of everybody who is here, in this process."""

    def __init__(self, limits: Limits) -> None:
        self._quotas = {
            "person": Quota(limits.person_messages_per_second, limits.person_bytes_per_second),
            "document": Quota(limits.document_messages_per_second, limits.document_bytes_per_second),
            "session": Quota(limits.session_messages_per_second, limits.session_bytes_per_second),
        }
        self._shares: dict[tuple[str, str], Share] = {}
        self._sent: dict[tuple[str, str], list[Sent]] = {}

    def count(self, client: Client, session_id: str, messages: int, size: int) -> None:
        """Note what a connection has sent since the last time."""
        if messages:
            sent = (client, messages, size)
            self._sent.setdefault(("person", client.caller.user_id), []).append(sent)
            self._sent.setdefault(("session", session_id), []).append(sent)
        for seat in client.seats.values():
            if seat.edits:
                edits = (client, seat.edits, seat.edited_bytes)
                self._sent.setdefault(("document", seat.room.key), []).append(edits)
                seat.edits = seat.edited_bytes = 0

    def settle(self, seconds: float) -> set[Client]:
        """Do the sums of the last seconds; returns who is not to be read from for now."""
        sent, self._sent = self._sent, {}
        held: set[Client] = set()
        for name in sent.keys() | self._shares.keys():
            share = self._shares.get(name)
            if share is None:
                share = self._shares[name] = Share(self._quotas[name[0]])
            share.settle(sent.get(name, ()), seconds)
            held |= share.held
            if share.whole:
                del self._shares[name]
        return held
