"""What the proxies of all runs share: how a name is looked up, how an address is reached, and how much at once.

A name is looked up once, here; what is connected to is an address that was checked, never the name again, so it does not
matter what the name says the next time. A look-up blocks a thread that cannot be ended, and a program may ask for names of
a server that never answers: look-ups have threads of their own, and a run a share of them (`proxy`).
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from atelier_runner.addresses import is_public

PORTS: Final = (80, 443)
EVERYBODYS: Final = 256
"""Connections of all runs at once."""
LOOKUP_THREADS: Final = 64
CHUNK: Final = 64 * 1024

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Resolve = Callable[[str], Awaitable[list[str]]]
Connect = Callable[[str, int, bool], Awaitable[Streams]]
"""Of an address that was checked; whether it may be private."""


class Outward:
    """The way out of this process. `resolve` and `connect` replace the machine's own."""

    def __init__(
        self,
        *,
        ports: Iterable[int] = PORTS,
        resolve: Resolve | None = None,
        connect: Connect | None = None,
    ) -> None:
        self.ports = frozenset(ports)
        """Those of public addresses that a program may speak with."""
        self.resolve = resolve or self._resolve
        self.connect = connect or open_connection
        self.open = 0
        """Connections at present."""
        self.carried = 0
        """Bytes, both ways."""
        self.refused: Counter[str] = Counter()
        """By why."""
        self._threads = ThreadPoolExecutor(LOOKUP_THREADS, "atelier-lookup")

    async def _resolve(self, name: str) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def read_ports(text: str) -> list[int]:
    """Read `80,443`. Raises ValueError."""
    ports = [int(port) if port.isascii() and port.isdigit() else 0 for port in text.split(",")]
    if not all(0 < port < 65536 for port in ports):
        raise ValueError(f"ports is a list like 80,443, not {text}")
    return ports


class NotElsewhere(OSError):
    """What was reached is this machine, or no public address."""


async def open_connection(address: str, port: int, private: bool) -> Streams:
    """Connect to an address; a name is never looked up. Unless it may be private, the connection itself is checked too.

    Raises:
        NotElsewhere: it leads to no public address, or to this machine.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    reader, writer = await asyncio.open_connection(
        address, port, family=family, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV, limit=CHUNK
    )
    there, here = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
    if not private and not is_elsewhere(there, here):
        writer.transport.abort()
        raise NotElsewhere(f"{address} is this machine")
    return reader, writer


def is_elsewhere(there: tuple[Any, ...] | None, here: tuple[Any, ...] | None) -> bool:
    """Say whether a connection's other end is a public address of another machine.

    This machine may have a public address too; services on it that a firewall hides from others would be open from here.
    """
    return there is not None and here is not None and there[0] != here[0] and is_public(there[0])
