"""What somebody has seen survives: twenty edits, SIGKILL the moment another client has the last one, start again.

python -m bench.hub.durability       Atelier with each of its logs, then the peers
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
from pathlib import Path
from typing import get_args

from pycrdt import Doc, Text
from websockets.asyncio.client import ClientConnection, connect

from bench.hub import stores
from bench.hub.servers import Name, Server, Started
from bench.hub.wire import STEP1, UPDATE, authentication, envelope, sized
from bench.writer import Writer

_EDITS = 20
_PEERS: tuple[Name, ...] = ("hocuspocus", "y-websocket", "pycrdt")


class Person:
    """A client of one document in the server's dialect."""

    def __init__(self, server: Server, socket: ClientConnection) -> None:
        self._name, self._authentication = envelope(server), authentication(server)
        self._socket = socket
        self.bytes = 0
        self.doc: Doc[Text] = Doc()
        self.text = self.doc.get("content", type=Text)

    async def enter(self) -> None:
        """Ask for the document and take what comes first."""
        if self._name:
            await self._socket.send(self._authentication)
        await self._socket.send(self._name + STEP1)
        async with asyncio.timeout(30):
            while await self.hear() != 1:
                pass

    async def hear(self) -> int:
        """Take the next message in; returns which step of the sync protocol it was, or -1."""
        frame = await asyncio.wait_for(self._socket.recv(), 20)
        assert isinstance(frame, bytes)
        self.bytes += len(frame)
        body = frame.removeprefix(self._name)
        if body[0] not in (0, 4):
            return -1
        if body[1] in (1, 2):
            size = shift = 0
            for at in range(2, len(body)):
                size |= (body[at] & 127) << shift
                shift += 7
                if body[at] < 128:
                    self.doc.apply_update(body[at + 1 : at + 1 + size])
                    break
        return body[1]

    async def write(self, words: str) -> None:
        """Send one edit."""
        with Writer(self.doc) as writer:
            self.text += words
        await self._socket.send(self._name + UPDATE + sized(writer.take()))


def line(url: str) -> connect:
    """Open a connection that is read as fast as it sends, and that does not say goodbye for long."""
    return connect(url, ping_interval=None, max_queue=None, max_size=None, close_timeout=1)


async def lost_in(name: Name, settings: dict[str, str]) -> int:
    """Run one round; returns how many edits that somebody had seen are gone."""
    with Started(name, settings=settings) as server:
        url = f"ws://127.0.0.1:{server.port}{server.rooms[0].split()[0]}"
        async with line(url) as one, line(url) as other:
            writer, reader = Person(server, one), Person(server, other)
            await writer.enter()
            await reader.enter()
            for number in range(1, _EDITS + 1):
                await writer.write("x")
                while len(str(reader.text)) < number:
                    await reader.hear()
            server.stop(signal.SIGKILL)
        await asyncio.to_thread(server.start)
        async with line(url) as again:
            late = Person(server, again)
            await late.enter()
            # Some answer before they have read their store, and send the rest later.
            with contextlib.suppress(TimeoutError):
                while len(str(late.text)) < _EDITS:
                    await asyncio.wait_for(late.hear(), 2)
            return _EDITS - len(str(late.text))


def main() -> int:
    """Measure, print; returns 1 when Atelier lost anything."""
    parser = argparse.ArgumentParser(prog="python -m bench.hub.durability")
    parser.add_argument("--rounds", type=int, default=20, help="of Atelier; the peers get three")
    options = parser.parse_args()
    failed = 0
    for store in get_args(stores.LogKind):
        with tempfile.TemporaryDirectory() as folder, stores.settings(store, Path(folder)) as settings:
            failed |= report("atelier", options.rounds, f"atelier, {store}", settings)
    for name in _PEERS:
        report(name, 3, name, {})
    return failed


def report(name: Name, rounds: int, words: str, settings: dict[str, str]) -> bool:
    """Run rounds and print; says whether anything was lost."""
    lost = [asyncio.run(lost_in(name, settings)) for _ in range(rounds)]
    print(
        f"{words:20} lost {sum(lost)} of {rounds * _EDITS} edits that another client had seen ({rounds} rounds)",
        flush=True,
    )
    return any(lost)


if __name__ == "__main__":
    sys.exit(main())
