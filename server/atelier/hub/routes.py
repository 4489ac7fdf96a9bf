"""The two document sockets. The handshake and who may come in are here; what is said is the room's."""

from __future__ import annotations

import asyncio

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from atelier.auth import Action, allows, socket_caller
from atelier.documents import sized
from atelier.errors import AtelierError, BadRequest, TooLarge, Unauthenticated, Unavailable
from atelier.hub import metrics, protocol
from atelier.hub.client import Client
from atelier.hub.line import EXTENSION, AsgiLine, LineProtocol, framed
from atelier.hub.rooms import Rooms
from atelier.services import Services

_FIRST_SECONDS = 5.0
_FIRST_BYTES = 64 * 1024


async def open_document(socket: WebSocket) -> None:
    """One document in y-websocket's dialect."""
    session_id, document_id = socket.path_params["session_id"], socket.path_params["document_id"]
    services, rooms, token = _of(socket)
    await socket.accept()
    line = socket.scope["extensions"].get(EXTENSION) or AsgiLine(socket)
    try:
        client = await rooms.enter(line, session_id, await socket_caller(services, token))
        try:
            seat = rooms.sit(client, session_id, document_id, hocuspocus=False)
        except AtelierError:
            client.ended()
            raise
    except AtelierError as error:
        await _turn_away(socket, error)
        return

    def handle(data: bytes) -> None:
        if data[:2] == b"\x00\x02":  # what is said most
            seat.room.edit(seat, protocol.body_of_update(data))
            return
        message = protocol.parse(data)
        if not isinstance(message, protocol.Leave | protocol.Token):
            seat.room.receive(seat, message)

    client.handle = handle
    await _hand_over(line, client, "y-websocket")


async def open_sync(socket: WebSocket) -> None:
    """Many documents in Hocuspocus' dialect. The token comes in the address, or in the first Auth message."""
    session_id = socket.path_params["session_id"]
    services, rooms, token = _of(socket)
    await socket.accept()
    line = socket.scope["extensions"].get(EXTENSION) or AsgiLine(socket)
    waiting: list[bytes] = []
    try:
        if token is None:
            token, waiting = await asyncio.wait_for(_first_token(socket), _FIRST_SECONDS)
        client = await rooms.enter(line, session_id, await socket_caller(services, token))
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

    def handle(data: bytes) -> None:
        name, body = protocol.split_envelope(data)
        seat = client.seats.get(name)
        if seat is not None and body[:2] == b"\x00\x02":  # what is said most
            seat.room.edit(seat, protocol.body_of_update(body))
            return
        message = protocol.parse(body)
        if isinstance(message, protocol.Ping):
            client.ping()
        if isinstance(message, protocol.Ping) and not name:
            client.push(framed(b"\x00" + protocol.PONG_FRAME))
            return
        if isinstance(message, protocol.Leave):
            if seat is not None:
                rooms.rise(client, name)
            return
        if seat is None:
            try:
                seat = rooms.sit(client, session_id, name, hocuspocus=True)
            except Unavailable as error:  # this document alone
                why = protocol.denied(f"{error.code}: {error.detail}", hocuspocus=True)
                client.push(framed(sized(name.encode()) + why))
                return
        if isinstance(message, protocol.Token):
            seat.push(protocol.authenticated(can_write=allows(client.role, Action.EDIT)))
        else:
            seat.room.receive(seat, message)

    client.handle = handle
    for data in waiting:
        client.message(data)
    await _hand_over(line, client, "hocuspocus")


def _of(socket: WebSocket) -> tuple[Services, Rooms, str | None]:
    state = socket.app.state
    return state.services, state.rooms, socket.query_params.get("token")


async def _hand_over(line: LineProtocol | AsgiLine, client: Client, dialect: str) -> None:
    """Let the connection go on by itself; under another server than uvicorn, carry it until it ends."""
    metrics.CONNECTIONS.labels(dialect).inc()
    leave = client.leave

    def left() -> None:
        metrics.CONNECTIONS.labels(dialect).dec()
        leave()

    client.leave = left
    if isinstance(line, LineProtocol):
        line.take_over(client)
    else:
        await line.run(client)


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


async def _turn_away(socket: WebSocket, error: AtelierError) -> None:
    metrics.REFUSED.labels(error.code).inc()
    await socket.close(
        error.close_code, f"{error.code}: {error.detail}".encode()[:120].decode(errors="ignore")
    )


_SESSION = "/api/v1/sessions/{session_id}"
# Starlette's own routes: finding out each time what an endpoint depends on would be most of what a connection costs.
routes = [
    WebSocketRoute(_SESSION + "/documents/{document_id}", open_document),
    WebSocketRoute(_SESSION + "/sync", open_sync),
]
