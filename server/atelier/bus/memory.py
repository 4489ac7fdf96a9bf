"""The bus of one process: a bounded queue per subscriber."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_LONGEST = 64 * 1024


class Subscriber:
    """What one subscriber has not taken yet: at most `bound` messages."""

    def __init__(self, bound: int) -> None:
        self._waiting: deque[bytes | None] = deque()
        self._bound = bound
        self._ready = asyncio.Event()

    def push(self, message: bytes | None) -> None:
        """Add a message; None: something was lost, which is said once until it has been taken."""
        if message is None and self._waiting and self._waiting[-1] is None:
            return
        if len(self._waiting) >= self._bound:
            # The oldest goes; one None in its place says that something is missing.
            while len(self._waiting) >= self._bound or (self._waiting and self._waiting[0] is None):
                self._waiting.popleft()
            self._waiting.appendleft(None)
        self._waiting.append(message)
        self._ready.set()

    def __aiter__(self) -> Subscriber:
        return self

    async def __anext__(self) -> bytes | None:
        while not self._waiting:
            self._ready.clear()
            await self._ready.wait()
        return self._waiting.popleft()


class MemoryBus:
    """Delivers on the event loop, in order."""

    alone = True

    def __init__(self) -> None:
        self._topics: dict[str, set[Subscriber]] = {}

    async def publish(self, topic: str, message: bytes) -> None:
        """Give the message to everyone who is subscribed now.

        Raises:
            ValueError: the message has more than 64 KiB.
        """
        if len(message) > _LONGEST:
            raise ValueError(f"a message on the bus has at most {_LONGEST} bytes, not {len(message)}")
        for subscriber in self._topics.get(topic, ()):
            subscriber.push(message)

    @asynccontextmanager
    async def subscribe(self, topic: str, *, bound: int = 256) -> AsyncIterator[Subscriber]:
        """Receive while the context is open."""
        subscriber = Subscriber(bound)
        self._topics.setdefault(topic, set()).add(subscriber)
        try:
            yield subscriber
        finally:
            members = self._topics[topic]
            members.discard(subscriber)
            if not members:
                del self._topics[topic]
