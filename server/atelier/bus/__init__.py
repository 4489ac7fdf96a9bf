"""Lossy signals, chosen by URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from atelier.bus.base import Bus
from atelier.bus.memory import MemoryBus

__all__ = ["Bus", "open_bus"]


@asynccontextmanager
async def open_bus(url: str) -> AsyncIterator[Bus]:
    """Open `url`: memory:// (one process).

    Raises:
        ValueError: another scheme.
    """
    scheme = urlsplit(url).scheme
    if scheme != "memory":
        raise ValueError(f"a bus is memory://, not {scheme}://")
    yield MemoryBus()
