"""One document's live connections inside this process.

Theory of operation. A message is handled as it comes, without awaiting: an edit is checked and handed to the log,
which writes everything of one turn of the event loop at once and then calls `_relay` with what it has taken (from here
or from anywhere). That sends identical bytes to every live seat but the author's. Once the edit survives a power cut,
the log calls `_settled`, and only then is it acknowledged. The room keeps no CRDT document. What a newcomer needs is
read from the log once, kept as bytes on a shelf while people come, and sent as fast as the newcomer takes it.

A document that cannot be worked on (what is kept of it is damaged, or an update brings the library down) is put in
quarantine alone: its seats are told, nobody sits down for a while, every other document goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import structlog

from atelier import times
from atelier.auth import Action, allows
from atelier.documents import (
    PART_BYTES,
    apart,
    check_state,
    compact_if_long,
    decodes,
    fold,
    is_long,
    is_valid,
    poison,
    split,
    validate,
)
from atelier.errors import AtelierError, TooLarge, Unavailable
from atelier.hub import metrics, protocol
from atelier.hub.client import Client, Seat
from atelier.hub.deletions import deletions, only_deletions
from atelier.hub.line import framed
from atelier.hub.presence_news import PresenceNews, presence_topic
from atelier.hub.shelf import Shelf
from atelier.hub.trace import tracer
from atelier.log import Edit, Entry
from atelier.services import Services

logger = structlog.get_logger(__name__)
_COMPACT_EVERY = 400  # edits
_COMPACT_BYTES = 1024 * 1024  # or so much in them
_COMPACT_SECONDS = 10.0
_COMPACT_AT_ONCE = 200_000  # edits; sooner would be paid for by whoever types meanwhile
_RECENT_BYTES = 1024 * 1024
_RECENT_EDITS = 2_000
_SHELF_SECONDS = 30.0
_STORED = protocol.sync_status(stored=True)
_STRIDE = 64 * 1024
_LARGE = 8 * 1024  # bytes; checking more than that keeps others waiting
_QUARANTINE_SECONDS = 60.0


class Room:
    """See the module. Made by `Rooms`."""

    def __init__(self, services: Services, session_id: str, document_id: str, key: str) -> None:
        self.session_id, self.document_id, self.key = session_id, document_id, key
        self.seats: set[Seat] = set()
        self._services = services
        self._live: set[Seat] = set()
        self.presence = PresenceNews(key, services.limits, self.seats, self._publish)
        self._authors: dict[int, tuple[Seat, float]] = {}
        self._working = 0
        # Every edit after both `_base` (None until the log has been read) and `_trimmed` is in `_recent`.
        self._recent: deque[tuple[Entry, bytes]] = deque()
        self._recent_bytes = 0
        self._base: int | None = None
        self._trimmed = 0
        self._last = 0
        self._shelf: Shelf | None = None
        self._reading = asyncio.Lock()
        self._since_compaction = 0
        self._bytes_since = 0
        self._compact_after = 0.0
        self._compacting = False
        self._too_large = False
        self._released = 0.0  # the end of a quarantine
        self._unfollow: Callable[[], None] = services.log.follow(key, self._relay)

    # --- coming and going ---------------------------------------------------------------------------------------

    def join(self, client: Client, name: str, prefix: bytes) -> Seat:
        """Give the client a seat; it hears of edits once it has asked for the document's state.

        Raises:
            Unavailable: `document_quarantined`.
        """
        if self.quarantined:
            raise _quarantined()
        seat = Seat(client, self, prefix)
        client.seats[name] = seat
        self.seats.add(seat)
        everybody = self.presence.everybody()
        if everybody is not None:
            seat.push(everybody)
        return seat

    def leave(self, seat: Seat) -> None:
        """Take the seat away; the others see its presence go."""
        self.seats.discard(seat)
        self._live.discard(seat)
        seat.live = False
        seat.feed = None
        self.presence.leave(seat)
        if not self.seats and self._worth_compacting:
            self._work(self._compact(), None)

    @property
    def working(self) -> bool:
        """Whether something waits to be written, acknowledged or finished."""
        return bool(self._authors or self._working)

    @property
    def quarantined(self) -> bool:
        """Whether the document could not be worked on a moment ago."""
        return time.monotonic() < self._released

    async def settle(self) -> None:
        """Wait until everything that was handed to the log survives a power cut, or was refused."""
        await self._services.log.sync(self.key, self._last)
        while self.working:  # noqa: ASYNC110 - at the end of the process, for milliseconds
            await asyncio.sleep(0.005)

    def close(self) -> None:
        """Stop following the log; the room is empty and idle."""
        self._unfollow()
        self.presence.close()

    def _publish(self, message: bytes) -> None:
        topic = presence_topic(self.session_id)
        self._services.tasks.start(self._services.bus.publish(topic, message), name="presence")

    # --- messages -----------------------------------------------------------------------------------------------

    def receive(self, seat: Seat, message: protocol.Message) -> None:
        """Do what a client's message asks for.

        Raises:
            AtelierError: the message is refused and its socket closes.
        """
        match message:
            case protocol.Update():
                self.edit(seat, message.update, reply=message.reply)
            case protocol.Step1():
                check_state(message.state)
                self._work(self._synchronise(seat, message.state), seat)
            case protocol.Awareness():
                self.presence.receive(seat, message.update)
            case protocol.QueryAwareness():
                seat.push(self.presence.everybody() or protocol.KEEPALIVE)
            case protocol.Ping():
                seat.push(protocol.PONG_FRAME)
            case _:
                pass

    def edit(self, seat: Seat, update: bytes, *, reply: bool = False) -> None:
        """Check an edit and hand it to the log.

        Raises:
            Invalid: `poison_update`.
        """
        seat.edits += 1
        seat.edited_bytes += len(update)
        if len(update) > _LARGE or seat.considered or (reply and only_deletions(update)):
            # What comes behind it waits: edits of one seat reach the log in the order in which they were made.
            seat.considered += 1
            seat.considering = seat.considering or asyncio.Lock()
            self._work(self._consider(seat, update, reply=reply), seat)
            return
        validate(update)
        self._submit(seat, update)

    async def _consider(self, seat: Seat, update: bytes, *, reply: bool) -> None:
        """Take an edit in that is large, or an answer that may only repeat deletions which the log has."""
        assert seat.considering is not None
        try:
            async with seat.considering:
                if not await apart(len(update), is_valid, update):
                    raise poison()
                if reply and only_deletions(update):
                    asked = deletions(update)
                    if asked is not None and (not asked or (await self._shelved()).knows(asked)):
                        await self._services.log.sync(self.key, self._last)
                        if seat.hocuspocus:
                            seat.push(protocol.sync_status(stored=True))
                        return
                self._submit(seat, update)
        finally:
            seat.considered -= 1

    def _submit(self, seat: Seat, update: bytes) -> None:
        client = seat.client
        if self._too_large or not allows(client.role, Action.EDIT):
            code = "document_too_large" if self._too_large else "role_forbids"
            metrics.REFUSED.labels(code).inc()
            if seat.hocuspocus:
                seat.push(protocol.sync_status(stored=False))
            else:
                why = "the document is full" if self._too_large else "your role does not allow editing"
                seat.push(protocol.denied(f"{code}: {why}", hocuspocus=False))
            return
        client.owe(len(update))
        edit = Edit(update, client.caller.user_id, times.now())
        now = time.monotonic()
        self._authors[id(edit)] = (seat, now)
        tracer.submitted(self.key, edit, now)
        self._services.log.submit(self.key, edit, self._settled)

    def _settled(self, edits: Sequence[Edit], error: Unavailable | None) -> None:
        """Acknowledge edits, or close their authors' connections: they keep the edits and come back."""
        oldest = time.monotonic()
        followed = tracer.followed
        acknowledged: dict[Seat, list[bytes]] = {}
        for edit in edits:
            seat, at = self._authors.pop(id(edit))
            seat.client.owe(-len(edit.update))
            if edit is followed:
                tracer.settled(failed=error is not None)
            oldest = min(oldest, at)
            if seat.prefix:
                body = seat.prefix + _STORED
            else:
                # y-websocket 4 takes the echo of its own edit for "saved".
                body = protocol.update(edit.update)
            acknowledged.setdefault(seat, []).append(framed(body))
        if error is not None:
            metrics.REFUSED.labels(error.code).inc(len(edits))
            for seat in acknowledged:
                seat.client.fail(error)
            return
        metrics.acknowledged(time.monotonic() - oldest)
        for seat, frames in acknowledged.items():
            if seat in self.seats:
                seat.client.push(b"".join(frames))

    # --- relaying -----------------------------------------------------------------------------------------------

    def _relay(self, entries: Sequence[Entry]) -> None:
        """Send what the log has taken to every live seat but its author's; called by the log, in order."""
        followed = tracer.followed
        if followed is not None and all(entry.edit is not followed for entry in entries):
            followed = None
        if followed is not None:
            tracer.mark()
        bodies: list[bytes] = []
        authors: dict[Seat, set[int]] = {}
        size = 0
        for number, (_, edit) in enumerate(entries):
            body = protocol.update(edit.update)
            bodies.append(body)
            size += len(body)
            own = self._authors.get(id(edit))
            if own is not None:
                authors.setdefault(own[0], set()).add(number)
        self._recent.extend(zip(entries, bodies, strict=True))
        self._recent_bytes += size
        last = self._last = entries[-1].position
        if self._shelf is not None:
            self._shelf.add(entries)
        # Framed once for all seats that call the document the same.
        frames: dict[bytes, list[bytes]] = {}
        whole: dict[bytes, bytes] = {}
        for seat in tuple(self._live):  # a write may find a line full, and its seat falls behind then
            seat.sent = last
            prefix = seat.prefix
            if prefix not in frames:
                framed_now = frames[prefix] = [framed(prefix + body) for body in bodies]
                whole[prefix] = b"".join(framed_now)
            own_numbers = authors.get(seat)
            if own_numbers is None:
                seat.client.send(whole[prefix])
            elif len(own_numbers) < len(bodies):
                others = [frame for number, frame in enumerate(frames[prefix]) if number not in own_numbers]
                seat.client.send(b"".join(others))
        if followed is not None:
            tracer.mark()
        metrics.edits.appended += len(entries)
        metrics.edits.delivered += len(entries) * len(self._live)
        self._trim()
        self._since_compaction += len(entries)
        self._bytes_since += size
        if self._worth_compacting and (
            time.monotonic() > self._compact_after or self._since_compaction >= _COMPACT_AT_ONCE
        ):
            self._compact_after = time.monotonic() + _COMPACT_SECONDS
            self._work(self._compact(), None)

    def _trim(self) -> None:
        recent = self._recent
        while self._recent_bytes > _RECENT_BYTES or len(recent) > _RECENT_EDITS:
            entry, body = recent.popleft()
            self._recent_bytes -= len(body)
            self._trimmed = entry.position

    # --- bringing seats up to date ------------------------------------------------------------------------------

    async def _synchronise(self, seat: Seat, state: bytes) -> None:
        """Answer a client that says which state it has."""
        self.fall_behind(seat)
        shelf = await self._shelved()
        own, position = protocol.step1(shelf.state()), shelf.position
        # The client takes our state for saved, so it has to be: what we have may be written and not yet synced.
        await self._services.log.sync(self.key, position)
        if seat not in self.seats:
            return
        self.fall_behind(seat)  # an earlier answer may have ended meanwhile
        if not seat.hocuspocus and not seat.asked:
            seat.push(own)
        seat.asked = True
        seat.sent = shelf.position
        whole = shelf.whole_for(state)
        updates = None if whole is not None else shelf.updates_for(state)

        def feed() -> Iterator[bytes]:
            for update in updates or ():
                yield protocol.update(update)
            yield protocol.step2(whole or protocol.EMPTY_UPDATE)
            if seat.hocuspocus:
                yield own

        seat.feed = feed()
        self.catch_up(seat)

    def fall_behind(self, seat: Seat) -> None:
        """Stop sending edits to a seat as they come; `catch_up` brings it up to date."""
        seat.live = False
        self._live.discard(seat)

    def catch_up(self, seat: Seat) -> None:
        """Send what a seat lacks as long as its connection takes it; then it is live."""
        if seat.live or seat not in self.seats or not seat.asked:
            return
        pushed = 0
        while seat.feed is not None:
            body = next(seat.feed, None)
            if body is None:
                seat.feed = None
                break
            seat.push(body)
            pushed += len(body)
            if pushed > _STRIDE:
                pushed = 0
                if not seat.client.room_to_send():
                    return
        if self._base is None or seat.sent < max(self._base, self._trimmed):
            self._work(self._replay(seat), seat)
            return
        frames = [framed(seat.prefix + body) for entry, body in self._recent if entry.position > seat.sent]
        if frames:
            seat.client.push(b"".join(frames))
        seat.sent = max(self._last, seat.sent)
        seat.live = True
        self._live.add(seat)

    async def _replay(self, seat: Seat) -> None:
        """Bring a seat that was away for long up to date from the log, folded."""
        entries = await self._services.log.history(self.key, seat.sent)
        if seat not in self.seats or seat.live or seat.feed is not None:
            return
        if not entries:
            self._base = seat.sent  # there is nothing between
        else:
            seat.sent = entries[-1].position
            updates = [entry.edit.update for entry in entries]
            seat.feed = iter([protocol.update(part) for part in _folded(updates)])
        self.catch_up(seat)

    async def _shelved(self) -> Shelf:
        """Return the document for newcomers, up to date; it is read once, however many come at that moment."""
        async with self._reading:
            while self._shelf is None:
                stored = await self._services.log.read(self.key)
                shelf = await asyncio.to_thread(Shelf, stored)
                if self._trimmed <= stored.position:
                    if self._base is None:
                        self._base = stored.position
                    self._last = max(self._last, stored.position)
                    shelf.add([entry for entry, _ in self._recent if entry.position > stored.position])
                    self._shelf = shelf
                    if is_long(stored) and time.monotonic() > self._compact_after:
                        self._compact_after = time.monotonic() + _COMPACT_SECONDS
                        self._work(self._compact(), None)
            return self._shelf

    def _work(self, job: Coroutine[Any, Any, None], seat: Seat | None) -> None:
        """Do something that takes a while beside everything else; its failure is its client's alone."""
        self._working += 1
        self._services.tasks.start(self._worked(job, seat), name=f"room {self.key}")

    async def _worked(self, job: Coroutine[Any, Any, None], seat: Seat | None) -> None:
        try:
            await job
        except AtelierError as error:
            metrics.REFUSED.labels(error.code).inc()
            if seat is not None:
                seat.client.fail(error)
            else:
                logger.warning("not done", document=self.key, code=error.code, detail=error.detail)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a panic of the library below is no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            self._quarantine()
        finally:
            self._working -= 1

    def _quarantine(self) -> None:
        logger.exception("a document cannot be worked on", document=self.key)
        self._released = time.monotonic() + _QUARANTINE_SECONDS
        self._shelf = None
        error = _quarantined()
        metrics.REFUSED.labels(error.code).inc()
        for seat in list(self.seats):
            if seat.hocuspocus:
                # The connection carries other documents, which are well.
                seat.push(protocol.denied(f"{error.code}: {error.detail}", hocuspocus=True))
                self.leave(seat)
                seat.client.seats = {k: v for k, v in seat.client.seats.items() if v is not seat}
            else:
                seat.client.fail(error)

    @property
    def _worth_compacting(self) -> bool:
        return self._since_compaction >= _COMPACT_EVERY or self._bytes_since >= _COMPACT_BYTES

    async def _compact(self) -> None:
        if self._compacting:
            return
        self._compacting = True
        try:
            while True:
                self._since_compaction = self._bytes_since = 0
                await self._compact_once()
                if not self._worth_compacting or self.seats:
                    break  # while people are there, the sweep or their next edit sees to the rest
        finally:
            self._compacting = False

    async def _compact_once(self) -> None:
        try:
            limits = self._services.limits
            done = await compact_if_long(
                self._services.log,
                self.key,
                most_bytes=limits.document_bytes,
                most_clients=limits.document_clients,
            )
        except TooLarge as error:
            self._too_large = True
            logger.warning("a document is full", document=self.key, detail=error.detail)
            return
        self._too_large = False
        if done:
            metrics.COMPACTIONS.inc()
            self._shelf = None

    # --- now and then -------------------------------------------------------------------------------------------

    def sweep(self, now: float, *, keep_alive: bool) -> None:
        """Remove silent presences, forget the shelf, keep y-websocket clients from taking the line for dead; compact."""
        self.presence.sweep()
        if self._worth_compacting and now > self._compact_after and not self._compacting:
            self._compact_after = now + _COMPACT_SECONDS
            self._work(self._compact(), None)
        if self._shelf is not None and now - self._shelf.used > _SHELF_SECONDS:
            self._shelf = None
        if keep_alive:
            frame = framed(protocol.KEEPALIVE)
            for seat in self.seats:
                if not seat.prefix and not seat.client.full:
                    seat.client.push(frame)


def _quarantined() -> Unavailable:
    return Unavailable(
        "document_quarantined",
        "This document cannot be opened: what is kept of it is damaged.",
        next_step="Whoever runs this server can look at it: atelier documents inspect, then recover.",
    )


def _folded(updates: list[bytes]) -> list[bytes]:
    """Fold updates into few; as they are when that does not decode."""
    whole = fold(updates)
    if not decodes(whole):
        return updates
    return [whole] if len(whole) <= PART_BYTES else [segment.update for segment in split(whole)]
