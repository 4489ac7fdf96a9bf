"""Reads the request that starts a run: a head, then the files' bytes, as they come; never more than the head says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect

from atelier_runner.errors import ServiceRefused
from atelier_runner.wire import HEAD_BYTES, LENGTH, BadMessage

DRAINED_BYTES = 512 * 1024 * 1024
"""Of a refused request: a client that still sends would not hear the refusal."""


class Body:
    """The bytes of one request, in pieces of known sizes."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self._stream = stream
        self._rest = b""

    async def exactly(self, size: int) -> bytes:
        """Return the next bytes. Raises BadMessage when there are fewer."""
        parts = [self._rest[:size]]
        missing = size - len(parts[0])
        self._rest = self._rest[size:]
        while missing:
            piece = await anext(self._stream, b"")
            if not piece:
                raise BadMessage(f"the body ends {missing} bytes too early")
            parts.append(piece[:missing])
            self._rest = piece[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    async def head(self) -> bytes:
        """Return the head's text."""
        size = LENGTH.unpack(await self.exactly(LENGTH.size))[0]
        if size > HEAD_BYTES:
            raise ServiceRefused(413, "too_large", f"A head has at most {HEAD_BYTES} bytes, not {size}.")
        return await self.exactly(size)

    async def end(self) -> None:
        """Raise BadMessage when there is more."""
        if self._rest or await anext(self._stream, b""):
            raise BadMessage("the body is longer than its head says")

    async def drain(self, seconds: float) -> None:
        """Read what is left and throw it away."""
        left = DRAINED_BYTES
        with contextlib.suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(seconds):
                async for piece in self._stream:
                    left -= len(piece)
                    if left < 0:
                        return
