"""What a program may say to the proxy, and what comes of it: the test speaks the agent's frames, so it may also lie."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from atelier_runner import Network, frames
from atelier_runner.channels import CONNECTIONS, LINE, WINDOW, Channels
from atelier_runner.outward import Outward, Streams, open_connection
from atelier_runner.proxy import Bounds, Proxy

from .outside import PUBLIC, Outside, echo, show


class Inside:
    """The agent's end of a stream, without any of its manners."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.last = 0
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def say(self, kind: int, number: int, payload: bytes = b"") -> None:
        self.writer.write(frames.encode(kind, struct.pack(">I", number) + payload))

    def open(self, sent: bytes = b"") -> int:
        self.last += 1
        self.say(frames.CONNECTED, self.last)
        for start in range(0, len(sent), 4096):
            self.say(frames.CARRIED, self.last, sent[start : start + 4096])
        return self.last

    async def answer(self, number: int, until: bytes | None = None) -> bytes:
        """Return what comes on one connection until it ends, or has this in it."""
        async with asyncio.timeout(10):
            return await self._answer(number, until)

    async def _answer(self, number: int, until: bytes | None) -> bytes:
        found = bytearray()
        while True:
            frame = await frames.read(self.reader)
            assert frame is not None
            kind, payload = frame
            if struct.unpack_from(">I", payload)[0] != number:
                continue
            if kind == frames.CARRIED:
                found += payload[4:]
                self.say(frames.CREDIT, number, struct.pack(">I", len(payload) - 4))
                if until is not None and until in found:
                    return bytes(found)
            elif kind in (frames.ENDED, frames.BROKEN):
                return bytes(found)

    async def ask(self, sent: bytes) -> bytes:
        """Open a connection, say this and nothing more, and return the answer."""
        number = self.open(sent)
        self.say(frames.ENDED, number)
        return await self.answer(number)

    async def refused(self, sent: bytes) -> int:
        """Return the status of an answer that is one of the proxy's own."""
        answer = await self.ask(sent)
        assert b"\r\nProxy-Status: atelier; error=" in answer, answer
        return int(answer.split()[1])


@asynccontextmanager
async def between(network: Network, outward: Outward, bounds: Bounds | None = None) -> AsyncIterator[Inside]:
    """A proxy on the other end of a stream."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    inside = Inside(*await asyncio.open_connection(sock=theirs))
    channels = Channels(writer, Proxy(network, outward, bounds).serve)

    async def pump() -> None:
        try:
            while (frame := await frames.read(reader)) is not None:
                channels.take(*frame)
        except frames.BadFrame as error:
            inside.broken.set_exception(error)

    pumping = asyncio.create_task(pump())
    try:
        yield inside
    finally:
        await channels.close()
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)
        if inside.broken.done():
            inside.broken.exception()
        for end in (writer, inside.writer):
            end.close()
        outward.close()


@pytest_asyncio.fixture
async def outside() -> AsyncIterator[Outside]:
    found = Outside()
    found.serve(show)
    found.serve(echo, port=443)
    yield found
    await found.close()


def connect(target: str) -> bytes:
    return f"CONNECT {target} HTTP/1.1\r\n\r\n".encode()


def get(target: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", *headers, "", ""]).encode("latin-1")


# --- where it leads ---------------------------------------------------------------------------------------------------

INSIDE = [
    "127.0.0.1", "0.0.0.0", "169.254.169.254", "100.64.0.1", "10.0.0.1", "::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "fd00::1", "fd00:ec2::254", "fe80::1", "fe80::1%lo", "::",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
async def test_a_name_that_leads_inside_is_refused(outside: Outside, address: str) -> None:
    outside.names["a.example"] = [[address]]
    async with between(Network(), outside.outward) as inside:
        assert await inside.refused(connect("a.example:443")) == 403
        assert await inside.refused(get("http://a.example/")) == 403
    assert outside.connected == []
    assert outside.outward.refused["address"] == 2


@pytest.mark.parametrize("address", INSIDE)
async def test_so_is_the_address_itself(outside: Outside, address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    async with between(Network(), outside.outward) as inside:
        assert await inside.refused(connect(f"{host}:443")) in (400, 403)
        assert await inside.refused(get(f"http://{host}/")) in (400, 403)
    assert not outside.connected
    assert not outside.looked_up


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.0x0.0x0.0x1", "0", "127.0.0.01"]
)
async def test_an_address_in_another_way_of_writing_is_not_looked_up(outside: Outside, host: str) -> None:
    async with between(Network(), outside.outward) as inside:
        assert await inside.refused(connect(f"{host}:80")) == 400
        assert await inside.refused(get(f"http://{host}/")) == 400
    assert not outside.connected
    assert not outside.looked_up


async def test_a_name_that_answers_otherwise_the_second_time_is_asked_once(outside: Outside) -> None:
    """DNS rebinding: what was checked is what is connected to."""
    outside.names["rebind.example"] = [[PUBLIC], ["127.0.0.1"]]
    outside.serve(show, "127.0.0.1")
    async with between(Network(), outside.outward) as inside:
        assert b"200 OK" in await inside.ask(get("http://rebind.example/"))
        assert (outside.looked_up, outside.connected) == (["rebind.example"], [(PUBLIC, 80)])
        assert await inside.refused(get("http://rebind.example/")) == 403
    assert outside.connected == [(PUBLIC, 80)]


async def test_of_several_addresses_only_public_ones_are_tried(outside: Outside) -> None:
    outside.names["mixed.example"] = [["127.0.0.1", "10.0.0.1", "1.2.3.4", PUBLIC]]
    outside.serve(show, "127.0.0.1")
    async with between(Network(), outside.outward) as inside:
        assert b"200 OK" in await inside.ask(get("http://mixed.example/"))
    assert outside.connected == [("1.2.3.4", 80), (PUBLIC, 80)]


async def test_a_redirect_is_the_program_s_to_follow_and_is_checked_like_any_request(
    outside: Outside,
) -> None:
    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/\r\nContent-Length: 0\r\n\r\n"
        )

    outside.serve(redirect)
    async with between(Network(), outside.outward) as inside:
        assert b"Location: http://169.254.169.254/" in await inside.ask(get("http://example.org/"))
        assert await inside.refused(get("http://169.254.169.254/latest/")) == 403
    assert outside.connected == [(PUBLIC, 80)]


@pytest.mark.parametrize("port", [1, 22, 25, 53, 2375, 6379, 8080, 65535])
async def test_odd_ports_are_refused(outside: Outside, port: int) -> None:
    async with between(Network(), outside.outward) as inside:
        assert await inside.refused(connect(f"example.org:{port}")) == 403
        assert await inside.refused(get(f"http://example.org:{port}/")) == 403
    assert outside.looked_up == []


async def test_an_operator_allows_other_ports(outside: Outside) -> None:
    outside.serve(echo, port=8443)
    outward = Outward(ports=(8443,), resolve=outside.resolve, connect=outside.connect)
    async with between(Network(), outward) as inside:
        assert b" 200 " in await inside.ask(connect("example.org:8443"))
        assert await inside.refused(connect("example.org:443")) == 403


async def test_names_that_are_none_and_hosts_that_do_not_answer_are_said(outside: Outside) -> None:
    outside.names["silent.example"] = [["1.2.3.4"]]
    outside.names["empty.example"] = [[]]
    async with between(Network(), outside.outward) as inside:
        assert await inside.refused(connect("nowhere.example:443")) == 502
        assert await inside.refused(connect("empty.example:443")) == 502
        assert await inside.refused(connect("silent.example:443")) == 502


async def test_the_machine_s_own_connection_is_checked_too(outside: Outside) -> None:
    """What reaches this machine is refused even where its address was found to be public."""
    server = await outside.listen(echo)
    port = server.sockets[0].getsockname()[1]

    async def led_back(_address: str, _port: int, private: bool) -> Streams:
        return await open_connection("127.0.0.1", port, private)

    outward = Outward(resolve=outside.resolve, connect=led_back)
    async with between(Network(), outward) as inside:
        assert await inside.refused(connect("example.org:443")) == 403
    server.close()
    await server.wait_closed()


# --- what it says -----------------------------------------------------------------------------------------------------

NO_REQUESTS = {
    "nothing": b"\r\n\r\n",
    "noise": b"\xff\xfe\0\r\n\r\n",
    "an origin's form": b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "https in the open": b"GET https://example.org/ HTTP/1.1\r\n\r\n",
    "another scheme": b"GET ftp://example.org/ HTTP/1.1\r\n\r\n",
    "a file": b"GET file:///etc/passwd HTTP/1.1\r\n\r\n",
    "another version": b"GET http://example.org/ HTTP/2.0\r\n\r\n",
    "two spaces": b"GET  http://example.org/ HTTP/1.1\r\n\r\n",
    "a name and a password": b"GET http://example.org@127.0.0.1/ HTTP/1.1\r\n\r\n",
    "a backslash": b"GET http://example.org\\@127.0.0.1/ HTTP/1.1\r\n\r\n",
    "a tab in the target": b"GET http://exa\tmple.org/ HTTP/1.1\r\n\r\n",
    "CONNECT without a port": b"CONNECT example.org HTTP/1.1\r\n\r\n",
    "CONNECT with a path": b"CONNECT example.org:443/x HTTP/1.1\r\n\r\n",
    "CONNECT with a scheme": b"CONNECT http://example.org:443 HTTP/1.1\r\n\r\n",
    "a bare LF": b"GET http://example.org/ HTTP/1.1\r\nA: b\nHost: x\r\n\r\n",
    "a bare CR": b"GET http://example.org/ HTTP/1.1\r\nA: b\rHost: x\r\n\r\n",
    "a NUL": b"GET http://example.org/ HTTP/1.1\r\nA: b\0\r\n\r\n",
    "a folded header": b"GET http://example.org/ HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
    "a space before a colon": b"GET http://example.org/ HTTP/1.1\r\nContent-Length : 3\r\n\r\n",
    "a header without a name": b"GET http://example.org/ HTTP/1.1\r\n: b\r\n\r\n",
    "a header without a colon": b"GET http://example.org/ HTTP/1.1\r\nHost\r\n\r\n",
    "two lengths": b"POST http://example.org/ HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "the same length twice": b"POST http://example.org/ HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\nabc",
    "a length with a sign": b"POST http://example.org/ HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc",
    "a length and chunks": b"POST http://example.org/ HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks of chunks": b"POST http://example.org/ HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunks by another name": b"POST http://example.org/ HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "too many headers": b"GET http://example.org/ HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", list(NO_REQUESTS))
async def test_what_could_be_understood_in_two_ways_is_refused(outside: Outside, name: str) -> None:
    async with between(Network(), outside.outward) as inside:
        assert await inside.refused(NO_REQUESTS[name]) == 400
    assert outside.looked_up == []


async def test_a_huge_head_is_refused_and_the_answer_still_read(outside: Outside) -> None:
    async with between(Network(), outside.outward) as inside:
        assert await inside.refused(get("http://example.org/", "A: " + "b" * 2 * LINE)) == 431


async def test_a_slow_head_is_given_up(outside: Outside) -> None:
    async with between(Network(), outside.outward, Bounds(head_seconds=0.2)) as inside:
        number = inside.open(b"GET http://exam")
        assert b" 408 " in await inside.answer(number)
        number = inside.open()
        assert b" 408 " in await inside.answer(number)


async def test_what_is_passed_on_is_written_anew(outside: Outside) -> None:
    sent = get(
        "http://Example.org:80/a%20b/../c?d=e#f", "Host: other.example", "Connection: keep-alive, X-Secret", "X-Secret: 1",
        "Proxy-Authorization: Basic x", "Proxy-Connection: keep-alive", "Upgrade: h2c", "TE: trailers", "X-Kept: \u00fc",
    )  # fmt: skip
    async with between(Network(), outside.outward) as inside:
        answer = await inside.ask(sent)
    shown = answer.partition(b"\r\n\r\n")[2]
    assert shown == (
        b"GET /a%20b/../c?d=e HTTP/1.1\r\nHost: Example.org:80\r\nConnection: close\r\nX-Kept: \xfc\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("header", "body", "expected"),
    [
        ("Content-Length: 5", b"hello", b"hello"),
        (
            "Transfer-Encoding: chunked",
            b"3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nX: y\r\n\r\n",
            b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        ),
    ],
)
async def test_a_request_that_hides_behind_another_s_body_is_not_passed_on(
    outside: Outside, header: str, body: bytes, expected: bytes
) -> None:
    seen = bytearray()
    done = asyncio.Event()

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while len(seen) < len(expected):
            seen.extend(await reader.read(4096))
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfine")
        await writer.drain()
        try:
            async with asyncio.timeout(0.2):
                seen.extend(await reader.read(4096))
        except TimeoutError:
            pass
        done.set()

    outside.serve(server)
    sent = f"POST http://example.org/ HTTP/1.1\r\n{header}\r\n\r\n".encode() + body
    async with between(Network(), outside.outward) as inside:
        answer = await inside.ask(sent + b"GET /hidden HTTP/1.1\r\nHost: other\r\n\r\n")
        await done.wait()
    assert answer.endswith(b"fine")
    assert bytes(seen) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"g\r\n",
        b"-1\r\n",
        b"\r\n",
        b"0x3\r\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"f" * 13 + b"\r\n",
        b"1" + b";x" * 5000 + b"\r\n",
        b"1" + b";x" * 20000,
    ],
)
async def test_chunks_that_cannot_be_read_end_the_connection(outside: Outside, body: bytes) -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    outside.serve(server)
    head = b"POST http://example.org/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with between(Network(), outside.outward) as inside:
        number = inside.open(head + body)
        async with asyncio.timeout(5):
            assert await inside.answer(number) == b""


# --- how much, and how long -------------------------------------------------------------------------------------------


async def test_what_stands_still_is_closed(outside: Outside) -> None:
    """Both a program that says nothing, and a host that has ended while the program holds on."""

    async def one_word(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.write_eof()
        await reader.read()

    outside.serve(one_word, port=80)
    async with between(Network(), outside.outward, Bounds(idle_seconds=0.3)) as inside:
        number = inside.open(connect("example.org:443"))
        assert (await inside.answer(number)).startswith(b"HTTP/1.1 200 ")
        number = inside.open(connect("example.org:80"))
        assert (await inside.answer(number)).endswith(b"bye")
        async with asyncio.timeout(3):
            while outside.outward.open:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_half_a_connection_goes_on(outside: Outside) -> None:
    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())

    outside.serve(upper, port=443)
    async with between(Network(), outside.outward) as inside:
        assert (await inside.ask(connect("example.org:443") + b"hello")).endswith(b"\r\n\r\nHELLO")


async def test_no_more_is_carried_than_a_run_may(outside: Outside) -> None:
    async with between(Network(), outside.outward, Bounds(most_bytes=50_000)) as inside:
        number = inside.open(connect("example.org:443"))
        await inside.answer(number, until=b"\r\n\r\n")
        for _ in range(10):
            inside.say(frames.CARRIED, number, bytes(6000))
        await inside.answer(number)
        assert await inside.refused(connect("example.org:443")) == 403
    assert outside.outward.refused["amount"] == 1
    assert outside.outward.carried < 130_000


async def test_a_host_that_sends_without_end_waits_for_a_program_that_does_not_read(outside: Outside) -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(bytes(1 << 16))
            await writer.drain()
            sent += 1 << 16

    outside.serve(flood, port=443)
    async with between(Network(), outside.outward) as inside:
        number = inside.open(connect("example.org:443"))
        got = 0
        while got < WINDOW:
            frame = await frames.read(inside.reader)
            assert frame is not None
            got += len(frame[1]) - 4
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await frames.read(inside.reader)
        assert got == WINDOW
        before = sent
        other = inside.open(get("http://example.org/"))
        assert b"200 OK" in await inside.answer(other)
        assert sent == before
        inside.say(frames.BROKEN, number)


async def test_everybody_s_connections_have_a_bound(outside: Outside) -> None:
    async with between(Network(), outside.outward) as inside:
        outside.outward.open = 256
        assert await inside.refused(connect("example.org:443")) == 503


async def test_a_name_that_is_looked_up_for_ever_holds_up_only_its_own() -> None:
    outside, waiting, released = Outside(), 0, asyncio.Event()

    async def resolve(name: str) -> list[str]:
        nonlocal waiting
        waiting += 1
        await released.wait()
        return [PUBLIC]

    outward = Outward(resolve=resolve, connect=outside.connect)
    async with between(Network(), outward, Bounds(lookups=4, lookup_seconds=0.2)) as inside:
        numbers = [inside.open(connect(f"n{n}.example:443")) for n in range(10)]
        for number in numbers[:4]:
            assert b" 504 " in await inside.answer(number)
        assert waiting == 4
        released.set()


async def test_connections_are_opened_at_a_pace(outside: Outside) -> None:
    began = asyncio.get_running_loop().time()
    async with between(Network(), outside.outward) as inside:
        for _ in range(CONNECTIONS + 8):
            assert await inside.refused(connect("example.org:1")) == 403
    assert asyncio.get_running_loop().time() - began > 0.3


# --- what an agent may say --------------------------------------------------------------------------------------------


def opened_again(inside: Inside) -> None:
    inside.open()
    inside.last = 0
    inside.open()


def opened_without_end(inside: Inside) -> None:
    for _ in range(2 * CONNECTIONS + 1):
        inside.open()


def sent_beyond_its_window(inside: Inside) -> None:
    number = inside.open(connect("example.org:443"))
    for _ in range(2 + WINDOW // 4096):
        inside.say(frames.CARRIED, number, bytes(4096))


def sent_after_its_end(inside: Inside) -> None:
    number = inside.open()
    inside.say(frames.ENDED, number)
    inside.say(frames.CARRIED, number, b"x")


LIES: dict[str, Callable[[Inside], None]] = {
    "a number twice": opened_again,
    "the number 0": lambda inside: inside.say(frames.CONNECTED, 0),
    "connections without end": opened_without_end,
    "more than its window": sent_beyond_its_window,
    "more after the end": sent_after_its_end,
    "nothing": lambda inside: inside.say(frames.CARRIED, inside.open()),
    "what never was": lambda inside: inside.say(frames.CARRIED, 9, b"x"),
    "no number": lambda inside: inside.writer.write(frames.encode(frames.CARRIED, b"abc")),
    "half a count": lambda inside: inside.say(frames.CREDIT, inside.open(), b"\0"),
}


@pytest.mark.parametrize("name", list(LIES))
async def test_an_agent_that_lies_loses_its_run(outside: Outside, name: str) -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(9)

    outside.serve(wait, port=443)
    async with between(Network(), outside.outward) as inside:
        LIES[name](inside)
        with pytest.raises(frames.BadFrame):
            async with asyncio.timeout(5):
                await inside.broken


async def test_what_comes_late_for_a_connection_that_ended_is_passed_over(outside: Outside) -> None:
    async with between(Network(), outside.outward) as inside:
        number = inside.open(get("http://example.org/"))
        assert b"200 OK" in await inside.answer(number)
        frame = await frames.read(inside.reader)
        assert frame is not None
        assert frame[0] == frames.BROKEN
        for kind in (frames.CARRIED, frames.CREDIT, frames.ENDED, frames.BROKEN):
            inside.say(kind, number, b"late")
        inside.say(frames.CREDIT, 0, struct.pack(">I", 1 << 31))
        assert b"200 OK" in await inside.ask(get("http://example.org/"))


async def test_a_connection_that_breaks_ends_on_the_other_side_too(outside: Outside) -> None:
    ended = asyncio.Event()

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            ended.set()

    outside.serve(server, port=443)
    async with between(Network(), outside.outward) as inside:
        number = inside.open(connect("example.org:443"))
        await inside.answer(number, until=b"\r\n\r\n")
        inside.say(frames.BROKEN, number)
        async with asyncio.timeout(5):
            await ended.wait()
