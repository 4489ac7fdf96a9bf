"""One document's live connections inside this process.

Theory of operation. `receive` checks a message against the seat's role and puts edits into `_arrived`. One writer task
takes all that has arrived and hands it to the log in one append; the log calls `_relay` with what it has taken (from
here or from anywhere), which sends identical bytes to every seat but the author's. A second task syncs what was
appended and only then acknowledges. The two run side by side, so the disk's pace does not slow the relay. The room
keeps no CRDT document; whatever a newcomer needs is read from the log.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from atelier import times
from atelier.auth import Action, allows
from atelier.documents import (
    EMPTY_STATE,
    check_state,
    compact_if_long,
    difference,
    fold,
    merged,
    state_of,
    validate,
)
from atelier.errors import AtelierError, Unavailable
from atelier.hub import metrics, protocol
from atelier.hub.client import Client, Seat
from atelier.hub.deletions import covers, deletions, only_deletions
from atelier.hub.presence import Presence
from atelier.log import Edit, Entry
from atelier.services import Services

logger = structlog.get_logger(__name__)
CHUNK_BYTES = 256 * 1024
_PRESENCE_SECONDS = 0.02
_COMPACT_EVERY = 400
_LARGE = 32 * 1024  # bytes; checking more than that keeps others waiting


class Room:
    """See the module. Made by `Rooms`, which owns its tasks."""

    def __init__(self, services: Services, session_id: str, document_id: str, key: str) -> None:
        self.session_id, self.document_id, self.key = session_id, document_id, key
        self.seats: set[Seat] = set()
        self._services = services
        limits = services.limits
        self._presence = Presence(
            most_clients=limits.presence_clients_per_socket, most_bytes=limits.presence_bytes
        )
        self._news: set[int] = set()
        self._news_timer: asyncio.TimerHandle | None = None
        self._arrived: deque[tuple[Seat, Edit, float]] = deque()
        self._authors: dict[int, Seat] = {}
        self._appended: deque[tuple[int, Seat, Edit, float]] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._acknowledging: asyncio.Task[None] | None = None
        self._since_compaction = 0
        self._unfollow: Callable[[], None] = services.log.follow(key, self._relay)

    # --- coming and going ---------------------------------------------------------------------------------------

    def join(self, client: Client, name: str, prefix: bytes) -> Seat:
        """Give the client a seat; it hears of edits once it has asked for the document's state."""
        seat = Seat(client, self, prefix)
        client.seats[name] = seat
        self.seats.add(seat)
        if len(self._presence):
            seat.push(protocol.awareness(self._presence.everybody()))
        return seat

    def leave(self, seat: Seat) -> None:
        """Take the seat away; the others see its presence go."""
        self.seats.discard(seat)
        self._tell_news(self._presence.leave(seat))

    @property
    def idle(self) -> bool:
        """Whether nobody is here and nothing waits to be written."""
        return not self.seats and not self._arrived and not self._appended and self._writing is None

    def close(self) -> None:
        """Stop following the log; the room is empty and idle."""
        self._unfollow()
        if self._news_timer is not None:
            self._news_timer.cancel()

    async def drain(self) -> None:
        """Wait until everything that arrived is written and acknowledged."""
        while (task := self._writing or self._acknowledging) is not None:
            await asyncio.wait([task])

    # --- messages -----------------------------------------------------------------------------------------------

    async def receive(self, seat: Seat, message: protocol.Message) -> None:
        """Do what a client's message asks for.

        Raises:
            AtelierError: the message is refused and its socket closes.
        """
        match message:
            case protocol.Update():
                await self._edit(seat, message)
            case protocol.Step1():
                await self.synchronise(seat, message.state)
            case protocol.Awareness():
                outcome = self._presence.receive(seat, seat.client.identity, message.update)
                if outcome.probe is not None:
                    seat.push(protocol.awareness(outcome.probe))
                self._tell_news(outcome.changed)
            case protocol.QueryAwareness():
                seat.push(protocol.awareness(self._presence.everybody()))
            case protocol.Ping():
                seat.push(protocol.PONG_FRAME)
            case _:
                pass

    async def _edit(self, seat: Seat, message: protocol.Update) -> None:
        update = message.update
        if len(update) < _LARGE:
            validate(update)
        else:
            await asyncio.to_thread(validate, update)
        if message.reply and only_deletions(update) and await self._knows(update):
            self._acknowledge_now(seat)
            return
        if not allows(seat.client.role, Action.EDIT):
            metrics.REFUSED.labels("role_forbids").inc()
            if seat.hocuspocus:
                seat.push(protocol.sync_status(stored=False))
            else:
                seat.push(protocol.denied("role_forbids: your role does not allow editing", hocuspocus=False))
            return
        edit = Edit(update, seat.client.caller.user_id, times.now())
        self._arrived.append((seat, edit, time.monotonic()))
        self._start_writing()

    def _start_writing(self) -> None:
        if self._writing is None:
            self._writing = self._services.tasks.start(self._write(), name=f"write {self.key}")

    async def _knows(self, update: bytes) -> bool:
        """Say whether an answer without structs only repeats deletions that the log has."""
        asked = deletions(update)
        if not asked:
            return asked is not None
        stored = await self._services.log.read(self.key)
        whole = await asyncio.to_thread(merged, stored)
        known = deletions(difference(whole, await asyncio.to_thread(state_of, whole)))
        return known is not None and covers(known, asked)

    def _acknowledge_now(self, seat: Seat) -> None:
        if seat.hocuspocus:
            # In the order of the frames: what arrived before is acknowledged before.
            if self._arrived or self._appended:
                self._arrived.append((seat, Edit(protocol.EMPTY_UPDATE, "", 0), time.monotonic()))
                self._start_writing()
            else:
                seat.push(protocol.sync_status(stored=True))

    async def synchronise(self, seat: Seat, state: bytes) -> None:
        """Send what the client lacks, in frames of at most 256 KiB where that can be, then live edits."""
        check_state(state)
        seat.backlog = []
        stored = await self._services.log.read(self.key)
        position = stored.tail[-1].position if stored.tail else stored.snapshot_position
        # The client takes our state for saved, so it has to be: what was read may be appended and not yet synced.
        await self._services.log.sync(self.key, position)
        fresh = state == EMPTY_STATE
        whole = await asyncio.to_thread(merged, stored)
        own = await asyncio.to_thread(state_of, whole)
        if not seat.hocuspocus and seat.sent == 0:
            seat.push(protocol.step1(own))
        if fresh and len(whole) > CHUNK_BYTES:
            parts = [stored.snapshot] if stored.snapshot else []
            parts += await asyncio.to_thread(_chunks, stored.tail)
            for part in parts:
                seat.push(protocol.update(part))
            last = protocol.EMPTY_UPDATE
        else:
            last = whole if fresh else await asyncio.to_thread(difference, whole, state)
        seat.push(protocol.step2(last), position=max(position, 1))
        if seat.hocuspocus:
            seat.push(protocol.step1(own))
        self._go_live(seat, position)

    def replay(self, seat: Seat) -> None:
        """Bring a seat that was too slow up to date from the last position that went out."""
        if seat in self.seats and seat.backlog is None:
            seat.backlog = []
            self._services.tasks.start(self._replay(seat), name=f"replay {self.key}")

    async def _replay(self, seat: Seat) -> None:
        try:
            stored = await self._services.log.read(self.key, seat.sent)
        except AtelierError as error:
            seat.client.fail(error)
            return
        position = stored.tail[-1].position if stored.tail else max(stored.snapshot_position, seat.sent)
        parts = [stored.snapshot] if stored.snapshot else []
        for part in [*parts, *await asyncio.to_thread(_chunks, stored.tail)]:
            seat.push(protocol.update(part))
        seat.push(protocol.update(protocol.EMPTY_UPDATE), position=max(position, 1))
        self._go_live(seat, position)

    def _go_live(self, seat: Seat, position: int) -> None:
        backlog, seat.backlog = seat.backlog or [], None
        for at, body in backlog:
            if at > position:
                seat.push(body, position=at)

    # --- writing ------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        try:
            while self._arrived:
                batch = list(self._arrived)
                self._arrived.clear()
                real = [item for item in batch if item[1].update != protocol.EMPTY_UPDATE]
                for seat, edit, _ in real:
                    self._authors[id(edit)] = seat
                try:
                    positions = iter(await self._services.log.append(self.key, [edit for _, edit, _ in real]))
                except Unavailable as error:
                    self._refuse(batch, error)
                    continue
                finally:
                    for _, edit, _ in real:
                        self._authors.pop(id(edit), None)
                metrics.APPENDED.inc(len(real))
                last = 0
                for item in batch:
                    last = next(positions) if item[1].update != protocol.EMPTY_UPDATE else last
                    self._appended.append((last, *item))
                if self._acknowledging is None:
                    self._acknowledging = self._services.tasks.start(
                        self._acknowledge(), name=f"acknowledge {self.key}"
                    )
        finally:
            self._writing = None

    async def _acknowledge(self) -> None:
        try:
            while self._appended:
                batch = list(self._appended)
                try:
                    await self._services.log.sync(self.key, max(position for position, *_ in batch))
                except Unavailable as error:
                    for _ in batch:
                        self._appended.popleft()
                    self._refuse([(seat, edit, at) for _, seat, edit, at in batch], error)
                    continue
                now = time.monotonic()
                for _, seat, edit, at in batch:
                    self._appended.popleft()
                    metrics.ACKNOWLEDGED.observe(now - at)
                    if seat.hocuspocus:
                        seat.push(protocol.sync_status(stored=True))
                    elif edit.update != protocol.EMPTY_UPDATE:
                        # y-websocket 4 takes the echo of its own edit for "saved".
                        seat.push(protocol.update(edit.update))
        finally:
            self._acknowledging = None

    def _refuse(self, batch: Sequence[tuple[Seat, Edit, float]], error: Unavailable) -> None:
        """Close whoever's edits were not taken: they keep them and come back. The code says it is transient."""
        metrics.REFUSED.labels(error.code).inc(len(batch))
        for client in {seat.client for seat, _, _ in batch}:
            client.fail(error)

    def _relay(self, entries: Sequence[Entry]) -> None:
        """Send what the log has taken to every seat but its author's; called by the log, in order."""
        for entry in entries:
            author = self._authors.get(id(entry.edit))
            body = protocol.update(entry.edit.update)
            frames: dict[bytes, bytes] = {}
            for seat in self.seats:
                if seat is author:
                    continue
                if seat.backlog is not None:
                    seat.backlog.append((entry.position, body))
                    continue
                frame = frames.get(seat.prefix)
                if frame is None:
                    frame = frames[seat.prefix] = seat.prefix + body
                seat.client.push(frame, seat, entry.position)
            metrics.DELIVERED.inc(len(self.seats))
        self._since_compaction += len(entries)
        if self._since_compaction >= _COMPACT_EVERY:
            self._since_compaction = 0
            self._services.tasks.start(self._compact(), name=f"compact {self.key}")

    async def _compact(self) -> None:
        try:
            await compact_if_long(
                self._services.log, self.key, most_bytes=self._services.limits.document_bytes
            )
        except AtelierError as error:
            logger.warning("not compacted", document=self.key, code=error.code, detail=error.detail)

    # --- presence -----------------------------------------------------------------------------------------------

    def _tell_news(self, clients: frozenset[int]) -> None:
        """Send the newest states soon, several changes of one moment as one frame."""
        if not clients:
            return
        self._news |= clients
        if self._news_timer is None:
            self._news_timer = asyncio.get_running_loop().call_later(_PRESENCE_SECONDS, self._send_news)

    def _send_news(self) -> None:
        self._news_timer = None
        body = protocol.awareness(self._presence.news(self._news))
        self._news.clear()
        for seat in self.seats:
            seat.push(body)

    def sweep(self, *, keep_alive: bool) -> None:
        """Remove silent presences, and keep y-websocket clients from taking the line for dead."""
        self._tell_news(self._presence.expire())
        for seat in self.seats:
            if seat.client.silent:
                self._tell_news(self._presence.leave(seat))  # it says itself anew when it comes back to life
        if keep_alive:
            for seat in self.seats:
                if not seat.hocuspocus:
                    seat.push(protocol.KEEPALIVE)


def _chunks(tail: Sequence[Entry]) -> list[bytes]:
    """Fold a tail into updates of about 256 KiB."""
    chunks: list[bytes] = []
    group: list[bytes] = []
    size = 0
    for entry in tail:
        if group and size + len(entry.edit.update) > CHUNK_BYTES:
            chunks.append(fold(group))
            group, size = [], 0
        group.append(entry.edit.update)
        size += len(entry.edit.update)
    return [*chunks, fold(group)] if group else chunks
