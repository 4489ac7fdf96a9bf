"""The events socket: JSON, numbered, resumable."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from atelier.auth import Action, Caller, access_topic, require, role_in, socket_caller
from atelier.deps import ServicesDep
from atelier.errors import AtelierError
from atelier.events import queries
from atelier.events.service import as_told, topic
from atelier.services import Services

router = APIRouter(prefix="/api/v1", tags=["events"])
_PAGE = 500
_ACCESS_ENDED = 4403


@router.websocket("/sessions/{session_id}/events")
async def open_events(
    socket: WebSocket,
    session_id: str,
    services: ServicesDep,
    token: str | None = None,
    after: int | None = None,
) -> None:
    """Say what happens in a session, from event `after` on, or from now."""
    await socket.accept()
    try:
        caller = await socket_caller(services, token)
        async with services.db.read() as db:
            await require(db, session_id, caller.user_id, Action.READ)
    except AtelierError as error:
        await socket.close(error.close_code, error.code)
        return
    jobs = [
        asyncio.create_task(_tell(socket, services, session_id, after)),
        asyncio.create_task(_listen(socket)),
        asyncio.create_task(_watch_access(socket, services, session_id, caller)),
    ]
    try:
        await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for job in jobs:
            job.cancel()
        for result in await asyncio.gather(*jobs, return_exceptions=True):
            # A peer that went away while something was sent is the ordinary end.
            if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect | RuntimeError):
                raise result


async def _tell(socket: WebSocket, services: Services, session_id: str, after: int | None) -> None:
    async with services.bus.subscribe(topic(session_id)) as signals:
        async with services.db.read() as db:
            last = await queries.last_number(db, session_id)
            first = await queries.first_number(db, session_id)
        told = last if after is None else min(after, last)
        await _say(socket, {"type": "hello", "seq": last})
        if told + 1 < first:
            # What came between is forgotten: look at the present state instead.
            told = last
            await _say(socket, {"type": "reset", "seq": last})
        told = await _catch_up(socket, services, session_id, told)
        async for signal in signals:
            number, text = _read(signal)
            if number is None or number == told + 1:
                await socket.send_text(text)
                told = told if number is None else number
            elif number > told or not number:
                told = await _catch_up(socket, services, session_id, told)


def _read(signal: bytes | None) -> tuple[int | None, str]:
    """Return the number of what a signal tells (0: not said; None: it has none) and its text."""
    if not signal:
        return 0, ""
    if signal.startswith(b"{"):
        return None, signal.decode()
    number, _, text = signal.partition(b" ")
    return int(number), text.decode()


async def _catch_up(socket: WebSocket, services: Services, session_id: str, told: int) -> int:
    while True:
        async with services.db.read() as db:
            page = await queries.after(db, session_id, told, _PAGE)
        for event in page:
            told = event["seq"]
            await _say(socket, {"seq": told, "type": event["type"], "at": event["at"], "data": event["data"]})
        if len(page) < _PAGE:
            return told


async def _listen(socket: WebSocket) -> None:
    with contextlib.suppress(WebSocketDisconnect, KeyError):
        while True:
            if await socket.receive_text() == "ping":
                await _say(socket, {"type": "pong"})


async def _watch_access(socket: WebSocket, services: Services, session_id: str, caller: Caller) -> None:
    async with services.bus.subscribe(access_topic(session_id)) as signals:
        async for signal in signals:
            if signal and signal.decode() != caller.user_id:
                continue
            async with services.db.read() as db:
                role = await role_in(db, session_id, caller.user_id)
            if role is None:
                await socket.close(_ACCESS_ENDED, "access_ended")
                return
            await _say(socket, {"type": "access", "data": {"role": role.value}})


async def _say(socket: WebSocket, message: dict[str, Any]) -> None:
    await socket.send_text(as_told(message))
