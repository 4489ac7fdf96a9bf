"""The registry of rooms and of who is connected to which session; reacts when somebody's access changes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from types import TracebackType
from typing import Self

import structlog

from atelier.auth import Action, Caller, Role, access_topic, allows, require, role_in
from atelier.documents import EMPTY_UPDATE, decodes, sized
from atelier.errors import BadRequest, Invalid, TooMany, Unavailable
from atelier.hub import metrics, protocol
from atelier.hub.client import GOING_AWAY, Client, Outbox, Seat
from atelier.hub.line import Line
from atelier.hub.presence_news import presence_topic, room_of
from atelier.hub.pulse import Pulse
from atelier.hub.quotas import Quotas
from atelier.hub.room import Room
from atelier.ids import DOCUMENT_ID, document_key
from atelier.services import Services
from atelier.tasks import TaskGroup

logger = structlog.get_logger(__name__)
_SWEEP_SECONDS = 2.0
_KEEP_ALIVE_SWEEPS = 5  # each 10 s
_SETTLE_SECONDS = 3.0
_INSIST_SECONDS = 0.5
_DRAIN_SECONDS = 6.0
_DRAIN_RATE = 500  # connections a second
ENDED = 4403


class Rooms:
    """All rooms of this process; an async context manager."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._rooms: dict[str, Room] = {}
        self._clients: dict[str, set[Client]] = {}
        self._watchers: dict[str, list[asyncio.Task[None]]] = {}
        self._roles: dict[str, dict[str, Role]] = {}
        self._entering: Counter[str] = Counter()
        self._tasks = TaskGroup("hub")
        self._outbox = Outbox()
        self._pulse = Pulse()
        self._quotas = Quotas(services.limits)
        self.draining = False

    async def __aenter__(self) -> Self:
        await self._warm_up()
        self._tasks.start(self._sweep(), name="sweep")
        self._tasks.start(self._pulse.beat(), name="pulse")
        return self

    async def _warm_up(self) -> None:
        """Do what the first guest after a start would wait for: the CRDT library's own imports, the first question of roles."""
        decodes(EMPTY_UPDATE)
        with contextlib.suppress(Unavailable):
            async with self._services.db.read() as db:
                await role_in(db, "", "")

    async def drain(self) -> None:
        """Close every connection, spread over at most six seconds, so that not all come back at once."""
        self.draining = True
        clients = [client for clients in self._clients.values() for client in clients]
        seconds = min(_DRAIN_SECONDS, len(clients) / _DRAIN_RATE)
        began = time.monotonic()
        for number, client in enumerate(clients):
            late = began + seconds * number / len(clients) - time.monotonic()
            if late > 0.01:
                await asyncio.sleep(late)
            client.close(GOING_AWAY, "the server is restarting")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in [client for clients in self._clients.values() for client in clients]:
            client.close(GOING_AWAY, "the server is restarting")
        # What was handed to the log is acknowledged before the line closes, or comes again with its client.
        try:
            async with asyncio.timeout(_SETTLE_SECONDS):
                for room in list(self._rooms.values()):
                    await room.settle()
        except (TimeoutError, Unavailable) as failure:
            # Nothing of it was acknowledged: it comes again with its client.
            logger.warning("not everything was settled before the end", error=str(failure))
        for room in list(self._rooms.values()):
            room.close()
        await self._tasks.cancel()

    async def enter(self, line: Line, session_id: str, caller: Caller) -> Client:
        """Register a connection of a member.

        Raises:
            NotFound: `session_not_found`.
            Unavailable: `server_busy`.
        """
        if self.draining or self._pulse.late():
            metrics.SHED.inc()
            raise Unavailable(
                "server_busy",
                "This server is restarting." if self.draining else "This server has as much to do as it can.",
                next_step="Connect again in a few seconds; your edits are kept.",
            )
        self._entering[session_id] += 1
        try:
            # Listening comes before reading the role, so that no change falls between the two.
            await self._watch(session_id)
            role = await self._role(session_id, caller.user_id)
        except BaseException:
            self._entering[session_id] -= 1
            self._forget(session_id)
            raise
        self._entering[session_id] -= 1
        client = Client(line, caller, role, self._services.limits, self._outbox)
        self._clients.setdefault(session_id, set()).add(client)
        client.leave = lambda: self.leave(client, session_id)
        return client

    async def _role(self, session_id: str, user_id: str) -> Role:
        """Return the person's role, kept from an earlier connection as long as nobody says that it changed."""
        while True:
            roles = self._roles[session_id]
            role = roles.get(user_id)
            if role is None:
                async with self._services.db.read() as db:
                    role = await require(db, session_id, user_id, Action.READ)
            if self._roles[session_id] is roles:  # else a change was told meanwhile
                roles[user_id] = role
                return role

    def sit(self, client: Client, session_id: str, name: str, *, hocuspocus: bool) -> Seat:
        """Give a client a seat in a document's room.

        Raises:
            Invalid: `document_id_invalid`.
            TooMany: `too_many_documents`.
            Unavailable: `document_quarantined`.
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
        # Still the registered one? It may have ended and come again. One in quarantine stays to say so.
        idle = not (room.seats or room.working or room.quarantined)
        if idle and self._rooms.get(room.key) is room:
            del self._rooms[room.key]
            room.close()
            metrics.ROOMS.set(len(self._rooms))

    # --- access -------------------------------------------------------------------------------------------------

    async def _watch(self, session_id: str) -> None:
        self._clients.setdefault(session_id, set())
        self._roles.setdefault(session_id, {})
        if session_id not in self._watchers:
            ready = [asyncio.Event(), asyncio.Event()]
            self._watchers[session_id] = [
                self._tasks.start(self._listen(session_id, ready[0]), name=f"access {session_id}"),
                self._tasks.start(self._hear_others(session_id, ready[1]), name=f"presence {session_id}"),
            ]
            for each in ready:
                await each.wait()

    def _forget(self, session_id: str) -> None:
        if not self._clients.get(session_id) and not self._entering[session_id]:
            del self._entering[session_id]
            self._clients.pop(session_id, None)
            self._roles.pop(session_id, None)
            for watcher in self._watchers.pop(session_id, ()):
                watcher.cancel()

    async def _listen(self, session_id: str, ready: asyncio.Event) -> None:
        async with self._services.bus.subscribe(access_topic(session_id)) as signals:
            ready.set()
            async for signal in signals:
                # None: signals were lost, so everybody is looked at again.
                self._roles[session_id] = {}
                await self._insist(session_id, (signal or b"").decode())

    async def _hear_others(self, session_id: str, ready: asyncio.Event) -> None:
        """Bring what other processes say of who is present to the rooms that it is about."""
        async with self._services.bus.subscribe(presence_topic(session_id)) as signals:
            ready.set()
            async for signal in signals:
                if signal is None:
                    for room in [room for room in self._rooms.values() if room.session_id == session_id]:
                        room.presence.ask()
                    continue
                try:
                    key, message = room_of(signal)
                except BadRequest:
                    logger.warning("another process says what cannot be read", session=session_id)
                    continue
                heard = self._rooms.get(key)
                if heard is not None:
                    heard.presence.hear(message)

    async def _insist(self, session_id: str, user_id: str) -> None:
        """Look at roles again until it works: nobody may keep what was taken from them because a database was away."""
        while True:
            try:
                return await self._check_again(session_id, user_id)
            except Unavailable as error:
                logger.warning("roles cannot be read just now", session=session_id, code=error.code)
            except Exception:
                logger.exception("roles cannot be read", session=session_id)
            user_id = ""  # what else is said meanwhile waits: everybody is looked at then
            await asyncio.sleep(_INSIST_SECONDS)

    async def _check_again(self, session_id: str, user_id: str) -> None:
        clients = [c for c in self._clients.get(session_id, ()) if not user_id or c.caller.user_id == user_id]
        async with self._services.db.read() as db:
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
            self._sweep_clients(now, now - before)
            before = now
            metrics.QUARANTINED.set(sum(room.quarantined for room in self._rooms.values()))
            metrics.WAITING.set(
                sum(c.waiting for clients in self._clients.values() for c in clients if c.full)
            )
            metrics.LOOP_DELAY.set(self._pulse.worst())
            metrics.TASKS.set(len(asyncio.all_tasks()))

    def _sweep_clients(self, now: float, seconds: float) -> None:
        everybody = [
            (session_id, client) for session_id, clients in self._clients.items() for client in clients
        ]
        for session_id, client in everybody:
            self._quotas.count(client, session_id, *client.sweep(now, seconds))
        held = self._quotas.settle(seconds)
        for _, client in everybody:
            client.throttle(client in held)
        metrics.THROTTLED.set(len(held))
