"""Redis channels: one connection of this process that hears many of them, and says when it may have missed something.

A channel's listener is called with each message, in order, and with `None` each time hearing (again) begins: what was
published before that may be lost. A connection that ends, or says nothing for too long, is made anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio as redis
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from atelier.tasks import cancel_all

logger = structlog.get_logger(__name__)
FAILURES = (RedisError, OSError, TimeoutError)
Heard = Callable[[bytes | None], None]
_ANSWER_SECONDS = 5.0
_QUIET_SECONDS = 5.0
_AT_ONCE = 500


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[redis.Redis]:
    """Open a pool of connections; a command that gets no answer within five seconds fails, and none is repeated."""
    pool = redis.from_url(
        url,
        socket_timeout=_ANSWER_SECONDS,
        socket_connect_timeout=_ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        protocol=2,
    )
    try:
        yield pool
    finally:
        await pool.aclose()


class Channels:
    """See the module; an async context manager."""

    def __init__(self, pool: redis.Redis) -> None:
        self._pool = pool
        self._listeners: dict[str, list[Heard]] = {}
        self._subscribed: set[str] = set()
        self._hearing: set[str] = set()
        self._line: Any = None
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Channels:
        self._tasks = [
            asyncio.create_task(self._hear(), name="channels"),
            asyncio.create_task(self._subscribe(), name="channels-subscribe"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_all(self._tasks)

    def listen(self, channel: str, heard: Heard) -> Callable[[], None]:
        """Hear a channel from soon on; returns the function that ends it (calling it twice is fine)."""
        self._listeners.setdefault(channel, []).append(heard)
        if channel in self._hearing:
            asyncio.get_running_loop().call_soon(heard, None)
        else:
            self._changed.set()

        def end() -> None:
            listeners = self._listeners.get(channel, [])
            if heard in listeners:
                listeners.remove(heard)
            if not listeners and self._listeners.pop(channel, None) is not None:
                self._changed.set()

        return end

    # --- the connection -----------------------------------------------------------------------------------------

    async def _hear(self) -> None:
        failures = 0
        while True:
            line = self._pool.connection_pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                await line.connect()
                self._line = line
                self._changed.set()
                asked = False
                while True:
                    message = await line.read_response(timeout=_QUIET_SECONDS)
                    failures = 0
                    if message is None and asked:
                        raise TimeoutError("no answer to a ping")
                    asked = message is None
                    if asked:
                        await line.send_command("PING")
                    else:
                        self._message(message)
            except FAILURES as error:
                failures += 1
                logger.warning("not connected to Redis", error=str(error))
            finally:
                self._line = None
                self._subscribed.clear()
                self._hearing.clear()
                with contextlib.suppress(Exception):
                    await line.disconnect(nowait=True)
            await asyncio.sleep(min(2.0, 0.05 * 2 ** min(failures, 6)) * random.uniform(0.5, 1.0))

    def _message(self, message: Any) -> None:
        if not isinstance(message, list) or len(message) != 3:
            return  # the answer to a ping
        kind = message[0]
        if kind == b"message":
            self._tell(message[1].decode(), message[2])
        elif kind == b"subscribe":
            channel = message[1].decode()
            if channel in self._subscribed:  # else it has been left again meanwhile
                self._hearing.add(channel)
                self._tell(channel, None)
        elif kind == b"unsubscribe":
            self._hearing.discard(message[1].decode())

    def _tell(self, channel: str, message: bytes | None) -> None:
        for heard in tuple(self._listeners.get(channel, ())):
            try:
                heard(message)
            except Exception:
                logger.exception("a listener of a channel failed", channel=channel)

    async def _subscribe(self) -> None:
        """Keep what is subscribed to equal to what is listened to."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            line = self._line
            if line is None:
                continue
            new = [channel for channel in self._listeners if channel not in self._subscribed]
            old = [channel for channel in self._subscribed if channel not in self._listeners]
            try:
                for start in range(0, len(new), _AT_ONCE):
                    await self._send(line, "SUBSCRIBE", new[start : start + _AT_ONCE])
                if old:
                    await self._send(line, "UNSUBSCRIBE", old)
            except FAILURES as error:
                logger.warning("not subscribed", error=str(error))
                with contextlib.suppress(Exception):
                    await line.disconnect(nowait=True)

    async def _send(self, line: Any, command: str, channels: list[str]) -> None:
        if self._line is not line:
            return  # it has ended; the next one begins with everything
        if command == "SUBSCRIBE":
            self._subscribed.update(channels)
        else:
            self._subscribed.difference_update(channels)
            self._hearing.difference_update(channels)
        await line.send_command(command, *channels)
