"""lib0's variable-length encoding, in which Yjs writes everything."""

from __future__ import annotations


def uint(value: int) -> bytes:
    """Encode an unsigned integer."""
    if value < 0x80:
        return value.to_bytes()
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def sized(data: bytes) -> bytes:
    """Encode a length and the bytes."""
    return uint(len(data)) + data
