"""Unmodified Yjs clients in Node and a server that can be killed, for tests of the hub."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import shutil
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

BIN = Path(sys.executable).parent
NODE_TESTS = Path(__file__).parents[1] / "node"
START_SECONDS = 60
"""A machine that does much else at once may take this long."""


def _environment() -> dict[str, str]:
    """What a server inherits: nothing of Atelier's own, since it refuses what is no setting."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ATELIER_")}


class LiveServer:
    """`atelier serve` on one port and folder; may be killed and started again."""

    def __init__(self, data: Path, *, own_clock: bool = False, **settings: str) -> None:
        self._clock_file = data / "clock" if own_clock else None
        self.settings = {f"ATELIER_{name.upper()}": value for name, value in settings.items()}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.data = data
        self._process: Process | None = None

    async def start(self) -> None:
        """Start and wait until it says that it is ready."""
        with (self.data / "server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                BIN / "atelier", "serve", "--port", str(self.port), "--data", str(self.data), stdout=PIPE, stderr=log,
                env={**_environment(), **self._clock(), "ATELIER_LIMIT_GUESTS_PER_HOUR": "100000", "ATELIER_LIMIT_FRAME_BYTES": "1048576", **self.settings},
            )  # fmt: skip
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), START_SECONDS)
            assert b"ready" in line, (self.data / "server.log").read_text()[-2000:]
        except BaseException:
            await self.end()
            raise

    def _clock(self) -> dict[str, str]:
        if self._clock_file is None:
            return {}
        library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
        if library is None:
            assert os.environ.get("CI") != "true", "libfaketime is missing"
            return {}  # the time does not jump here
        self._clock_file.write_text("+0")
        variables = {
            "TIMESTAMP_FILE": str(self._clock_file),
            "CACHE_DURATION": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        return {"LD_PRELOAD": str(library)} | {f"FAKETIME_{name}": value for name, value in variables.items()}

    def jump(self, seconds: int) -> None:
        """Set the clock of a server that has its own so far before or behind the right time."""
        assert self._clock_file is not None
        self._clock_file.write_text(f"{seconds:+}")

    def allow_files_of(self, size: int) -> None:
        """Let the process write no file beyond `size` bytes, as if the disk were full; -1: any size again."""
        if self._process is not None:
            resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    async def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Kill (or ask to end) and wait."""
        if self._process is not None:
            self._process.send_signal(how)
            await self._process.communicate()
            self._process = None


@asynccontextmanager
async def live_server(data: Path) -> AsyncIterator[LiveServer]:
    """Run a server around a block."""
    server = LiveServer(data)
    await server.start()
    try:
        yield server
    finally:
        await server.end(signal.SIGTERM)


@asynccontextmanager
async def two_servers(folder: Path, postgres_url: str, redis_url: str) -> AsyncIterator[list[LiveServer]]:
    """Run two processes of one Atelier around a block; it may end them itself."""
    servers = []
    for name in ("one", "two"):
        (folder / name).mkdir()
        servers.append(
            LiveServer(
                folder / name, db_url=postgres_url, log_url=redis_url, bus_url=redis_url,
                blobs_url=f"file://{folder}/blobs", secret_key="s" * 40,
            )
        )  # fmt: skip
    try:
        for server in servers:
            await server.start()
        yield servers
    finally:
        for server in servers:
            await server.end(signal.SIGTERM)


class Node:
    """The process that the clients live in."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reader = asyncio.create_task(self._read())

    async def ask(self, do: str, **arguments: Any) -> Any:
        """Send one command and wait for its answer."""
        number = next(self._ids)
        done = self._waiting[number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "do": do, **arguments}).encode() + b"\n")
        return await asyncio.wait_for(done, 20)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            done = self._waiting.pop(answer["id"])
            if "error" in answer:
                done.set_exception(AssertionError(answer["error"]))
            else:
                done.set_result(answer["ok"])

    async def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reader


@asynccontextmanager
async def node(program_file: str = "client.mjs") -> AsyncIterator[Node]:
    """Run Node around a block."""
    if not (NODE_TESTS / "node_modules").exists():
        assert os.environ.get("CI") != "true", "the Node packages of the tests are missing"
        pytest.skip("deploy/setup.sh node server/tests/node")
    program = shutil.which("node", path=str(BIN)) or "node"
    process = await asyncio.create_subprocess_exec(
        program, program_file, cwd=NODE_TESTS, stdin=PIPE, stdout=PIPE, stderr=None, limit=64 * 1024 * 1024
    )
    running = Node(process)
    try:
        yield running
    finally:
        await running.close()


@dataclass(slots=True)
class Peer:
    """One client: a person with one document open in one dialect."""

    node: Node
    name: str
    acknowledged: list[str] = field(default_factory=list)

    async def do(self, action: str, **arguments: Any) -> Any:
        """Send a command for this client."""
        return await self.node.ask(action, client=self.name, **arguments)

    async def state(self) -> dict[str, Any]:
        """Return what the client knows now."""
        found: dict[str, Any] = await self.do("state")
        return found

    async def until(self, condition: Callable[[dict[str, Any]], bool], seconds: float = 15) -> dict[str, Any]:
        """Ask again and again until the state fulfils the condition."""
        end = time.monotonic() + seconds
        while True:
            state = await self.state()
            if condition(state):
                return state
            assert time.monotonic() < end, f"{self.name}: {str(state)[:1500]}"
            await asyncio.sleep(0.01)

    async def stays(self, condition: Callable[[dict[str, Any]], bool], seconds: float) -> None:
        """Ask again and again for a while: the state fulfils the condition all the time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            state = await self.state()
            assert condition(state), f"{self.name}: {str(state)[:1500]}"
            await asyncio.sleep(0.01)


class World:
    """A server, Node, and people with a session."""

    def __init__(self, server: LiveServer, node: Node, http: httpx2.AsyncClient) -> None:
        self.server, self.node, self.http = server, node, http
        self.tokens: dict[str, str] = {}
        self.session = ""
        self.line_url = ""
        """Where clients connect to when that is not the server itself."""

    async def call(self, who: str, method: str, path: str, **options: Any) -> httpx2.Response:
        """Call the API as somebody."""
        headers = {"Authorization": f"Bearer {self.tokens[who]}"}
        return await self.http.request(method, f"{self.server.url}/api/v1{path}", headers=headers, **options)

    async def guest(self, name: str, role: str | None = None) -> None:
        """Make a guest: the owner of a new session, or a member of it by a link."""
        made = await self.http.post(f"{self.server.url}/api/v1/guests", json={"display_name": name})
        self.tokens[name] = made.json()["access_token"]
        if role is None:
            self.session = (await self.call(name, "POST", "/sessions", json={"name": "Test"})).json()["id"]
        else:
            owner = next(iter(self.tokens))
            link = (
                await self.call(owner, "POST", f"/sessions/{self.session}/links", json={"role": role})
            ).json()
            assert (await self.call(name, "POST", f"/links/{link['token']}/join")).status_code == 200

    async def put(self, who: str, path: str, text: str) -> str:
        """Write a file; returns its document's id."""
        answer = await self.call(who, "PUT", f"/sessions/{self.session}/files/{path}", content=text.encode())
        assert answer.is_success, answer.text
        return str(answer.json()["document_id"])

    async def text(self, who: str, path: str) -> str:
        """Read a file."""
        return (await self.call(who, "GET", f"/sessions/{self.session}/files/{path}")).text

    async def open(
        self, who: str, dialect: str, document: str, *, name: str = "", line: str = "", synced: bool = True
    ) -> Peer:
        """Open a document with an unmodified client; Hocuspocus clients of one `line` share a socket."""
        peer = Peer(self.node, name or f"{who}/{dialect}/{document}")
        await peer.do(
            "open",
            dialect=dialect,
            url=self.line_url or self.server.url,
            session=self.session,
            document=document,
            token=self.tokens[who],
            name=line or who,
        )
        if synced:
            await peer.until(lambda state: bool(state["synced"]))
        return peer


@asynccontextmanager
async def world(data: Path) -> AsyncIterator[World]:
    """A server, Node and an owner called Ada."""
    async with live_server(data) as server, node() as running, httpx2.AsyncClient(timeout=20) as http:
        made = World(server, running, http)
        await made.guest("Ada")
        yield made
