"""Frames of both dialects as messages and back: bytes in, bytes out, no I/O.

A y-websocket frame is `varUint type, body`; a Hocuspocus frame is `varString document` before the same. Everything
that a client says becomes one of the messages below, so the room does not know which dialect somebody speaks.
"""

from __future__ import annotations

from dataclasses import dataclass

from atelier.documents import sized, uint
from atelier.errors import BadRequest

SYNC, AWARENESS, AUTH, QUERY_AWARENESS, SYNC_REPLY, STATELESS, BROADCAST_STATELESS, CLOSE, SYNC_STATUS, PING, PONG = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10,
)  # fmt: skip
STEP1, STEP2, UPDATE = 0, 1, 2
EMPTY_UPDATE = b"\x00\x00"
KEEPALIVE = b"\x01\x01\x00"
"""An awareness update about nobody: keeps y-websocket, which ignores pings, from giving up after 30 s."""
_UPDATE_HEADS = [bytes((SYNC, UPDATE, size)) for size in range(0x80)]
_LONGEST_NAME = 256
_LARGEST = 2**53 - 1  # lib0 throws beyond, so what we pass on must not be


@dataclass(frozen=True, slots=True)
class Step1:
    """The client's state vector: it wants what it lacks."""

    state: bytes


@dataclass(frozen=True, slots=True)
class Update:
    """A Yjs update; `reply` when it answers our own step1."""

    update: bytes
    reply: bool


@dataclass(frozen=True, slots=True)
class Awareness:
    update: bytes


@dataclass(frozen=True, slots=True)
class QueryAwareness:
    pass


@dataclass(frozen=True, slots=True)
class Token:
    token: str


@dataclass(frozen=True, slots=True)
class Leave:
    pass


@dataclass(frozen=True, slots=True)
class Ping:
    pass


@dataclass(frozen=True, slots=True)
class Ignored:
    """Something that asks nothing of the server."""


Message = Step1 | Update | Awareness | QueryAwareness | Token | Leave | Ping | Ignored


class Reader:
    """Reads lib0's variable-length values; every length is checked against what is there."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def uint(self) -> int:
        """Read an unsigned integer of at most 53 bits."""
        value = shift = 0
        data = self._data
        while True:
            if self._at >= len(data) or shift > 49:
                raise malformed("a whole number")
            byte = data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > _LARGEST:
                    raise malformed("a whole number that JavaScript can hold")
                return value
            shift += 7

    def take(self) -> bytes:
        """Read a length and that many bytes."""
        length = self.uint()
        end = self._at + length
        if end > len(self._data):
            raise malformed(f"{length} bytes, but {len(self._data) - self._at} were there")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def string(self) -> str:
        """Read a length and that many bytes of UTF-8."""
        try:
            return self.take().decode()
        except UnicodeDecodeError:
            raise malformed("UTF-8") from None

    def rest(self) -> bytes:
        """Read everything that is left."""
        at, self._at = self._at, len(self._data)
        return self._data[at:]

    @property
    def left(self) -> int:
        """How many bytes have not been read."""
        return len(self._data) - self._at


def parse(data: bytes) -> Message:
    """Decode a frame's body (after the document's name, in Hocuspocus).

    Raises:
        BadRequest: `malformed_frame`.
    """
    reader = Reader(data)
    kind = reader.uint()
    if kind in (SYNC, SYNC_REPLY):
        step = reader.uint()
        body = reader.take()
        if step == STEP1:
            return Step1(body)
        if step in (STEP2, UPDATE):
            return Update(body, step == STEP2)
        raise malformed(f"a sync step of 0 to 2, not {step}")
    if kind == AWARENESS:
        return Awareness(reader.take())
    if kind == QUERY_AWARENESS:
        return QueryAwareness()
    if kind == AUTH:
        reader.uint()
        return Token(reader.string())
    if kind == CLOSE:
        return Leave()
    if kind == PING:
        return Ping()
    if kind in (STATELESS, PONG, SYNC_STATUS):
        return Ignored()
    # 6, BroadcastStateless, is spoken between servers only.
    raise malformed(f"a message type that clients use, not {kind}")


def body_of_update(data: bytes) -> bytes:
    """Return the update of a frame that begins with "sync, update".

    Raises:
        BadRequest: `malformed_frame`.
    """
    size = data[2] if len(data) > 2 else 0x80
    if size < 0x80 and len(data) == 3 + size:
        return data[3:]
    message = parse(data)
    assert isinstance(message, Update)
    return message.update


def split_envelope(data: bytes) -> tuple[str, bytes]:
    """Split a Hocuspocus frame into its routing name (document, or document NUL provider) and the body."""
    reader = Reader(data)
    name = reader.take()
    if len(name) > _LONGEST_NAME:
        raise malformed(f"a document name of at most {_LONGEST_NAME} bytes")
    try:
        return name.decode(), data[len(data) - reader.left :]
    except UnicodeDecodeError:
        raise malformed("a document name in UTF-8") from None


def step1(state: bytes) -> bytes:
    """Say which state we have, so that the client sends what we lack."""
    return b"\x00\x00" + sized(state)


def step2(update: bytes) -> bytes:
    """Answer a step1; the client takes itself for synced."""
    return b"\x00\x01" + sized(update)


def update(data: bytes) -> bytes:
    """Pass an edit on."""
    size = len(data)
    return (_UPDATE_HEADS[size] if size < 0x80 else b"\x00\x02" + uint(size)) + data


def awareness(data: bytes) -> bytes:
    """Pass presence on."""
    return b"\x01" + sized(data)


def denied(reason: str, *, hocuspocus: bool) -> bytes:
    """Refuse in the dialect's words: denied is 1 in Hocuspocus and 0 in y-websocket."""
    return (b"\x02\x01" if hocuspocus else b"\x02\x00") + sized(reason.encode())


def authenticated(*, can_write: bool) -> bytes:
    """Let a Hocuspocus client in, or tell it that its rights changed."""
    return b"\x02\x02" + sized(b"read-write" if can_write else b"readonly")


def sync_status(*, stored: bool) -> bytes:
    """Say whether a Hocuspocus client's update survives a power cut."""
    return bytes((SYNC_STATUS, int(stored)))


PONG_FRAME = bytes((PONG,))
QUERY_AWARENESS_FRAME = bytes((QUERY_AWARENESS,))


def malformed(expected: str) -> BadRequest:
    """Say what a frame should have held."""
    return BadRequest("malformed_frame", f"The frame should hold {expected}.", next_step="Reload the page.")
