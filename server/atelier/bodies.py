"""A bound on request bodies. Uploads stream and have bounds of their own; everything else is small."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atelier.errors import TooLarge
from atelier.problems import problem

# Bodies that are read as a stream by their route, which counts for itself.
_STREAMED = re.compile(r"/api/v1/sessions/(import|[^/]+/import|[^/]+/files/.*)")


class BoundedBodies:
    """Refuses a body over `most` bytes, by its announced length or while it comes."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _STREAMED.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self._most:
            await self._refuse(scope, receive, send)
            return
        size = 0
        over = False

        async def counted() -> Message:
            nonlocal size, over
            message = await receive()
            size += len(message.get("body", b""))
            over = size > self._most
            if over:
                raise self._error()
            return message

        async def watched(message: Message) -> None:
            # Whoever reads the body may answer the error in words of their own; ours are the right ones.
            if not over:
                await send(message)

        try:
            await self._app(scope, counted, watched)
        except TooLarge:
            if not over:
                raise
        if over:
            await self._refuse(scope, receive, send)

    def _error(self) -> TooLarge:
        return TooLarge(
            "body_too_large",
            f"A request body has at most {self._most:,} bytes.",
            next_step="Send less at once.",
        )

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._error()
        await problem(error.status, error.code, error.title, error.detail, next_step=error.next_step)(
            scope, receive, send
        )
