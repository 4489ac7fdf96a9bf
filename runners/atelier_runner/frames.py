"""The frames between a host and the agent: 4 bytes of length (big-endian), 1 byte of kind, the payload.

`PROTOCOL.md` has the conversation. What comes out of a sandbox is untrusted: lengths are bounded before anything is
read, and a frame that makes no sense ends the run as lost.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

HEADER: Final = struct.Struct(">IB")
MAX_FRAME: Final = 1024 * 1024
CHUNK: Final = 256 * 1024

# host to agent
SPEC, FILE, MORE, GO, STDIN, STDIN_END, WINDOW, DELETE, LOOK, SIGNAL, BUILT = b"SFMGICWDQKB"
CELL, INTERRUPT = b"yj"
# agent to host
READY, BEGUN, STDOUT, STDERR, USED, EXIT, FAILED = b"RBOEUXP"
FILES = CHANGED, ADDED, DELETED, LEFT_OUT = b"NADL"
# of a connection, in both directions
NETWORK = CONNECTED, CARRIED, ENDED, CREDIT, BROKEN = b"JTHVZ"
# of an interpreter's cells
CELLS = CELL_BEGUN, CELL_OUTPUT, CELL_VALUE, CELL_MORE, CELL_ENDED = b"ytvuz"


class BadFrame(Exception):
    """What came from the sandbox is not a frame."""


def encode(kind: int, payload: bytes | memoryview = b"") -> bytes:
    """Return one frame."""
    return HEADER.pack(len(payload), kind) + payload


def encode_files(files: Mapping[str, bytes]) -> Iterator[bytes]:
    """Yield the frames that lay `files` out: one FILE each, then MORE for what is above 256 KiB."""
    for path, data in files.items():
        name = path.encode()
        yield encode(FILE, struct.pack(">H", len(name)) + name + data[:CHUNK])
        for start in range(CHUNK, len(data), CHUNK):
            yield encode(MORE, data[start : start + CHUNK])


def encode_changes(files: Mapping[str, bytes | None]) -> Iterator[bytes]:
    """Yield the frames that bring files up to date while a program runs; None takes one away."""
    yield from encode_files({path: data for path, data in files.items() if data is not None})
    yield encode(GO)
    for path, data in files.items():
        if data is None:
            yield encode(DELETE, path.encode())


def encode_cell(number: int, path: str, code: str) -> bytes:
    """Return the frame that hands a cell to the interpreter."""
    name = path.encode()
    return encode(CELL, struct.pack(">IH", number, len(name)) + name + code.encode())


def encode_interrupt(number: int) -> bytes:
    """Return the frame that interrupts a cell, if it is the one that runs."""
    return encode(INTERRUPT, struct.pack(">I", number))


def encode_window(columns: int, rows: int) -> bytes:
    """Return the frame that gives the terminal a size."""
    return encode(WINDOW, struct.pack(">HH", columns, rows))


async def read(reader: asyncio.StreamReader) -> tuple[int, bytes] | None:
    """Return the next frame, or None when the other side is gone.

    Raises:
        BadFrame: the length is above 1 MiB.
    """
    try:
        length, kind = HEADER.unpack(await reader.readexactly(HEADER.size))
        if length > MAX_FRAME:
            raise BadFrame(f"a frame of {length} bytes came; at most {MAX_FRAME} are allowed")
        return kind, await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def json_object(payload: bytes) -> dict[str, Any]:
    """Read a frame's JSON object; anything else counts as empty, for it comes from inside the sandbox."""
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
