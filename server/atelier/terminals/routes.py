"""HTTP to calls: terminals; and the socket through which one is looked at and typed into.

The socket, from the server: bytes are what the terminal shows; text is JSON, `state` (size, people, how it ended) and
`from` (the place of the byte that comes next, said first and whenever some are left out: then begin anew). From the
client: bytes are keys; JSON is `shown` (the place up to which it has shown: 256 KiB are sent beyond that), `resize`, and
the text `ping`.
"""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request, WebSocket
from starlette.websockets import WebSocketDisconnect

from atelier.auth import (
    Action,
    Caller,
    CallerDep,
    Role,
    access_topic,
    allows,
    limiter_of,
    require,
    role_in,
    socket_caller,
)
from atelier.deps import ServicesDep
from atelier.errors import AtelierError, BadRequest, TooLarge
from atelier.sandbox import Window
from atelier.services import Services
from atelier.terminals.held import Held
from atelier.terminals.mirror import Mirror
from atelier.terminals.schemas import NewTerminal, Terminal, TerminalList
from atelier.terminals.screen import Typist, Viewer
from atelier.terminals.service import Terminals

router = APIRouter(prefix="/api/v1", tags=["terminals"])
_ACCESS_ENDED = 4403
_LONGEST = 64 * 1024


async def _terminals(request: Request) -> Terminals:
    return cast("Terminals", request.app.state.terminals)


TerminalsDep = Annotated[Terminals, Depends(_terminals)]


async def _allowed(services: Services, session_id: str, caller: Caller, action: Action) -> None:
    async with services.db.read() as db:
        await require(db, session_id, caller.user_id, action)


@router.post("/sessions/{session_id}/terminals", status_code=201, operation_id="open_terminal")
async def open_terminal(
    session_id: str,
    body: NewTerminal,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    terminals: TerminalsDep,
) -> Terminal:
    """Open a terminal that everyone in the session sees and everyone who may run types into."""
    await limiter_of(request).hit("runs", caller.user_id, services.limits)
    return await terminals.open(caller, session_id, body)


@router.get("/sessions/{session_id}/terminals", operation_id="list_terminals")
async def list_terminals(
    session_id: str, services: ServicesDep, caller: CallerDep, terminals: TerminalsDep
) -> TerminalList:
    """List the open terminals."""
    await _allowed(services, session_id, caller, Action.READ)
    return TerminalList(items=await terminals.of_session(session_id))


@router.delete("/sessions/{session_id}/terminals/{terminal_id}", status_code=204, operation_id="end_terminal")
async def end_terminal(
    session_id: str, terminal_id: str, services: ServicesDep, caller: CallerDep, terminals: TerminalsDep
) -> None:
    """End a terminal and everything that runs in it."""
    await _allowed(services, session_id, caller, Action.RUN)
    await terminals.end(session_id, terminal_id)


@router.websocket("/sessions/{session_id}/terminals/{terminal_id}/socket")
async def open_socket(
    socket: WebSocket,
    session_id: str,
    terminal_id: str,
    services: ServicesDep,
    token: str | None = None,
    after: int | None = None,
) -> None:
    """Look at a terminal from place `after` on, or from the oldest that is kept, and type into it."""
    await socket.accept()
    terminals: Terminals = socket.app.state.terminals
    try:
        caller = await socket_caller(services, token)
        async with services.db.read() as db:
            role = await require(db, session_id, caller.user_id, Action.READ)
        terminal = await terminals.look(session_id, terminal_id)
    except AtelierError as error:
        await socket.close(error.close_code, error.code)
        return
    seat = _Seat(socket, terminal, Viewer(caller.user_id, caller.display_name), role)
    terminal.screen.enter(seat.viewer, after)
    await seat.tell_others()
    jobs = [
        asyncio.create_task(seat.show()),
        asyncio.create_task(seat.listen()),
        asyncio.create_task(seat.watch_access(services, session_id, caller)),
    ]
    try:
        await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
    finally:
        terminal.screen.leave(seat.viewer)
        for job in jobs:
            job.cancel()
        results = await asyncio.gather(*jobs, return_exceptions=True)
        await seat.tell_others()
    for result in results:
        # A peer that went away while something was sent is the ordinary end.
        if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect | RuntimeError):
            raise result


class _Seat:
    """One connection to one terminal."""

    def __init__(self, socket: WebSocket, terminal: Held | Mirror, viewer: Viewer, role: Role) -> None:
        self.viewer = viewer
        self._socket, self._terminal, self._role = socket, terminal, role

    async def tell_others(self) -> None:
        self._terminal.screen.wake()
        if isinstance(self._terminal, Held):
            await self._terminal.tell()

    async def show(self) -> None:
        """Send what the terminal shows until it has ended and all is sent."""
        screen, viewer = self._terminal.screen, self.viewer
        said: dict[str, Any] = {}
        expected = -1
        while True:
            viewer.ready.clear()
            place, data = screen.next(viewer)
            if data:
                if place != expected:
                    await self._say({"type": "from", "place": place})
                await self._socket.send_bytes(data)
                expected = place + len(data)
                continue
            if said != (state := screen.state()):
                said = state
                await self._say({"type": "state", **state})
            if said["ended"] is not None and viewer.place >= screen.tape.end:
                await self._socket.close(1000, "ended")
                return
            await viewer.ready.wait()

    async def listen(self) -> None:
        """Take keys, sizes and what has been shown."""
        try:
            while True:
                message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                if (keys := message.get("bytes")) is not None:
                    await self._keys(keys)
                elif (text := message.get("text")) == "ping":
                    await self._say({"type": "pong"})
                else:
                    await self._take(json.loads(text or ""))
        except AtelierError as error:
            await self._socket.close(error.close_code, error.code)
        except (ValueError, TypeError, KeyError):
            await self._socket.close(BadRequest.close_code, "message_invalid")

    async def _keys(self, keys: bytes) -> None:
        if len(keys) > _LONGEST:
            raise TooLarge("message_too_large", f"At most {_LONGEST} bytes are typed at once.")
        if allows(self._role, Action.RUN):
            may_edit = allows(self._role, Action.EDIT)
            await self._terminal.type(keys, Typist(self.viewer.user_id, self.viewer.name, may_edit))

    async def _take(self, said: dict[str, Any]) -> None:
        if said["type"] == "shown":
            self._terminal.screen.acknowledge(self.viewer, int(said["place"]))
        elif said["type"] == "resize" and allows(self._role, Action.RUN):
            await self._terminal.resize(Window(int(said["columns"]), int(said["rows"])))

    async def watch_access(self, services: Services, session_id: str, caller: Caller) -> None:
        """Hold the person's role against what they do, from the moment that it changes."""
        async with services.bus.subscribe(access_topic(session_id)) as signals:
            async for signal in signals:
                if signal and signal.decode() != caller.user_id:
                    continue
                async with services.db.read() as db:
                    role = await role_in(db, session_id, caller.user_id)
                if role is None:
                    await self._socket.close(_ACCESS_ENDED, "access_ended")
                    return
                self._role = role

    async def _say(self, message: dict[str, Any]) -> None:
        await self._socket.send_text(json.dumps(message, separators=(",", ":")))
