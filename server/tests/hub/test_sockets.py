"""The document sockets at the level of frames: who is let in, what closes one socket, what a document's state brings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import websockets
from pycrdt import Doc, Text
from websockets.asyncio.client import ClientConnection, connect

from atelier.documents import sized, uint
from atelier.hub.protocol import KEEPALIVE

from .clients import World, world

EMPTY_STEP1 = b"\x00\x00\x01\x00"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A server with a session of Ada's, and Vera who may look."""
    async with world(Path(tmp_path_factory.mktemp("data"))) as made:
        await made.guest("Vera", "view")
        yield made


pytestmark = [pytest.mark.node, pytest.mark.asyncio(loop_scope="module")]


def y_socket(place: World, document: str, token: str | None = None) -> connect:
    token = place.tokens["Ada"] if token is None else token
    return connect(
        f"{place.server.url.replace('http', 'ws')}/api/v1/sessions/{place.session}/documents/{document}?token={token}",
        max_size=None,
    )


def update_of(text: str) -> bytes:
    doc: Doc[Text] = Doc()
    content = doc.get("content", type=Text)
    content += text
    return bytes(doc.get_update())


async def heard(socket: ClientConnection, seconds: float = 10) -> bytes:
    """Return the next frame."""
    frame = await asyncio.wait_for(socket.recv(), seconds)
    assert isinstance(frame, bytes)
    return frame


async def closed_with(socket: ClientConnection) -> int | None:
    with pytest.raises(websockets.ConnectionClosed):
        while True:
            await asyncio.wait_for(socket.recv(), 10)
    return socket.close_code


@pytest.mark.parametrize(("token", "code"), [("", 4401), ("nonsense", 4401), ("a.b.c", 4401)])
async def test_nobody_comes_in_without_a_token(place: World, token: str, code: int) -> None:
    async with y_socket(place, "doc_x", token) as socket:
        assert await closed_with(socket) == code


async def test_a_stranger_s_token_opens_nothing(place: World) -> None:
    made = await place.http.post(f"{place.server.url}/api/v1/guests", json={"display_name": "Eve"})
    async with y_socket(place, "doc_x", made.json()["access_token"]) as socket:
        assert await closed_with(socket) == 4404


async def test_a_ticket_opens_one_socket(place: World) -> None:
    ticket = (await place.call("Ada", "POST", "/tickets")).json()["ticket"]
    async with y_socket(place, "doc_x", ticket) as socket:
        await socket.send(EMPTY_STEP1)
        await socket.recv()
    async with y_socket(place, "doc_x", ticket) as socket:
        assert await closed_with(socket) == 4401


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"", 4400),
        (b"\x0b", 4400),
        (b"\x06\x00", 4400),
        (b"\x00\x02\xff\xff\xff", 4400),
        (b"\x00\x02" + sized(b"\x05poison"), 4422),
        (b"\x00\x00" + sized(b"\xff"), 4422),
        (b"\x01" + sized(uint(100_000)), 4400),
        (bytes(2**20 + 1), 1009),
        ("text", 4400),
    ],
)
async def test_a_bad_frame_closes_its_own_socket_with_its_code(
    place: World, frame: bytes | str, code: int
) -> None:
    document = await place.put("Ada", "frames.txt", "kept")
    async with y_socket(place, document) as bystander, y_socket(place, document) as socket:
        await socket.send(frame)
        assert await closed_with(socket) == code
        await bystander.send(EMPTY_STEP1)
        assert (await asyncio.wait_for(bystander.recv(), 5))[:1] in (b"\x00", b"\x01")
    assert await place.text("Ada", "frames.txt") == "kept"


async def test_bad_document_names_are_refused(place: World) -> None:
    async with y_socket(place, "a.b") as socket:
        assert await closed_with(socket) == 4422


async def test_a_socket_without_a_token_has_five_seconds_and_64_kib(place: World) -> None:
    address = f"{place.server.url.replace('http', 'ws')}/api/v1/sessions/{place.session}/sync"
    async with connect(address) as socket:
        for _ in range(9):
            await socket.send(sized(b"doc_x") + b"\x01" + sized(bytes(8_000)))
        assert await closed_with(socket) == 1009
    async with connect(address) as socket:
        assert await closed_with(socket) == 4401


async def test_the_state_comes_before_synced_and_synced_comes_last(place: World) -> None:
    document = await place.put("Ada", "order.txt", "all of it")
    async with y_socket(place, document) as socket:
        await socket.send(EMPTY_STEP1)
        assert (await heard(socket))[:2] == b"\x00\x00"  # the server's own step1
        frame = await heard(socket)
        assert frame[:2] == b"\x00\x01"
        doc: Doc[Text] = Doc()
        doc.apply_update(frame[3:])
        assert str(doc.get("content", type=Text)) == "all of it"


async def test_whoever_asks_twice_at_once_is_answered_twice(place: World) -> None:
    document = await place.put("Ada", "twice.txt", "all of it")
    async with y_socket(place, document) as socket:
        for _ in range(2):
            await socket.send(EMPTY_STEP1)
        answers = 0
        while answers < 2:
            answers += (await heard(socket))[:2] == b"\x00\x01"


async def test_a_large_document_comes_in_parts_and_ends_with_an_empty_step2(place: World) -> None:
    document = await place.put("Ada", "large.txt", "")
    parts = [update_of(str(n) * 60_000) for n in range(8)]
    async with y_socket(place, document) as writer:
        for part in parts:
            await writer.send(b"\x00\x02" + sized(part))
        echoes = 0
        while echoes < len(parts):
            echoes += (await heard(writer, 10))[:2] == b"\x00\x02"
    async with y_socket(place, document) as socket:
        await socket.send(EMPTY_STEP1)
        frames: list[bytes] = []
        while not frames or frames[-1][:2] != b"\x00\x01":
            frames.append(await heard(socket, 10))
    assert frames[-1] == b"\x00\x01\x02\x00\x00"
    updates = [frame for frame in frames if frame[:2] == b"\x00\x02"]
    assert len(updates) >= 2
    assert max(map(len, updates)) < 300_000


async def test_the_echo_is_the_author_s_proof_and_comes_once(place: World) -> None:
    document = await place.put("Ada", "echo.txt", "")
    update = update_of("x")
    async with y_socket(place, document) as author, y_socket(place, document) as other:
        for socket in (author, other):
            await socket.send(EMPTY_STEP1)
            for _ in range(2):
                await socket.recv()
        await author.send(b"\x00\x02" + sized(update))
        assert (await heard(other, 5)) == b"\x00\x02" + sized(update)
        assert (await heard(author, 5)) == b"\x00\x02" + sized(update)
    assert await place.text("Ada", "echo.txt") == "x"


async def test_a_reader_s_edit_is_denied_in_words(place: World) -> None:
    document = await place.put("Ada", "read.txt", "x")
    async with y_socket(place, document, place.tokens["Vera"]) as socket:
        await socket.send(b"\x00\x02" + sized(update_of("no")))
        frame = await heard(socket, 5)
        assert frame[:2] == b"\x02\x00"
        assert b"role_forbids" in frame
    assert await place.text("Ada", "read.txt") == "x"


async def test_a_y_websocket_client_hears_something_every_ten_seconds(place: World) -> None:
    async with y_socket(place, "doc_quiet") as socket:
        assert (await heard(socket, 12)) == KEEPALIVE


async def test_a_flood_of_messages_ends_with_its_code(place: World) -> None:
    async with y_socket(place, "doc_flood") as socket:
        with pytest.raises(websockets.ConnectionClosed):
            for _ in range(20_000):
                await socket.send(b"\x03")
            await closed_with(socket)
            raise websockets.ConnectionClosedOK(None, None)
        await socket.wait_closed()
        assert socket.close_code == 4429


async def test_who_stops_pinging_is_shown_as_gone_within_ten_seconds(place: World) -> None:
    address = f"{place.server.url.replace('http', 'ws')}/api/v1/sessions/{place.session}/sync?token={place.tokens['Ada']}"
    name = sized(b"doc_silent")
    async with connect(address) as silent, connect(address) as other:
        await silent.send(name + b"\x09")
        await silent.send(name + b"\x01" + sized(b"\x01" + uint(7) + uint(1) + sized(b"{}")))
        await other.send(name + b"\x03")
        gone = b"\x01" + uint(7) + uint(1) + sized(b"null")
        while not (await heard(other, 11)).endswith(gone):
            pass
