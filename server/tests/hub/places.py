"""Where randomized schedules take place: one process on SQLite, or several on Redis and PostgreSQL; with their faults.

A fault is a coroutine that breaks something, lets time pass, and mends it: what it does is over when it returns, except
for what people have to notice themselves. Nothing of it may cost an edit that was acknowledged.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from deploy.stores import Postgres, Redis

from atelier.settings import from_environment

from ..faults import FaultyLine, faulty_line
from .clients import LiveServer, World, node

Fault = Callable[[random.Random], Awaitable[None]]
# Nothing listens there: schedules run no programs, and what a killed server does for them would be most of a schedule.
NO_RUNNER = "http://127.0.0.1:9"


@dataclass(slots=True)
class Place:
    """Worlds of the same session, one a process, the lines to them, and what can go wrong."""

    worlds: list[World]
    lines: list[FaultyLine]
    faults: dict[str, Fault]
    log_url: str


def _line_faults(lines: list[FaultyLine], name: str) -> dict[str, Fault]:
    async def cut(draw: random.Random) -> None:
        draw.choice(lines).cut()

    async def slow(draw: random.Random) -> None:
        line = draw.choice(lines)
        line.delay = draw.choice((0.0, 0.005, 0.05))

    async def swallow(draw: random.Random) -> None:
        line = draw.choice(lines)
        line.hold(True)
        await asyncio.sleep(draw.uniform(0.05, 0.4))
        line.hold(False)

    async def refuse(draw: random.Random) -> None:
        line = draw.choice(lines)
        line.refuse(True)
        await asyncio.sleep(draw.uniform(0.05, 0.4))
        line.refuse(False)

    return {f"{what.__name__} {name}": what for what in (cut, slow, swallow, refuse)}


def _killing(server: LiveServer) -> Fault:
    async def kill(_: random.Random) -> None:
        await server.end()
        await server.start()

    return kill


def _jumping(servers: list[LiveServer]) -> Fault:
    async def jump(draw: random.Random) -> None:
        draw.choice(servers).jump(draw.choice((-86_400, -5, 0, 0, 5, 1_800)))

    return jump


async def _people(stack: AsyncExitStack, servers: list[LiveServer], lines: list[FaultyLine]) -> list[World]:
    running = await stack.enter_async_context(node())
    http = await stack.enter_async_context(httpx2.AsyncClient(timeout=60))
    worlds = [World(server, running, http) for server in servers]
    await worlds[0].guest("Ada")
    await worlds[0].guest("Bob", "edit")
    for world, line in zip(worlds, lines, strict=True):
        world.tokens, world.session = worlds[0].tokens, worlds[0].session
        world.line_url = f"http://127.0.0.1:{line.port}"
    return worlds


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[Place]:
    """One process with everything in a folder."""
    async with AsyncExitStack() as stack:
        server = LiveServer(folder, own_clock=True, sandbox_url=NO_RUNNER)
        await server.start()
        stack.push_async_callback(server.end)
        line = await stack.enter_async_context(faulty_line(server.port))

        async def fill_the_disk(draw: random.Random) -> None:
            server.allow_files_of(0)
            await asyncio.sleep(draw.uniform(0.05, 0.3))
            server.allow_files_of(-1)

        faults = {
            "kill": _killing(server),
            "set the clock": _jumping([server]),
            "fill the disk": fill_the_disk,
            **_line_faults([line], "the line"),
        }
        yield Place(await _people(stack, [server], [line]), [line], faults, f"sqlite:///{folder}/log.db")


@asynccontextmanager
async def several(folder: Path, postgres: Postgres, redis: Redis, *, database: str) -> AsyncIterator[Place]:
    """Two processes and a worker; each reaches Redis and PostgreSQL over lines of their own."""
    async with AsyncExitStack() as stack:
        address = postgres.database(database)
        servers, lines, stores = [], [], []
        log_url = ""
        for name in ("one", "two"):
            (folder / name).mkdir()
            to_redis = await stack.enter_async_context(faulty_line(redis.port))
            to_postgres = await stack.enter_async_context(faulty_line(postgres.port))
            settings = {
                "db_url": address.replace(str(postgres.port), str(to_postgres.port)),
                "log_url": redis.url.replace(str(redis.port), str(to_redis.port)),
                "bus_url": redis.url.replace(str(redis.port), str(to_redis.port)),
                "blobs_url": f"file://{folder}/blobs",
                "secret_key": "s" * 40,
                "sandbox_url": NO_RUNNER,
            }
            servers.append(LiveServer(folder / name, own_clock=True, **settings))
            stores += [to_redis, to_postgres]
            log_url = from_environment({}, db_url=address, log_url=redis.url).log_url
        for server in servers:
            await server.start()
            stack.push_async_callback(server.end)
            lines.append(await stack.enter_async_context(faulty_line(server.port)))

        async def kill_redis(draw: random.Random) -> None:
            redis.end()
            await asyncio.sleep(draw.uniform(0, 0.5))
            await asyncio.to_thread(redis.start)

        async def crash_postgresql(draw: random.Random) -> None:
            await asyncio.to_thread(postgres.end, signal.SIGQUIT)
            await asyncio.sleep(draw.uniform(0, 0.5))
            await asyncio.to_thread(postgres.start)

        faults = {
            "set a clock": _jumping(servers),
            "kill one": _killing(servers[0]),
            "kill two": _killing(servers[1]),
            "kill Redis": kill_redis,
            "crash PostgreSQL": crash_postgresql,
            **_line_faults(lines, "the line"),
            **_line_faults(stores, "a store's line"),
        }
        yield Place(await _people(stack, servers, lines), lines, faults, log_url)
