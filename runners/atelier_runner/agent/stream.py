"""The agent's side of the stream to the host: frames over descriptors 0 and 1 (see PROTOCOL.md)."""

from __future__ import annotations

import os
from _struct import Struct

HEADER = Struct(">IB")
CHUNK = 64 * 1024


def send(kind: bytes, payload: bytes = b"") -> None:
    """Write one frame; blocks while the host does not read, which in turn blocks the program."""
    data = memoryview(HEADER.pack(len(payload), kind[0]) + payload)
    while data:
        data = data[os.write(1, data) :]
