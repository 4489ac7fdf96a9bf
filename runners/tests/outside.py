"""An internet for tests: names and addresses that lead to servers on this machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from atelier_runner import Outward
from atelier_runner.outward import Streams

PUBLIC = "93.184.216.34"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Outside:
    """What `Outward` resolves and connects to. A name's answers are given one after the other, the last one for ever."""

    def __init__(self) -> None:
        self.names: dict[str, list[Sequence[str]]] = {"example.org": [[PUBLIC]]}
        self.servers: dict[tuple[str, int], Serve] = {}
        self.looked_up: list[str] = []
        self.connected: list[tuple[str, int]] = []
        self.outward = Outward(resolve=self.resolve, connect=self.connect)
        self._serving: set[asyncio.Task[None]] = set()

    def serve(self, server: Serve, address: str = PUBLIC, port: int = 80) -> None:
        self.servers[address, port] = server

    async def resolve(self, name: str) -> list[str]:
        self.looked_up.append(name)
        answers = self.names.get(name)
        if answers is None:
            raise OSError("no such name")
        return list(answers.pop(0) if len(answers) > 1 else answers[0])

    async def connect(self, address: str, port: int, private: bool) -> Streams:
        self.connected.append((address, port))
        if (server := self.servers.get((address, port))) is None:
            raise ConnectionRefusedError
        listener = await self.listen(server)
        try:
            return await asyncio.open_connection("127.0.0.1", listener.sockets[0].getsockname()[1])
        finally:
            listener.close()

    async def listen(self, server: Serve) -> asyncio.Server:
        """Serve on a free port of this machine."""

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
            try:
                await server(reader, writer)
            except (OSError, asyncio.CancelledError):
                pass
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

        return await asyncio.start_server(accepted, "127.0.0.1", 0)

    async def close(self) -> None:
        """End what is still served."""
        self.outward.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say again what comes, until it ends."""
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


async def show(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request with its own head."""
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(head) + head)
    await writer.drain()
