"""The registry of rooms and of who is connected to which session; reacts when somebody's access changes."""

from __future__ import annotations

import asyncio
import itertools
import time
from types import TracebackType
from typing import Self

from atelier.auth import Action, Caller, Role, access_topic, allows, require, role_in
from atelier.documents import sized
from atelier.errors import Invalid, NotFound, TooMany
from atelier.hub import metrics, protocol
from atelier.hub.client import GOING_AWAY, Client, Outbox, Seat
from atelier.hub.line import Line
from atelier.hub.room import Room
from atelier.ids import DOCUMENT_ID, document_key
from atelier.services import Services
from atelier.tasks import TaskGroup

_SWEEP_SECONDS = 2.0
_KEEP_ALIVE_SWEEPS = 5  # each 10 s
_DRAIN_SECONDS = 8.0
ENDED = 4403


class Rooms:
    """All rooms of this process; an async context manager."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._rooms: dict[str, Room] = {}
        self._clients: dict[str, set[Client]] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._tasks = TaskGroup("hub")
        self._outbox = Outbox()

    async def __aenter__(self) -> Self:
        self._tasks.start(self._sweep(), name="sweep")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in [client for clients in self._clients.values() for client in clients]:
            client.close(GOING_AWAY, "the server is restarting")
        # What was handed to the log is acknowledged before the line closes, or comes again with its client.
        async with asyncio.timeout(_DRAIN_SECONDS):
            for room in list(self._rooms.values()):
                await room.settle()
        for room in list(self._rooms.values()):
            room.close()
        await self._tasks.cancel()

    async def enter(self, line: Line, session_id: str, caller: Caller) -> Client:
        """Register a connection of a member.

        Raises:
            NotFound: `session_not_found`.
        """
        # Listening comes before reading the role, so that no change falls between the two.
        await self._watch(session_id)
        try:
            async with self._services.db.begin() as db:
                role = await require(db, session_id, caller.user_id, Action.READ)
        except NotFound:
            self._forget(session_id)
            raise
        client = Client(line, caller, role, self._services.limits, self._outbox)
        self._clients.setdefault(session_id, set()).add(client)
        client.leave = lambda: self.leave(client, session_id)
        return client

    def sit(self, client: Client, session_id: str, name: str, *, hocuspocus: bool) -> Seat:
        """Give a client a seat in a document's room.

        Raises:
            Invalid: `document_id_invalid`.
            TooMany: `too_many_documents`.
        """
        document_id = name.partition("\0")[0]
        if not DOCUMENT_ID.fullmatch(document_id):
            raise Invalid(
                "document_id_invalid",
                "A document id has 1 to 64 letters, digits, - or _.",
                next_step="Take the document_id of the session's list of files.",
            )
        most = self._services.limits.documents_per_socket
        if len(client.seats) >= most:
            raise TooMany(
                "too_many_documents",
                f"One connection opens at most {most} documents.",
                retry_after=1,
                next_step="Close a few files.",
            )
        key = document_key(session_id, document_id)
        room = self._rooms.get(key)
        if room is None:
            room = self._rooms[key] = Room(self._services, session_id, document_id, key)
            metrics.ROOMS.set(len(self._rooms))
        return room.join(client, name, sized(name.encode()) if hocuspocus else b"")

    def rise(self, client: Client, name: str) -> None:
        """Take a client's seat away and end the room if it was the last one."""
        seat = client.seats.pop(name)
        seat.room.leave(seat)
        self._end_if_idle(seat.room)

    def leave(self, client: Client, session_id: str) -> None:
        """Take everything of a connection away."""
        for name in list(client.seats):
            self.rise(client, name)
        self._clients.get(session_id, set()).discard(client)
        self._forget(session_id)

    def _end_if_idle(self, room: Room) -> None:
        # Still the registered one? It may have ended and come again.
        if not room.seats and not room.working and self._rooms.get(room.key) is room:
            del self._rooms[room.key]
            room.close()
            metrics.ROOMS.set(len(self._rooms))

    # --- access -------------------------------------------------------------------------------------------------

    async def _watch(self, session_id: str) -> None:
        self._clients.setdefault(session_id, set())
        if session_id not in self._watchers:
            ready = asyncio.Event()
            self._watchers[session_id] = self._tasks.start(
                self._listen(session_id, ready), name=f"access {session_id}"
            )
            await ready.wait()

    def _forget(self, session_id: str) -> None:
        if not self._clients.get(session_id):
            self._clients.pop(session_id, None)
            watcher = self._watchers.pop(session_id, None)
            if watcher is not None:
                watcher.cancel()

    async def _listen(self, session_id: str, ready: asyncio.Event) -> None:
        async with self._services.bus.subscribe(access_topic(session_id)) as signals:
            ready.set()
            async for signal in signals:
                # None: signals were lost, so everybody is looked at again.
                await self._check_again(session_id, (signal or b"").decode())

    async def _check_again(self, session_id: str, user_id: str) -> None:
        clients = [c for c in self._clients.get(session_id, ()) if not user_id or c.caller.user_id == user_id]
        async with self._services.db.begin() as db:
            roles = {c.caller.user_id: await role_in(db, session_id, c.caller.user_id) for c in clients}
        for client in clients:
            role = roles[client.caller.user_id]
            if role is None:
                client.close(ENDED, "access_ended: you are no longer a member of this session")
            elif role is not client.role:
                self._change_role(client, role)

    @staticmethod
    def _change_role(client: Client, role: Role) -> None:
        client.role = role
        for seat in client.seats.values():
            if seat.hocuspocus:
                seat.push(protocol.authenticated(can_write=allows(role, Action.EDIT)))

    # --- now and then -------------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        before = time.monotonic()
        for turn in itertools.count(1):
            await asyncio.sleep(_SWEEP_SECONDS)
            now = time.monotonic()
            for room in list(self._rooms.values()):
                room.sweep(now, keep_alive=turn % _KEEP_ALIVE_SWEEPS == 0)
                self._end_if_idle(room)
            for clients in list(self._clients.values()):
                for client in list(clients):
                    client.sweep(now, now - before)
            before = now
