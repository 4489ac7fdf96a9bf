"""How a document lies in Redis: a stream of edits under their positions, and the scripts that change it at once.

The id of a stream's entry is `0-POSITION`. A script appends a group of edits and tells the document's channel of them
in one step, so that what is told is in the stream's order. A stream that is not there is not made by an append: its
positions could have been used before. `seed` makes it, above every position that is known.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atelier.log.base import Edit

_HEAD = struct.Struct(">12sqH")
_TOLD = struct.Struct(">qI")
_LENGTH = struct.Struct(">I")
_INLINE = 256 * 1024
"""A larger group is not told, only that it is there."""
WAITING = "atelier:log:waiting"
"""Documents with edits that PostgreSQL does not have, by when the first of them came (ms since 1970)."""
APPEND = (
    """
if redis.call('exists', KEYS[1]) == 0 then return false end
local told, first, bytes = {}, nil, 0
for n = 4, #ARGV do
  local id = redis.call('xadd', KEYS[1], '0-*', 'e', ARGV[n])
  first = first or tonumber(string.sub(id, 3))
  bytes = bytes + #ARGV[n]
  told[#told + 1] = struct.pack('>I4', #ARGV[n]) .. ARGV[n]
end
redis.call('persist', KEYS[1])
redis.call('zadd', KEYS[2], 'NX', ARGV[2], ARGV[3])
local head = struct.pack('>i8I4', first, #ARGV - 3)
if bytes > """
    + str(_INLINE)
    + """ then told = {} end
redis.call('publish', ARGV[1], head .. table.concat(told))
return first
"""
)
SEED = """
if redis.call('exists', KEYS[1]) == 0 then
  redis.call('xadd', KEYS[1], '0-' .. ARGV[1], 'e', '')
  redis.call('xtrim', KEYS[1], 'maxlen', 0)
end
return 1
"""
LAST = """
if redis.call('exists', KEYS[1]) == 0 then return false end
local info = redis.call('xinfo', 'stream', KEYS[1])
for n = 1, #info, 2 do
  if info[n] == 'last-generated-id' then return tonumber(string.sub(info[n + 1], 3)) end
end
"""
TRIM = """
redis.call('xtrim', KEYS[1], 'minid', '0-' .. ARGV[1])
if redis.call('xlen', KEYS[1]) == 0 then
  redis.call('zrem', KEYS[2], ARGV[2])
  redis.call('pexpire', KEYS[1], ARGV[4])
else
  redis.call('zadd', KEYS[2], ARGV[3], ARGV[2])
end
"""
"""After it, a stream that stays empty goes by itself: PostgreSQL has all of the document."""
RELEASE = """
if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('del', KEYS[1]) end
"""


@dataclass(frozen=True, slots=True)
class Told:
    """A group of edits that follow each other; without them when they are to be looked up."""

    first: int
    count: int
    blobs: tuple[bytes, ...]

    @property
    def last(self) -> int:
        """The position of the last edit."""
        return self.first + self.count - 1


def stream(document: str) -> str:
    """Name a document's stream."""
    return f"atelier:log:stream:{document}"


def channel(document: str) -> str:
    """Name the channel that tells of a document's edits."""
    return f"atelier:log:told:{document}"


def claim(document: str) -> str:
    """Name the key of whoever compacts a document."""
    return f"atelier:log:claim:{document}"


def nonce() -> bytes:
    """Return 12 bytes by which a process knows an edit of its own again."""
    return secrets.token_bytes(12)


def encode(edit: Edit, own: bytes) -> bytes:
    """Encode an edit as a stream's entry has it."""
    author = edit.author.encode()
    return _HEAD.pack(own, edit.at, len(author)) + author + edit.update


def decode(blob: bytes) -> tuple[bytes, Edit]:
    """Return the nonce and the edit."""
    own, at, length = _HEAD.unpack_from(blob)
    end = _HEAD.size + length
    return own, Edit(blob[end:], blob[_HEAD.size : end].decode(), at)


def told(message: bytes) -> Told:
    """Decode what a channel said."""
    first, count = _TOLD.unpack_from(message)
    blobs = []
    at = _TOLD.size
    while at < len(message):
        (length,) = _LENGTH.unpack_from(message, at)
        at += _LENGTH.size + length
        blobs.append(message[at - length : at])
    return Told(first, count, tuple(blobs))


def ranged(rows: Sequence[Any]) -> list[tuple[int, bytes]]:
    """Return positions and blobs of what XRANGE found."""
    return [(int(key[2:]), fields[b"e"]) for key, fields in rows]
