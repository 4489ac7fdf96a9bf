"""A client in Python: pycrdt's own provider, unmodified, which comes back whenever its line ends."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import anyio
from pycrdt import Doc, Provider, Text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from atelier.documents.state import decode, encode

from .clients import Peer, World


class Channel:
    """A websocket as pycrdt's provider wants it."""

    path = "document"

    def __init__(self, line: ClientConnection) -> None:
        self._line = line

    def __aiter__(self) -> Channel:
        return self

    async def __anext__(self) -> bytes:
        return await self.recv()

    async def send(self, message: bytes) -> None:
        await self._line.send(message)

    async def recv(self) -> bytes:
        message = await self._line.recv()
        assert isinstance(message, bytes)
        return message


class PythonPeer(Peer):
    """Does what the clients in Node do when they are told the same."""

    def __init__(self, place: World, who: str, document: str, name: str) -> None:
        super().__init__(place.node, name)
        self.doc: Doc[Text] = Doc()
        self.content = self.doc.get("content", type=Text)
        address = (place.line_url or place.server.url).replace("http", "ws")
        self._url = (
            f"{address}/api/v1/sessions/{place.session}/documents/{document}?token={place.tokens[who]}"
        )
        self._provider: Provider | None = None
        self._task: asyncio.Task[None] | None = None
        self.connect()

    async def do(self, action: str, **arguments: Any) -> Any:
        """Carry one command out."""
        match action:
            case "connect":
                self.connect()
            case "disconnect" | "destroy":
                await self.disconnect()
            case "insert":
                at = len(str(self.content)[: arguments["at"]].encode())  # pycrdt counts in bytes
                self.content.insert(at, arguments["text"])
            case "trim":
                self._trim(arguments["letters"])
            case "type":
                for n in range(arguments["letters"]):
                    self.content += str(n % 10)
                    await asyncio.sleep(arguments["pause"] / 1000)
            case "waiting":
                # A new document that is given everything at once takes in what this one may not have looked at again.
                whole: Doc[Text] = Doc()
                whole.apply_update(self.doc.get_update())
                return {"lacks nothing": whole.get_state() == self.doc.get_state()}
            case _:
                raise ValueError(action)

    def _trim(self, letters: str) -> None:
        text = str(self.content)
        if text and text[-1] in letters:
            size = len(text.encode())
            del self.content[size - len(text[-1].encode()) : size]

    def connect(self) -> None:
        """Stay connected from now on."""
        if self._task is None:
            self._task = asyncio.create_task(self._stay())

    async def disconnect(self) -> None:
        """End the connection."""
        if self._task is not None:
            while not self._task.done():  # a line that ends just then swallows that it is to end
                self._task.cancel()
                await asyncio.wait([self._task], timeout=1)
            self._task = None

    async def _stay(self) -> None:
        while True:
            # The provider has no reconnection of its own; its group wraps what ended it.
            with contextlib.suppress(OSError, WebSocketException, ExceptionGroup, anyio.ClosedResourceError):
                async with connect(self._url, max_size=None, ping_interval=None) as line:
                    async with Provider(self.doc, Channel(line)) as self._provider:
                        await line.wait_closed()
            self._provider = None
            await asyncio.sleep(0.1)

    async def state(self) -> dict[str, Any]:
        """Return what the client knows now."""
        # yrs names clients of whom it has nothing that could be taken in yet; Yjs does not.
        clocks = {client: clock for client, clock in decode(bytes(self.doc.get_state())).items() if clock}
        return {
            "text": str(self.content),
            "synced": self._provider is not None and self._provider.synced.is_set(),
            "saved": False,  # it is not told
            "unsynced": 0,
            "closed": None,
            "vector": encode(clocks).hex(),
        }
