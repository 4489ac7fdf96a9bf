"""The two document sockets. The handshake and who may come in are here; what is said is the room's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, cast

from fastapi import APIRouter, Depends, WebSocket
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect

from atelier.auth import Action, allows, socket_caller
from atelier.deps import ServicesDep
from atelier.errors import AtelierError, BadRequest, TooLarge, TooMany, Unauthenticated
from atelier.hub import metrics, protocol
from atelier.hub.client import Client
from atelier.hub.rooms import Rooms
from atelier.services import Services

router = APIRouter(prefix="/api/v1", tags=["hub"])
_FIRST_SECONDS = 5.0
_FIRST_BYTES = 64 * 1024
_WINDOW_SECONDS = 10


def _rooms(connection: HTTPConnection) -> Rooms:
    return cast("Rooms", connection.app.state.rooms)


RoomsDep = Annotated[Rooms, Depends(_rooms)]


@router.websocket("/sessions/{session_id}/documents/{document_id}")
async def open_document(
    socket: WebSocket,
    session_id: str,
    document_id: str,
    services: ServicesDep,
    rooms: RoomsDep,
    token: str | None = None,
) -> None:
    """One document in y-websocket's dialect."""
    await socket.accept()
    try:
        client = await rooms.enter(socket, session_id, await socket_caller(services, token))
        seat = rooms.sit(client, session_id, document_id, hocuspocus=False)
    except AtelierError as error:
        await _turn_away(socket, error)
        return

    async def handle(data: bytes) -> None:
        message = protocol.parse(data)
        if isinstance(message, protocol.Leave | protocol.Token):
            return
        await seat.room.receive(seat, message)

    await _serve(socket, client, session_id, rooms, services, handle, "y-websocket")


@router.websocket("/sessions/{session_id}/sync")
async def open_sync(
    socket: WebSocket, session_id: str, services: ServicesDep, rooms: RoomsDep, token: str | None = None
) -> None:
    """Many documents in Hocuspocus' dialect. The token comes in the address, or in the first Auth message."""
    await socket.accept()
    waiting: list[bytes] = []
    try:
        if token is None:
            token, waiting = await asyncio.wait_for(_first_token(socket), _FIRST_SECONDS)
        client = await rooms.enter(socket, session_id, await socket_caller(services, token))
    except TimeoutError:
        await _turn_away(
            socket,
            Unauthenticated("log_in_required", "No token came within 5 s.", next_step="Connect again."),
        )
        return
    except WebSocketDisconnect:
        return
    except AtelierError as error:
        await _turn_away(socket, error)
        return

    async def handle(data: bytes) -> None:
        name, body = protocol.split_envelope(data)
        message = protocol.parse(body)
        if isinstance(message, protocol.Ping):
            client.ping()
        if isinstance(message, protocol.Ping) and not name:
            client.push(b"\x00" + protocol.PONG_FRAME)
            return
        if isinstance(message, protocol.Leave):
            if name in client.seats:
                rooms.rise(client, name)
            return
        seat = client.seats.get(name) or rooms.sit(client, session_id, name, hocuspocus=True)
        if isinstance(message, protocol.Token):
            seat.push(protocol.authenticated(can_write=allows(client.role, Action.EDIT)))
        else:
            await seat.room.receive(seat, message)

    await _serve(socket, client, session_id, rooms, services, handle, "hocuspocus", waiting)


async def _first_token(socket: WebSocket) -> tuple[str, list[bytes]]:
    """Read until an Auth message; what came before it and itself are kept, 64 KiB at most."""
    kept: list[bytes] = []
    size = 0
    while True:
        data = await _next(socket)
        size += len(data)
        if size > _FIRST_BYTES:
            raise TooLarge(
                "too_much_before_log_in",
                "At most 64 KiB may come before the token.",
                next_step="Connect again.",
            )
        kept.append(data)
        message = protocol.parse(protocol.split_envelope(data)[1])
        if isinstance(message, protocol.Token):
            return message.token, kept


async def _next(socket: WebSocket) -> bytes:
    event = await socket.receive()
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(event.get("code", 1005))
    data = event.get("bytes")
    if data is None:
        raise BadRequest(
            "text_frame",
            "Documents are spoken in binary frames; a text frame came.",
            next_step="Reload the page.",
        )
    return bytes(data)


async def _serve(
    socket: WebSocket,
    client: Client,
    session_id: str,
    rooms: Rooms,
    services: Services,
    handle: Callable[[bytes], Awaitable[None]],
    dialect: str,
    waiting: list[bytes] | None = None,
) -> None:
    """Receive until the connection ends; send beside it."""
    pace = Pace(services.limits.messages_per_second)

    async def listen() -> None:
        try:
            for data in waiting or ():
                await handle(data)
            while True:
                data = await _next(socket)
                if client.closing:
                    continue
                pace.count()
                await handle(data)
        except WebSocketDisconnect:
            return
        except AtelierError as error:
            metrics.REFUSED.labels(error.code).inc()
            client.fail(error)
            await asyncio.shield(sender)

    metrics.CONNECTIONS.labels(dialect).inc()
    sender = asyncio.create_task(client.send_queued(), name="socket-sender")
    listener = asyncio.create_task(listen(), name="socket-listener")
    try:
        await asyncio.wait([sender, listener], return_when=asyncio.FIRST_COMPLETED)
    finally:
        rooms.leave(client, session_id)
        metrics.CONNECTIONS.labels(dialect).dec()
        for task in (sender, listener):
            task.cancel()
        for result in await asyncio.gather(sender, listener, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


class Pace:
    """Counts messages over a window of ten seconds."""

    def __init__(self, per_second: int) -> None:
        self._most = per_second * _WINDOW_SECONDS
        self._left = float(self._most)
        self._per_second = per_second
        self._last = time.monotonic()

    def count(self) -> None:
        """Count one message.

        Raises:
            TooMany: `too_many_messages`.
        """
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._last) * self._per_second) - 1
        self._last = now
        if self._left < 0:
            raise TooMany(
                "too_many_messages",
                f"At most {self._per_second} messages a second.",
                retry_after=_WINDOW_SECONDS,
                next_step="Wait a moment; your edits are kept.",
            )


async def _turn_away(socket: WebSocket, error: AtelierError) -> None:
    await socket.close(error.close_code, f"{error.code}: {error.detail}"[:120])
