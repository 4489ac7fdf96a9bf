"""The proxy of one run: decides about each connection of its program, reaches the address that it checked, and carries.

A refusal is an answer in HTTP: its reason is in the status line too, since that is what most programs print. Nothing that
a program sends is trusted, nor where its requests come from: the agent sits inside the wall with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from atelier_runner.addresses import is_public
from atelier_runner.channels import CONNECTIONS, Channel
from atelier_runner.http_request import BadRequest, Request, Target, parse
from atelier_runner.model import MIB, Network
from atelier_runner.outward import CHUNK, EVERYBODYS, NotElsewhere, Outward, Streams

PORT: Final = 3128
"""Of the agent's listener, on a sandbox's own loopback."""
_ADDRESS: Final = f"http://127.0.0.1:{PORT}"
_ITSELF: Final = "localhost,127.0.0.1,::1"
ENVIRONMENT: Final = {
    "HTTP_PROXY": _ADDRESS, "HTTPS_PROXY": _ADDRESS, "http_proxy": _ADDRESS, "https_proxy": _ADDRESS,
    "NO_PROXY": _ITSELF, "no_proxy": _ITSELF,
    "NODE_USE_ENV_PROXY": "1",
}  # fmt: skip
"""By which programs find it; what a program serves itself it reaches without."""
ADDRESSES: Final = 8
"""Of one name that are tried."""
CHUNK_LINE: Final = 4096


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one run may have of the network, and how long it may take."""

    head_seconds: float = 10.0
    """For a request's head."""
    lookups: int = 4
    """Names that are looked up at once."""
    lookup_seconds: float = 10.0
    connect_seconds: float = 10.0
    idle_seconds: float = 120.0
    """In which nothing moves; then a connection is closed."""
    linger_seconds: float = 2.0
    """For reading a refusal."""
    opened_a_second: float = 16.0
    """New connections, once as many have been opened as may be open at once."""
    bytes_a_second: float = 32.0 * MIB
    most_bytes: int = 4096 * MIB
    """Both ways, all connections together."""


class Refused(Exception):
    """A request that is not carried on. `why` counts it; `error` is the word of RFC 9209."""

    def __init__(self, status: int, why: str, detail: str, error: str) -> None:
        super().__init__(detail)
        self.status = status
        self.why = why
        self.detail = detail
        self.error = error

    def answer(self) -> bytes:
        """Return it in HTTP."""
        reason = f"Atelier: {self.detail}".encode("ascii", "replace").decode()
        body = f"{reason}\n"
        return (
            f"HTTP/1.1 {self.status} {reason}\r\nProxy-Status: atelier; error={self.error}\r\n"
            f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
        ).encode()


class _Pace:
    """Lets through so much a second, after a first amount."""

    def __init__(self, rate: float, first: float) -> None:
        self._rate, self._first = rate, first
        self._due = 0.0

    async def pass_(self, amount: float) -> None:
        now = time.monotonic()
        self._due = max(self._due, now - self._first / self._rate) + amount / self._rate
        if self._due > now:
            await asyncio.sleep(self._due - now)


class Proxy:
    """What one program may reach, and what it has used of it."""

    def __init__(self, network: Network, outward: Outward, bounds: Bounds | None = None) -> None:
        self._bounds = bounds = bounds or Bounds()
        self._network = network
        self._outward = outward
        self._left = bounds.most_bytes
        self._opening = _Pace(bounds.opened_a_second, CONNECTIONS)
        self._carrying = _Pace(bounds.bytes_a_second, bounds.bytes_a_second / 8)
        self._lookups = asyncio.Semaphore(bounds.lookups)

    async def serve(self, channel: Channel) -> None:
        """Have one connection from its first byte to its last."""
        try:
            await self._opening.pass_(1)
            request = await self._request(channel)
            await self._carry(channel, request)
        except Refused as refusal:
            self._outward.refused[refusal.why] += 1
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(self._bounds.linger_seconds):
                    await channel.write(refusal.answer())
                    await channel.end()
                    while await channel.read(CHUNK):
                        pass  # closing before it has sent all would take the answer from it
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # one side has gone, or the program has sent what cannot be read

    async def _request(self, channel: Channel) -> Request:
        try:
            async with asyncio.timeout(self._bounds.head_seconds):
                request = parse(await channel.read_until(b"\r\n\r\n"))
        except BadRequest as error:
            raise Refused(400, "request", str(error), "http_request_error") from None
        except asyncio.LimitOverrunError:
            raise Refused(
                431, "request", "The head of a request has at most 16 KiB.", "http_request_error"
            ) from None
        except TimeoutError:
            raise Refused(
                408,
                "slow",
                f"A request has {self._bounds.head_seconds:g} seconds to be sent.",
                "connection_timeout",
            ) from None
        self._permit(request.target)
        return request

    def _permit(self, target: Target) -> None:
        """Raise Refused unless the program may speak with a host of this name at this port."""
        hosts = self._network.hosts
        if hosts is not None and target.named not in hosts:
            raise Refused(
                403,
                "host",
                f"{target.named} is not among the hosts this program may reach.",
                "http_request_denied",
            )
        if hosts is None and target.port not in self._outward.ports:
            ports = ", ".join(map(str, sorted(self._outward.ports)))
            raise Refused(
                403, "port", f"Port {target.port} may not be reached, only {ports}.", "http_request_denied"
            )
        if self._left <= 0:
            raise Refused(
                403, "amount", "This run has sent and received as much as it may.", "http_request_denied"
            )

    async def _carry(self, channel: Channel, request: Request) -> None:
        if self._outward.open >= EVERYBODYS:
            raise Refused(
                503,
                "full",
                "Too many connections are open here. Try again in a moment.",
                "connection_limit_reached",
            )
        self._outward.open += 1
        try:
            reader, writer = await self._reach(request.target)
            try:
                if request.head is None:
                    await channel.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    writer.write(request.head)
                await self._exchange(channel, request, reader, writer)
            finally:
                writer.transport.abort()
        finally:
            self._outward.open -= 1

    async def _reach(self, target: Target) -> Streams:
        """Connect to the first address of a name that answers; each was checked."""
        addresses = await self._addresses(target)
        failure = Refused(504, "unreachable", f"{target.named} did not answer.", "connection_timeout")
        try:
            async with asyncio.timeout(self._bounds.connect_seconds):
                for address in addresses[:ADDRESSES]:
                    try:
                        async with asyncio.timeout(self._bounds.connect_seconds / 2):
                            return await self._outward.connect(address, target.port, self._network.private)
                    except NotElsewhere:
                        failure = _prohibited(target)
                    except TimeoutError:
                        pass
                    except OSError:
                        failure = Refused(
                            502,
                            "unreachable",
                            f"{target.named} refused the connection.",
                            "connection_refused",
                        )
        except TimeoutError:
            pass
        raise failure

    async def _addresses(self, target: Target) -> list[str]:
        """Look a name up, once, and return those of its addresses that may be reached."""
        found = [target.host]
        if not _is_address(target.host):
            found = await self._look_up(target.host)
        allowed = [address for address in found if self._network.private or is_public(address)]
        if not allowed:
            raise _prohibited(target)
        return allowed

    async def _look_up(self, name: str) -> list[str]:
        unknown = Refused(502, "name", f"There is no host {name[:100]}.", "dns_error")
        await self._lookups.acquire()
        looking = asyncio.ensure_future(self._outward.resolve(name))
        # Its thread cannot be ended: it counts until it is free.
        looking.add_done_callback(self._looked_up)
        try:
            async with asyncio.timeout(self._bounds.lookup_seconds):
                found = await asyncio.shield(looking)
        except TimeoutError:
            raise Refused(504, "name", f"Looking up {name[:100]} took too long.", "dns_timeout") from None
        except (OSError, UnicodeError):
            raise unknown from None
        if not found:
            raise unknown
        return found

    def _looked_up(self, done: asyncio.Future[list[str]]) -> None:
        self._lookups.release()
        if not done.cancelled():
            done.exception()  # whoever waited has seen it

    async def _exchange(
        self, channel: Channel, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry both ways until both have ended, or nothing has moved for a while."""
        moved = time.monotonic()

        async def count(size: int) -> None:
            nonlocal moved
            moved = time.monotonic()
            self._left -= size
            self._outward.carried += size
            if self._left <= 0:
                raise ConnectionResetError("the run has carried as much as it may")
            await self._carrying.pass_(size)

        async def out(data: bytes) -> None:
            writer.write(data)
            await writer.drain()
            await count(len(data))

        async def outwards() -> None:
            if request.head is None:
                while data := await channel.read(CHUNK):
                    await out(data)
                writer.write_eof()
            else:
                await _body(channel, request.length, out)

        async def inwards() -> None:
            while data := await reader.read(CHUNK):
                await channel.write(data)
                await count(len(data))
            await channel.end()

        sending, receiving = asyncio.create_task(outwards()), asyncio.create_task(inwards())
        waited = {sending, receiving}
        try:
            while waited and not (request.head is not None and receiving.done()):
                left = moved + self._bounds.idle_seconds - time.monotonic()
                if left <= 0:
                    break
                done, waited = await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in (sending, receiving):
                task.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)


async def _body(channel: Channel, length: int | None, out: Callable[[bytes], Awaitable[None]]) -> None:
    """Pass on one body and nothing that follows it: the connection is to one host."""
    if length is not None:
        while length:
            if not (data := await channel.read(min(CHUNK, length))):
                raise ConnectionResetError("the program sent less than it said")
            length -= len(data)
            await out(data)
        return
    while True:
        line = await channel.read_until(b"\r\n")
        size = line[:-2].split(b";")[0].strip(b" \t")
        if len(line) > CHUNK_LINE or not 0 < len(size) <= 12 or size.strip(b"0123456789abcdefABCDEF"):
            raise ConnectionResetError("the program sent a chunk that cannot be read")
        left = int(size, 16)
        await out(b"%x\r\n" % left)
        if not left:
            break
        left += 2
        last = b""
        while left:
            if not (data := await channel.read(min(CHUNK, left))):
                raise ConnectionResetError("the program sent less than it said")
            left -= len(data)
            last = (last + data)[-2:]
            if not left and last != b"\r\n":
                raise ConnectionResetError("the program sent more than it said")
            await out(data)
    while await channel.read_until(b"\r\n") != b"\r\n":
        pass  # what may follow a body in chunks is left out
    await out(b"\r\n")


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _prohibited(target: Target) -> Refused:
    detail = f"{target.host[:100]} is not on the public internet; programs reach nothing else."
    return Refused(403, "address", detail, "destination_ip_prohibited")
