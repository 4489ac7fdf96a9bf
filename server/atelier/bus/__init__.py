"""Lossy signals, chosen by URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from atelier.bus.base import Bus
from atelier.bus.memory import MemoryBus
from atelier.bus.redis import RedisBus
from atelier.channels import Channels, connected

__all__ = ["Bus", "open_bus"]


@asynccontextmanager
async def open_bus(url: str) -> AsyncIterator[Bus]:
    """Open `url`: memory:// (one process) or redis://… (any number).

    Raises:
        ValueError: another scheme.
    """
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        yield MemoryBus()
    elif scheme in ("redis", "rediss"):
        async with connected(url) as redis, Channels(redis) as channels:
            yield RedisBus(redis, channels)
    else:
        raise ValueError(f"a bus is memory:// or redis://, not {scheme}://")
