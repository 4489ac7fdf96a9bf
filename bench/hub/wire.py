"""What a client says to a server: just enough of WebSockets and of the sync protocol, written by hand so that the load
costs little beside what is measured."""

from __future__ import annotations

import asyncio

from bench.hub.servers import Server

STEP1 = b"\x00\x00\x01\x00"
"""Asks for all of a document."""
STEP2, UPDATE = b"\x00\x01", b"\x00\x02"
Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def open_line(server: Server, room: int = 0) -> Line:
    """Open a connection to one of the server's rooms.

    Raises:
        RuntimeError: the server refuses; with the beginning of its answer.
    """
    path = server.rooms[room].split()[0]
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=4 * 1024 * 1024)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = await reader.readuntil(b"\r\n\r\n")
    if b" 101 " not in answer:
        raise RuntimeError(answer[:200].decode(errors="replace"))
    return reader, writer


def envelope(server: Server, room: int = 0) -> bytes:
    """Return what comes before each message: nothing, or the document's name in Hocuspocus' dialect."""
    return sized(server.rooms[room].split()[1].encode()) if server.dialect == "h" else b""


def authentication(server: Server, room: int = 0) -> bytes:
    """Return the message that a Hocuspocus client sends first."""
    return envelope(server, room) + b"\x02\x00" + sized(server.rooms[room].split()[2].encode())


async def enter(server: Server, room: int = 0) -> Line:
    """Open a connection, ask for the document, and take messages until it is there."""
    name = envelope(server, room)
    reader, writer = await open_line(server, room)
    if name:
        writer.write(masked(authentication(server, room)))
    writer.write(masked(name + STEP1))
    while not (await message(reader)).startswith(name + STEP2):
        pass
    return reader, writer


async def message(reader: asyncio.StreamReader) -> bytes:
    """Return the next message; empty for a ping.

    Raises:
        RuntimeError: the server closes; with its reason.
    """
    first, size = await reader.readexactly(2)
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2))
    elif size == 127:
        size = int.from_bytes(await reader.readexactly(8))
    body = await reader.readexactly(size)
    if first == 0x88:
        raise RuntimeError(f"closed: {body[2:].decode(errors='replace')}")
    return body if first == 0x82 else b""


def sized(data: bytes) -> bytes:
    """Put its length before some data, as lib0 writes it."""
    out, value = bytearray(), len(data)
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out) + data


def masked(body: bytes) -> bytes:
    """Frame a message as a client does; the mask is zeros."""
    size = len(body)
    if size < 126:
        head = bytes((0x82, 128 | size))
    elif size < 65_536:
        head = b"\x82\xfe" + size.to_bytes(2)
    else:
        head = b"\x82\xff" + size.to_bytes(8)
    return head + bytes(4) + body
