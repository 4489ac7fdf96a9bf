"""Who is in a room and where: its own plane, never in the log.

The newest state of each awareness client counts. A client id belongs to the connection that first used it, or to the
same person's other connection once that uses it at a higher clock; states that name foreign ids are ignored, since
y-websocket clients send back what they receive. The `user` field is overwritten, so nobody can pose as somebody else.
A removal goes out at the same clock, so that a fast rejoin is not hidden; one who comes back at a clock that the
others have seen as gone is sent its own entry as null and then announces itself anew. So is one whose connection
begins with the clock of a connection that has not ended yet, here or in another process.

Other processes tell what their connections say: taken over as it is, never told on, and gone when it is not renewed.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from atelier.documents import sized, uint
from atelier.errors import BadRequest, TooMany
from atelier.hub.protocol import Reader

EXPIRY_SECONDS = 30.0
_REMEMBERED = 2_000  # clocks of the gone
_MOST_ENTRIES = 10_000
PALETTE = (
    "#e6003c", "#ba5702", "#966a00", "#767700", "#278701", "#048064",
    "#017b80", "#037ea7", "#0169f9", "#7a37fc", "#c701e9", "#e10195",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a connection belongs to, as others see it."""

    user_id: str
    name: str

    @property
    def user(self) -> dict[str, str]:
        """The `user` field of every state of theirs."""
        return {
            "id": self.user_id,
            "name": self.name,
            "color": PALETTE[zlib.crc32(self.user_id.encode()) % len(PALETTE)],
        }


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The owner of what another process tells."""

    origin: bytes


@dataclass(slots=True)
class _State:
    clock: int
    state: bytes
    owner: Hashable
    user_id: str
    heard: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an awareness update leads to: ids whose news everybody gets, and an answer to its sender alone."""

    changed: frozenset[int]
    probe: bytes | None


class Presence:
    """The states of one room."""

    def __init__(self, *, most_clients: int, most_bytes: int) -> None:
        self._states: dict[int, _State] = {}
        self._gone: dict[int, int] = {}
        self._owned: dict[Hashable, set[int]] = {}
        self._most_clients, self._most_bytes = most_clients, most_bytes

    def __len__(self) -> int:
        return len(self._states)

    def receive(self, owner: Hashable, identity: Identity, update: bytes, *, first: bool = False) -> Outcome:
        """Take in what a connection says about itself; `first`: it has not said anything before.

        Raises:
            BadRequest: `malformed_frame`, `bad_presence`.
            TooMany: `too_many_presences`.
        """
        changed: set[int] = set()
        probes: list[tuple[int, int]] = []
        for client, clock, text in _entries(update):
            known = self._states.get(client)
            if known is not None and known.owner != owner and known.user_id != identity.user_id:
                continue
            if text == "null":
                if known is not None and known.owner == owner and clock >= known.clock:
                    self._remove(client)
                    changed.add(client)
                continue
            if known is None:
                if clock <= self._gone.get(client, -1):
                    # One who has come back, or an echo of one who has left: only the former answers the probe.
                    probes.append((client, self._gone[client]))
                    continue
                self._admit(owner)
            elif clock <= known.clock:
                # From its owner: a sign of life. From the same person's other connection: what that one heard, sent
                # back; taken for a claim, it would show this presence for as long as the other connection is open.
                if known.owner == owner:
                    known.heard = time.monotonic()
                elif first:
                    probes.append((client, known.clock))
                continue
            if known is not None and known.owner != owner:
                self._disown(client, known.owner)
            self._owned.setdefault(owner, set()).add(client)
            self._states[client] = _State(
                clock, self._signed(text, identity), owner, identity.user_id, time.monotonic()
            )
            changed.add(client)
        return Outcome(
            frozenset(changed), _encode([(c, clock, b"null") for c, clock in probes]) if probes else None
        )

    def hear(self, origin: bytes, update: bytes) -> frozenset[int]:
        """Take in what another process tells of its connections; returns the ids that changed.

        Raises:
            BadRequest: `malformed_frame`, `bad_presence`.
        """
        owner = Elsewhere(origin)
        changed: set[int] = set()
        for client, clock, text in _entries(update):
            known = self._states.get(client)
            if text == "null":
                if known is not None and isinstance(known.owner, Elsewhere) and clock >= known.clock:
                    self._remove(client)
                    changed.add(client)
                continue
            user_id = json.loads(text)["user"]["id"]
            if known is None:
                if clock <= self._gone.get(client, -1):
                    continue
            elif clock <= known.clock or known.user_id != user_id:
                if known.owner == owner:
                    known.heard = time.monotonic()
                continue
            else:
                self._disown(client, known.owner)
            self._owned.setdefault(owner, set()).add(client)
            self._states[client] = _State(clock, text.encode(), owner, user_id, time.monotonic())
            changed.add(client)
        return frozenset(changed)

    def own(self) -> list[int]:
        """Return the ids that connections of this process own."""
        return [client for client, s in self._states.items() if not isinstance(s.owner, Elsewhere)]

    def leave(self, owner: Hashable) -> frozenset[int]:
        """Remove everything that a connection said; returns the ids."""
        return self._drop(self._owned.get(owner, ()))

    def expire(self) -> frozenset[int]:
        """Remove what was not renewed within 30 s; returns the ids."""
        oldest = time.monotonic() - EXPIRY_SECONDS
        return self._drop(client for client, state in self._states.items() if state.heard < oldest)

    def news(self, clients: Iterable[int]) -> bytes:
        """Encode the newest state of these clients, null for the gone."""
        return _encode(self._newest(clients))

    def parts(self, clients: Iterable[int], most: int) -> list[bytes]:
        """Encode the same as several updates of about `most` bytes each."""
        parts: list[list[tuple[int, int, bytes]]] = []
        size = most
        for entry in self._newest(clients):
            if size >= most:
                parts.append([])
                size = 0
            parts[-1].append(entry)
            size += len(entry[2]) + 16
        return [_encode(part) for part in parts]

    def _newest(self, clients: Iterable[int]) -> list[tuple[int, int, bytes]]:
        entries = []
        for client in clients:
            state = self._states.get(client)
            if state is not None:
                entries.append((client, state.clock, state.state))
            elif client in self._gone:
                entries.append((client, self._gone[client], b"null"))
        return entries

    def everybody(self) -> bytes:
        """Encode all states, for somebody who has just come in."""
        return _encode([(client, state.clock, state.state) for client, state in self._states.items()])

    def _drop(self, clients: Iterable[int]) -> frozenset[int]:
        gone = frozenset(clients)
        for client in gone:
            self._remove(client)
        return gone

    def _remove(self, client: int) -> None:
        state = self._states.pop(client)
        self._disown(client, state.owner)
        self._gone[client] = state.clock
        while len(self._gone) > _REMEMBERED:
            del self._gone[next(iter(self._gone))]

    def _disown(self, client: int, owner: Hashable) -> None:
        owned = self._owned[owner]
        owned.discard(client)
        if not owned:
            del self._owned[owner]

    def _admit(self, owner: Hashable) -> None:
        if len(self._owned.get(owner, ())) >= self._most_clients:
            raise TooMany(
                "too_many_presences",
                f"One connection may show {self._most_clients} presences in a document.",
                retry_after=EXPIRY_SECONDS,
                next_step="Reload the page.",
            )

    def _signed(self, text: str, identity: Identity) -> bytes:
        if len(text) > self._most_bytes:
            raise BadRequest(
                "bad_presence",
                f"A presence has at most {self._most_bytes} bytes; this has {len(text)}.",
                next_step="Reload the page.",
            )
        try:
            state: Any = json.loads(text)
            if isinstance(state, dict):
                # NaN and Infinity, which Python reads and writes, are no JSON: the others' clients would throw.
                signed = {**state, "user": identity.user}
                # As JavaScript writes it, so that what clients echo is what was said; lone surrogates only as ASCII.
                dumped = json.dumps(signed, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
                try:
                    return dumped.encode()
                except UnicodeEncodeError:
                    return json.dumps(signed, separators=(",", ":"), allow_nan=False).encode()
        except (ValueError, RecursionError):
            pass
        raise BadRequest("bad_presence", "A presence is a JSON object.", next_step="Reload the page.")


def _entries(update: bytes) -> Iterable[tuple[int, int, str]]:
    reader = Reader(update)
    count = reader.uint()
    if count > min(_MOST_ENTRIES, reader.left):
        raise BadRequest(
            "bad_presence", f"An awareness update cannot name {count} clients.", next_step="Reload the page."
        )
    for _ in range(count):
        yield reader.uint(), reader.uint(), reader.string()


def _encode(entries: list[tuple[int, int, bytes]]) -> bytes:
    return uint(len(entries)) + b"".join(
        uint(client) + uint(clock) + sized(state) for client, clock, state in entries
    )
