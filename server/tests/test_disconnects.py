"""Long work ends when the client does: the messages are those that a server gives for a connection that closed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from fastapi import Request
from starlette.types import Message

from atelier.disconnects import while_connected
from atelier.errors import BadRequest, Conflict


def request_of(left: asyncio.Event) -> Request:
    async def receive() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)


async def test_what_work_returns_or_raises_comes_through() -> None:
    async def work() -> int:
        return 7

    async def failing() -> int:
        raise Conflict("path_taken", "There is one already.")

    assert await while_connected(request_of(asyncio.Event()), work()) == 7
    with pytest.raises(Conflict):
        await while_connected(request_of(asyncio.Event()), failing())


async def test_work_is_cancelled_and_has_ended_when_the_client_has_left() -> None:
    left, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        left.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(BadRequest, match="left before"):
        await while_connected(request_of(left), work())
    assert ended.is_set()


async def test_cancelling_the_request_cancels_the_work() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    made: Coroutine[Any, Any, None] = while_connected(request_of(asyncio.Event()), work())
    serving = asyncio.create_task(made)
    await began.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert ended.is_set()
