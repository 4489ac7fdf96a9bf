"""The socket below Starlette: cut anywhere, whole messages come out; what is unusual is left to the library."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
import uvicorn
import websockets
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from atelier.hub.line import EXTENSION, HIGH_WATER, AsgiLine, Line, LineProtocol, framed, unframed


class Echo:
    """Sends back what it hears, and notes everything else."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.said: list[str] = []
        self.gone = asyncio.Event()

    def message(self, data: bytes) -> None:
        if data == b"raise":
            raise ZeroDivisionError
        if data == b"close":
            self.line.close(4400, "asked for")
        else:
            self.line.write([framed(data)])

    def text(self) -> None:
        self.said.append("text")
        self.line.close(4400, "text")

    def alive(self) -> None:
        self.said.append("alive")

    def paused(self) -> None:
        self.said.append("paused")

    def drained(self) -> None:
        self.said.append("drained")

    def ended(self) -> None:
        self.said.append("ended")
        self.gone.set()


@asynccontextmanager
async def serving(protocol: object) -> AsyncIterator[tuple[str, list[Echo]]]:
    """A server whose only socket echoes, over the line that `protocol` brings."""
    echoes: list[Echo] = []

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        line = socket.scope["extensions"].get(EXTENSION) or AsgiLine(socket)
        echo = Echo(line)
        echoes.append(echo)
        await asyncio.sleep(0.02)  # messages may come before the take-over
        if isinstance(line, LineProtocol):
            line.take_over(echo)
        else:
            await line.run(echo)

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    config = uvicorn.Config(
        app,
        port=0,
        ws=protocol,  # type: ignore[arg-type]
        ws_max_size=300_000,
        log_config=None,
        lifespan="off",
        loop="asyncio",
        ws_per_message_deflate=False,
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    running = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"ws://127.0.0.1:{port}/", echoes
    server.should_exit = True
    await running


@pytest_asyncio.fixture(params=[LineProtocol, "websockets-sansio"], ids=["transport", "asgi"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, list[Echo]]]:
    async with serving(request.param) as opened:
        yield opened


@pytest_asyncio.fixture
async def fast() -> AsyncIterator[tuple[str, list[Echo]]]:
    async with serving(LineProtocol) as opened:
        yield opened


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
async def test_messages_of_every_size_come_and_go_whole(place: tuple[str, list[Echo]], size: int) -> None:
    async with connect(place[0], compression=None) as socket:
        for _ in range(3):
            sent = os.urandom(size)
            await socket.send(sent)
            assert await socket.recv() == sent


async def test_many_messages_in_one_packet_and_one_message_in_many(fast: tuple[str, list[Echo]]) -> None:
    dice = random.Random(7)
    messages = [dice.randbytes(dice.choice([0, 1, 20, 125, 126, 300, 70_000])) for _ in range(60)]
    mask = b"\x11\x22\x33\x44"
    whole = bytearray()
    for message in messages:
        head = bytearray(framed(message)[: -len(message)] if message else framed(message))
        head[1] |= 0x80
        whole += head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(message))
    host, port = fast[0].removeprefix("ws://").rstrip("/").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(0.05)
    at = 0
    while at < len(whole):
        end = at + dice.choice([1, 2, 3, 7, 100, 5_000, 60_000])
        writer.write(bytes(whole[at:end]))
        await writer.drain()
        if dice.random() < 0.3:
            await asyncio.sleep(0.001)
        at = end
    back = await reader.readexactly(sum(len(framed(message)) for message in messages))
    assert unframed(back) == messages
    writer.close()
    await writer.wait_closed()
    await asyncio.wait_for(fast[1][0].gone.wait(), 5)


async def test_fragments_pings_and_text_between_messages(place: tuple[str, list[Echo]]) -> None:
    async with connect(place[0], compression=None) as socket:
        await socket.send([b"in ", b"three ", b"parts"])
        assert await socket.recv() == b"in three parts"
        await asyncio.wait_for(await socket.ping(), 5)
        await socket.send(b"whole")
        assert await socket.recv() == b"whole"
        await socket.send("words")
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
        assert (socket.close_code, socket.close_reason) == (4400, "text")
    assert "text" in place[1][0].said


async def test_closing_from_here_says_why_and_from_there_is_noticed(place: tuple[str, list[Echo]]) -> None:
    async with connect(place[0], compression=None) as socket:
        await socket.send(b"close")
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
        assert (socket.close_code, socket.close_reason) == (4400, "asked for")
    async with connect(place[0], compression=None) as socket:
        await socket.send(b"x")
        await socket.recv()
    for echo in place[1]:
        await asyncio.wait_for(echo.gone.wait(), 5)
        assert echo.said.count("ended") == 1


async def test_a_message_that_cannot_be_handled_ends_one_connection(fast: tuple[str, list[Echo]]) -> None:
    async with connect(fast[0], compression=None) as other, connect(fast[0], compression=None) as socket:
        await socket.send(b"raise")
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1011
        await other.send(b"still here")
        assert await other.recv() == b"still here"


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b"\x82\x05hello", 1002),  # no mask
        (b"\x82\x01x", 1002),  # no mask, and shorter than one
        (b"\x83\x80\0\0\0\0", 1002),  # a reserved opcode
        (b"\xc2\x80\0\0\0\0", 1002),  # a reserved bit
        (b"\x80\x80\0\0\0\0", 1002),  # a continuation of nothing
        (b"\x89\xfe\0\x7e\0\0\0\0" + bytes(126), 1002),  # a ping that is too long
        (b"\x88\x82\0\0\0\0\x03\xe7", 1002),  # an invalid close code
        (b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", 1009),  # an impossible length
        (b"\x82\xff\0\0\0\0\0\x10\0\0\0\0\0\0", 1009),  # a mebibyte where 300 kB are allowed
    ],
)
async def test_what_breaks_the_protocol_closes_that_socket_with_its_code(
    fast: tuple[str, list[Echo]], bad: bytes, code: int
) -> None:
    host, port = fast[0].removeprefix("ws://").rstrip("/").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(0.05)
    writer.write(bad)
    said = await asyncio.wait_for(reader.read(), 5)
    assert said[:1] == b"\x88"
    assert int.from_bytes(said[2:4]) == code
    writer.close()
    await writer.wait_closed()
    await asyncio.wait_for(fast[1][0].gone.wait(), 5)


async def test_a_reader_that_does_not_read_is_told_of_and_gets_everything_later(
    fast: tuple[str, list[Echo]],
) -> None:
    async with connect(fast[0], compression=None, max_queue=1) as socket:
        await socket.send(b"x")
        assert await socket.recv() == b"x"
        echo = fast[1][0]
        part = framed(bytes(200_000))
        for _ in range(100):
            echo.line.write([part])
        assert echo.said == ["paused"]
        assert echo.line.waiting() > HIGH_WATER
        for _ in range(100):
            assert len(await asyncio.wait_for(socket.recv(), 5)) == 200_000
        await asyncio.sleep(0.05)
        assert echo.said[:2] == ["paused", "drained"]
        assert echo.line.waiting() == 0
