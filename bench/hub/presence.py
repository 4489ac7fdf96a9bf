"""Everybody in one document, each with a cursor: does everybody see everybody, and one writer's edits in time?

python -m bench.hub.presence                 100, 500 and 1,500 people
python -m bench.hub.presence --people 3000
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import time

from bench.hub.servers import Server, Started
from bench.hub.wire import masked, sized
from bench.served import percentile

_EDITS = 30
_EDIT_SECONDS = 0.2
_WRITER = 999_999
_FIRST = 10_000  # the first awareness client id


def uint(value: int) -> bytes:
    """Encode a number as lib0 does."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes((value,))


class Person(asyncio.Protocol):
    """One connection: counts whom it has seen and when it got each of the writer's edits."""

    def __init__(self, request: bytes) -> None:
        self.seen: set[int] = set()
        self.got: dict[int, float] = {}
        self.ready = asyncio.Event()
        self._request = request
        self._data = bytearray()
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.line = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._open:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return
            if b" 101 " not in self._data[:end]:
                raise RuntimeError(self._data[:200].decode(errors="replace"))
            del self._data[: end + 4]
            self._open = True
            self.line.write(masked(b"\x00\x00\x01\x00"))
        at, buffer = 0, self._data
        while len(buffer) - at >= 2:
            size, start = buffer[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(buffer[at + 2 : at + 4]), at + 4
            elif size == 127:
                size, start = int.from_bytes(buffer[at + 2 : at + 10]), at + 10
            if len(buffer) - start < size:
                break
            self._message(bytes(buffer[start : start + size]))
            at = start + size
        del buffer[:at]

    def _message(self, body: bytes) -> None:
        if body[:2] == b"\x00\x01":
            self.ready.set()
        elif body[:2] == b"\x00\x02":
            self.got[body[-2]] = time.perf_counter()  # the edit's letter says its number
        elif body[:1] == b"\x01":
            at, (count, at) = 0, _uint(body, _uint(body, 1)[1])
            for _ in range(count):
                client, at = _uint(body, at)
                _, at = _uint(body, at)
                length, at = _uint(body, at)
                if body[at : at + length] != b"null":
                    self.seen.add(client)
                at += length


def _uint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def edit(number: int) -> bytes:
    """One typed character, whose code is the number, as Yjs writes it."""
    place = b"\x04\x01" + sized(b"content") if number == 0 else b"\x84" + uint(_WRITER) + uint(number - 1)
    update = b"\x01\x01" + uint(_WRITER) + uint(number) + place + b"\x01" + bytes((number + 1,)) + b"\x00"
    return b"\x00\x02" + sized(update)


async def gathering(server: Server, count: int) -> tuple[float, int, list[float], int]:
    """Return seconds until everybody sees everybody, who is not seen, latencies in ms, and edits not delivered."""
    path = server.rooms[0].split()[0]
    request = (
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()
    loop = asyncio.get_running_loop()
    people: list[Person] = []
    for first in range(0, count, 20):
        some = [
            (await loop.create_connection(lambda: Person(request), "127.0.0.1", server.port))[1]
            for _ in range(min(20, count - first))
        ]
        for person in some:
            await asyncio.wait_for(person.ready.wait(), 20)
        people += some
    began = time.perf_counter()
    for number, person in enumerate(people):
        state = sized(b'{"cursor":{"line":%d}}' % number)
        update = uint(1) + uint(_FIRST + number) + uint(1) + state
        person.line.write(masked(b"\x01" + sized(update)))
    everybody = {_FIRST + number for number in range(count)}
    # A client need not be told of itself.
    while time.perf_counter() - began < 60:
        await asyncio.sleep(0.05)
        if all(len(person.seen) >= count - 1 for person in people):
            break
    seconds = time.perf_counter() - began
    unseen = sum(len(everybody - person.seen - {_FIRST + number}) for number, person in enumerate(people))
    sent: list[float] = []
    for number in range(_EDITS):
        sent.append(time.perf_counter())
        people[0].line.write(masked(edit(number)))
        # Cursors move meanwhile: a tenth of the people, each time.
        for other in range(number % 10, count, 10):
            state = sized(b'{"cursor":{"line":%d}}' % number)
            update = uint(1) + uint(_FIRST + other) + uint(2 + number) + state
            people[other].line.write(masked(b"\x01" + sized(update)))
        await asyncio.sleep(_EDIT_SECONDS)
    await asyncio.sleep(2)
    late = [
        (person.got[number + 1] - at) * 1e3
        for person in people[1:]
        for number, at in enumerate(sent)
        if number + 1 in person.got
    ]
    for person in people:
        person.line.abort()
    return seconds, unseen, late, _EDITS * (count - 1) - len(late)


def main() -> int:
    """Measure and print; returns 1 when anything was not delivered."""
    parser = argparse.ArgumentParser(prog="python -m bench.hub.presence")
    parser.add_argument("--people", type=int, nargs="*", default=[100, 500, 1_500])
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    failed = 0
    for count in options.people:
        with Started("atelier") as server:
            seconds, unseen, late, lost = asyncio.run(gathering(server, count))
        print(
            f"{'met   ' if not unseen + lost else 'MISSED'} {count:,} people: everybody seen by everybody after {seconds:.1f} s"
            f" ({unseen} missing); edits p50 {percentile(late, 0.5):.0f} ms, p99 {percentile(late, 0.99):.0f} ms,"
            f" undelivered {lost} of {_EDITS * (count - 1):,}",
            flush=True,
        )
        failed |= bool(unseen + lost)
    return failed


if __name__ == "__main__":
    sys.exit(main())
