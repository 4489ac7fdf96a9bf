"""What broke other servers of Yjs clients, one test for each: raw frames against a running server."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import websockets
from pycrdt import Doc, Text
from websockets.asyncio.client import ClientConnection, connect

from atelier.documents import difference, fold, sized, state_of, uint
from atelier.documents.crdt import text_in
from atelier.hub.protocol import Reader

from .clients import World, world

pytestmark = [pytest.mark.node, pytest.mark.asyncio(loop_scope="module")]
STEP1 = b"\x00\x00\x01\x00"
STATUS_SAVED, STATUS_REFUSED = b"\x08\x01", b"\x08\x00"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A server with a session of Ada's, Bob who may edit and Vera who may look."""
    async with world(Path(tmp_path_factory.mktemp("data"))) as made:
        await made.guest("Bob", "edit")
        await made.guest("Vera", "view")
        yield made


def y(place: World, document: str, who: str = "Ada") -> connect:
    """A socket in y-websocket's dialect."""
    address = f"{place.server.url.replace('http', 'ws')}/api/v1/sessions/{place.session}/documents/{document}"
    return connect(f"{address}?token={place.tokens[who]}", max_size=None)


def h(place: World, who: str = "Ada") -> connect:
    """A socket in Hocuspocus' dialect."""
    address = f"{place.server.url.replace('http', 'ws')}/api/v1/sessions/{place.session}/sync"
    return connect(f"{address}?token={place.tokens[who]}", max_size=None)


async def until(socket: ClientConnection, start: bytes) -> bytes:
    """Return the next frame that begins so."""
    async with asyncio.timeout(10):
        while True:
            frame = await socket.recv()
            assert isinstance(frame, bytes)
            if frame.startswith(start):
                return frame


async def fence(socket: ClientConnection) -> list[bytes]:
    """Return all frames that come before the answer to a step1 sent now."""
    await socket.send(STEP1)
    frames: list[bytes] = []
    async with asyncio.timeout(10):
        while not frames or frames[-1][:2] != b"\x00\x01":
            frame = await socket.recv()
            assert isinstance(frame, bytes)
            frames.append(frame)
    return frames


def body(frame: bytes) -> bytes:
    """The update in a sync frame."""
    return Reader(frame[2:]).take()


def presence(client: int, clock: int, state: str) -> bytes:
    return b"\x01" + sized(uint(1) + uint(client) + uint(clock) + sized(state.encode()))


def people(frame: bytes) -> dict[int, tuple[int, str]]:
    """Client ids, clocks and states of an awareness frame."""
    reader = Reader(Reader(frame[1:]).take())
    return {reader.uint(): (reader.uint(), reader.string()) for _ in range(reader.uint())}


def typed(*texts: str) -> list[bytes]:
    """Updates of somebody who typed these at the end of an empty text."""
    doc: Doc[Text] = Doc()
    content = doc.get("content", type=Text)
    updates: list[bytes] = []
    doc.observe(lambda event: updates.append(bytes(event.update)))
    for text in texts:
        content += text
    return updates


async def appended(place: World) -> float:
    metrics = (await place.http.get(f"{place.server.url}/metrics")).text
    return float(
        next(line for line in metrics.splitlines() if line.startswith("atelier_hub_appended_total")).split()[
            1
        ]
    )


async def test_the_server_speaks_first_of_who_is_here_and_says_its_own_state(place: World) -> None:
    async with y(place, "doc_first") as ada, y(place, "doc_first", "Bob") as bob:
        await ada.send(presence(11, 1, "{}"))
        await until(bob, b"\x01")
        async with y(place, "doc_first", "Vera") as vera:
            assert 11 in people(await until(vera, b"\x01"))  # unasked: y-websocket never asks
            assert [frame[:2] for frame in await fence(vera)][-2:] == [b"\x00\x00", b"\x00\x01"]


async def test_synced_comes_only_with_the_text_also_in_a_cold_document(place: World) -> None:
    document = await place.put("Ada", "cold.txt", "x" * 300_000)
    await place.server.end()
    await place.server.start()
    async with y(place, document) as one, y(place, document, "Bob") as two:
        for frames in await asyncio.gather(fence(one), fence(two)):
            texts = [body(frame) for frame in frames if frame[:2] in (b"\x00\x01", b"\x00\x02")]
            assert text_in(fold(texts)) == "x" * 300_000


async def test_every_frame_holds_one_message(place: World) -> None:
    async with y(place, "doc_one") as ada, y(place, "doc_one", "Bob") as bob:
        await fence(bob)
        for update in typed(*"abcdefgh"):
            await ada.send(b"\x00\x02" + sized(update))
        for _ in range(8):
            frame = await until(bob, b"\x00\x02")
            assert len(frame) == 2 + len(sized(body(frame)))


async def test_a_removal_goes_out_at_the_same_clock_and_a_rejoiner_is_asked_to_say_itself_anew(
    place: World,
) -> None:
    async with y(place, "doc_clock", "Bob") as bob:
        async with y(place, "doc_clock") as ada:
            await ada.send(presence(21, 7, "{}"))
            assert people(await until(bob, b"\x01"))[21][0] == 7
        assert people(await until(bob, b"\x01"))[21] == (7, "null")
        async with y(place, "doc_clock") as ada:
            await ada.send(presence(21, 7, "{}"))
            assert people(await until(ada, b"\x01")) == {21: (7, "null")}
            await ada.send(presence(21, 8, "{}"))
            while people(await until(bob, b"\x01"))[21][0] != 8:
                pass


async def test_who_rejoins_and_leaves_again_is_removed_again(place: World) -> None:
    async with y(place, "doc_again", "Bob") as bob:
        for clock in (1, 2, 3):
            async with y(place, "doc_again") as ada:
                await ada.send(presence(31, clock, "{}"))
                while people(await until(bob, b"\x01"))[31] == (clock, "null"):
                    pass
            while people(await until(bob, b"\x01"))[31] != (clock, "null"):
                pass


async def test_nobody_speaks_for_another_s_client_id_or_under_another_s_name(place: World) -> None:
    async with y(place, "doc_forge") as ada, y(place, "doc_forge", "Bob") as bob:
        await ada.send(presence(41, 1, '{"user":{"name":"Bob","id":"usr_x"}}'))
        await until(bob, b"\x01")
        for state in ('{"user":{"name":"Ada"},"forged":1}', "null"):
            await bob.send(presence(41, 9, state))
        await bob.send(b"\x03")
        clock, state = people(await until(bob, b"\x01"))[41]
        assert clock == 1
        assert json.loads(state)["user"]["name"] == "Ada"
        assert "forged" not in state


async def test_what_a_client_sends_back_is_no_claim(place: World) -> None:
    async with y(place, "doc_echo") as one, y(place, "doc_echo") as two, y(place, "doc_echo", "Bob") as bob:
        await one.send(presence(51, 3, "{}"))
        await until(two, b"\x01")
        for socket in (two, bob):
            await socket.send(presence(51, 3, "{}"))
            await fence(socket)
        await one.close()
        for socket in (two, bob):
            while people(await until(socket, b"\x01")).get(51) != (3, "null"):
                pass


async def test_no_presence_makes_another_client_throw(place: World) -> None:
    for entry in (
        presence(61, 1, '{"x":NaN}'),
        presence(2**53, 1, "{}"),
        presence(61, 2**53, "{}"),
        presence(61, 1, "["),
    ):
        async with y(place, "doc_throw") as ada, y(place, "doc_throw", "Bob") as bob:
            await ada.send(entry)
            with pytest.raises(websockets.ConnectionClosed):
                await until(ada, b"never")
            assert ada.close_code == 4400
            assert not [frame for frame in await fence(bob) if frame[:1] == b"\x01" and people(frame)]


async def test_a_reader_s_update_is_refused_in_words_and_an_answer_without_news_is_not(place: World) -> None:
    document = await place.put("Ada", "reader.txt", "abc")
    await place.put("Ada", "reader.txt", "ac")  # there is a deletion, which every answer repeats
    async with h(place, "Vera") as vera, y(place, document) as ada:
        name = sized(document.encode())
        state = body((await fence(ada))[-1])
        deletions = difference(state, state_of(state))
        assert deletions != b"\x00\x00"
        await vera.send(name + b"\x02\x00" + sized(place.tokens["Vera"].encode()))
        assert b"readonly" in await until(vera, name + b"\x02\x02")
        for answer in (b"\x00\x00", deletions):
            await vera.send(name + b"\x00\x01" + sized(answer))
            assert (await until(vera, name + b"\x08")).endswith(STATUS_SAVED)
        await vera.send(name + b"\x00\x02" + sized(typed("no")[0]))
        assert (await until(vera, name + b"\x08")).endswith(STATUS_REFUSED)
    assert await place.text("Ada", "reader.txt") == "ac"


async def test_an_answer_with_nothing_new_does_not_grow_the_log(place: World) -> None:
    document = await place.put("Ada", "still.txt", "still here")
    await place.put("Ada", "still.txt", "here")
    async with y(place, document) as ada:
        state = body((await fence(ada))[-1])
        before = await appended(place)
        for answer in (b"\x00\x00", difference(state, state_of(state))):
            await ada.send(b"\x00\x01" + sized(answer))
        await fence(ada)
        assert await appended(place) == before


async def test_values_nested_without_end_close_one_socket_even_a_reader_s(place: World) -> None:
    bomb = b"\x01\x01\x05\x00\x28\x01\x05files\x01k\x01" + b"\x75\x01" * 200_000 + b"\x7e\x00"
    for who in ("Ada", "Vera"):
        async with y(place, "tree") as bystander, y(place, "tree", who) as socket:
            await socket.send(b"\x00\x02" + sized(bomb))
            with pytest.raises(websockets.ConnectionClosed):
                await until(socket, b"never")
            assert socket.close_code == 4422
            await fence(bystander)


async def test_an_edit_that_waits_for_a_missing_one_is_kept_also_for_who_comes_later(place: World) -> None:
    first, missing, last = typed("abc", "d", "ef")
    document = await place.put("Ada", "gap.txt", "")
    async with y(place, document) as ada:
        await fence(ada)
        for update in (first, last):
            await ada.send(b"\x00\x02" + sized(update))
            await until(ada, b"\x00\x02")  # the echo
        assert await place.text("Ada", "gap.txt") == "abc"
        await ada.send(b"\x00\x02" + sized(missing))
        await until(ada, b"\x00\x02")
    assert await place.text("Ada", "gap.txt") == "abcdef"


async def test_one_document_s_name_never_serves_another_s_content(place: World) -> None:
    one = await place.put("Ada", "name.txt", "mine")
    async with h(place) as ada:
        for name in (f"{one}\0tab1", one):
            prefix = sized(name.encode())
            await ada.send(prefix + STEP1)
            assert text_in(body((await until(ada, prefix + b"\x00\x01"))[len(prefix) :])) == "mine"
    other = (await place.call("Bob", "POST", "/sessions", json={"name": "Other"})).json()["id"]
    address = f"{place.server.url.replace('http', 'ws')}/api/v1/sessions/{other}/documents/{one}"
    async with connect(f"{address}?token={place.tokens['Bob']}") as bob:
        assert body((await fence(bob))[-1]) == b"\x00\x00"


BROKEN = {
    "no mask": b"\x82\x02\x03\x03", "a reserved opcode": b"\x83\x80\0\0\0\0", "reserved bits": b"\xf2\x80\0\0\0\0",
    "an impossible length": b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", "a stray continuation": b"\x80\x80\0\0\0\0",
    "an oversized ping": b"\x89\xfe\x01\x00\0\0\0\0" + bytes(256), "a close code of one byte": b"\x88\x81\0\0\0\0\x03",
    "an invalid close code": b"\x88\x82\0\0\0\0\x00\x01", "text that is no UTF-8": b"\x81\x81\0\0\0\0\xff",
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
async def test_a_frame_that_is_wrong_below_the_protocol_ends_its_own_connection_only(
    place: World, what: str
) -> None:
    url = urlsplit(place.server.url)
    path = f"/api/v1/sessions/{place.session}/documents/doc_broken?token={place.tokens['Ada']}"
    async with y(place, "doc_broken") as bystander:
        reader, writer = await asyncio.open_connection(url.hostname, url.port, family=sockets.AF_INET)
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        async with asyncio.timeout(10):
            assert b"101" in await reader.readuntil(b"\r\n\r\n")
            writer.write(BROKEN[what])
            await reader.read()  # until the server ends it
        writer.close()
        await fence(bystander)
