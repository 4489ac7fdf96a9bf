"""Lossy signals between parts and processes: presence, "look again", access changes.

A topic is a string, a message at most 64 KiB. Delivery is in order per publisher, at most once, and only to those
subscribed at that moment; a subscriber that falls more than its bound behind loses the oldest messages and sees
`None` once in their place, which means "look at the truth again". Nothing that must survive goes through here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Bus(Protocol):
    alone: bool
    """Whether this process can hear nobody but itself."""

    async def publish(self, topic: str, message: bytes) -> None: ...

    def subscribe(
        self, topic: str, *, bound: int = 256
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes | None]]:
        """Receive what is published to `topic` while the context is open."""
        ...
