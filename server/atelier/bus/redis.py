"""The bus of several processes: Redis channels, and a bounded queue per subscriber.

A message reaches the subscribers of this process at once, also when Redis is away; those of others through Redis. Who
may have missed something, because the connection was made anew, sees `None`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio as redis
import structlog

from atelier.bus.memory import MemoryBus
from atelier.channels import FAILURES, Channels

logger = structlog.get_logger(__name__)
_BEGIN_SECONDS = 2.0


class RedisBus:
    """See the module. Made by `open_bus`."""

    alone = False

    def __init__(self, pool: redis.Redis, channels: Channels) -> None:
        self._redis = pool
        self._channels = channels
        self._own = secrets.token_bytes(8)
        self._here = MemoryBus()

    async def publish(self, topic: str, message: bytes) -> None:
        """Give the message to everyone who is subscribed now; whom it cannot reach will look again.

        Raises:
            ValueError: the message has more than 64 KiB.
        """
        await self._here.publish(topic, message)
        try:
            await self._redis.publish(_channel(topic), self._own + message)
        except FAILURES as error:
            logger.warning("a signal reached this process only", topic=topic, error=str(error))

    @asynccontextmanager
    async def subscribe(self, topic: str, *, bound: int = 256) -> AsyncIterator[AsyncIterator[bytes | None]]:
        """Receive while the context is open; without Redis, what this process says, and `None` once it is back."""
        async with self._here.subscribe(topic, bound=bound) as subscriber:
            begun = asyncio.Event()

            def heard(message: bytes | None) -> None:
                if message is None:
                    if begun.is_set():
                        subscriber.push(None)
                    begun.set()
                elif message[:8] != self._own:
                    subscriber.push(message[8:])

            end = self._channels.listen(_channel(topic), heard)
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_BEGIN_SECONDS):
                        await begun.wait()
                begun.set()  # when it begins only later, that says "look again"
                yield subscriber
            finally:
                end()


def _channel(topic: str) -> str:
    return f"atelier:bus:{topic}"
