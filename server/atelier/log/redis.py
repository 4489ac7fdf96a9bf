"""The log in Redis, for any number of server processes: streams that PostgreSQL is given what they hold of.

Theory of operation. Redis syncs its append-only file before it answers (`appendfsync always`), so whatever is heard
from it survives a power cut. One task writes: what came while it waited goes out as one pipeline, one script call a
document. Nobody is told from here: the edits come back on the document's channel, in the stream's order, also the own
ones (known by a nonce), and so every process tells its listeners the same. Positions without a gap follow each other,
so what a lost connection has missed shows, and is read from the stream, or from PostgreSQL when it is no longer there.

A compaction writes the snapshot and the edits up to it into PostgreSQL in one transaction, then trims the stream. So
what is read is whole when the stream is read first: what is missing there is in PostgreSQL by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any

import redis.asyncio as redis
import structlog
from redis.exceptions import NoScriptError

from atelier import times
from atelier.channels import FAILURES, Channels
from atelier.errors import Unavailable
from atelier.log import streams
from atelier.log.base import Edit, Entry, Kept, Listener, Settled, Snapshot, Stored
from atelier.log.followers import Followers, settle
from atelier.log.postgres_archive import PostgresArchive, unavailable
from atelier.tasks import cancel_all

logger = structlog.get_logger(__name__)
_MOST_JOBS = 2_048
_MOST_BYTES = 8 * 1024 * 1024
_JUMP = 1 << 20
_EPOCH = 1_577_836_800  # 2020
_ANSWER_SECONDS = 5.0
_PAGE = 2_000
_CLAIM_MS = 120_000
_IDLE_MS = 600_000
_AT_ONCE = 200


@dataclass(slots=True, eq=False)
class _Job:
    document: str
    edits: Sequence[Edit]
    nonces: list[bytes]
    settled: Settled | None
    done: asyncio.Future[list[int]] | None
    positions: list[int] = field(default_factory=list)
    over: bool = False

    def end(self, error: Unavailable | None) -> None:
        """Say what has become of it; once."""
        if self.over:
            return
        self.over = True
        if self.settled is not None:
            settle([(self.settled, self.edits[0])], error)
        elif self.done is not None and not self.done.done():
            if error is None:
                self.done.set_result(self.positions)
            else:
                self.done.set_exception(error)


@dataclass(slots=True, eq=False)
class _Followed:
    """A document that somebody here follows."""

    document: str
    end: Callable[[], None] = lambda: None
    last: int = 0
    """Up to which position the listeners have been told, once `begun`."""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    catching_up: bool = False
    missed: list[streams.Told] = field(default_factory=list)
    written: list[_Job] = field(default_factory=list)


class RedisLog:
    """See the module. Made by `open_log`."""

    def __init__(self, pool: redis.Redis, channels: Channels, archive: PostgresArchive) -> None:
        self._redis = pool
        self._channels = channels
        self._archive = archive
        self._followers = Followers()
        self._followed: dict[str, _Followed] = {}
        self._mine: dict[bytes, Edit] = {}
        self._jobs: list[_Job] = []
        self._ready = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self._start(self._write(), "log-writer")

    async def check(self, *, vouched: bool) -> None:
        """Refuse a Redis that may lose what it has acknowledged.

        Raises:
            RuntimeError: it does not sync before it answers, or may drop keys.
        """
        wanted = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
        try:
            found = {name: (await self._redis.config_get(name)).get(name) for name in wanted}
        except redis.ResponseError as error:
            if vouched:
                return
            raise RuntimeError(
                "this Redis does not say how it is configured (CONFIG GET); when it has appendonly yes, appendfsync"
                " always and maxmemory-policy noeviction, say so: redis://…?vouched=yes"
            ) from error
        wrong = [
            f"{name} {value}, not {found[name]}" for name, value in wanted.items() if found[name] != value
        ]
        if wrong:
            raise RuntimeError(f"this Redis would lose acknowledged edits: it needs {'; '.join(wrong)}")

    # --- writing ------------------------------------------------------------------------------------------------

    def submit(self, document: str, edit: Edit, settled: Settled) -> None:
        """Hand an edit over; see the port."""
        self._take(_Job(document, (edit,), [streams.nonce()], settled, None))

    async def append(self, document: str, edits: Sequence[Edit]) -> list[int]:
        """Append in order; returns the positions once the edits survive a power cut."""
        if not edits:
            return []
        done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._take(_Job(document, edits, [streams.nonce() for _ in edits], None, done))
        return await done

    def _take(self, job: _Job) -> None:
        self._jobs.append(job)
        self._ready.set()

    async def _write(self) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._jobs:
                batch, size = 0, 0
                for job in self._jobs[:_MOST_JOBS]:
                    batch += 1
                    size += sum(len(edit.update) for edit in job.edits)
                    if size > _MOST_BYTES:
                        break
                jobs, self._jobs = self._jobs[:batch], self._jobs[batch:]
                groups: dict[str, list[_Job]] = {}
                for job in jobs:
                    groups.setdefault(job.document, []).append(job)
                try:
                    await self._append(groups)
                except Exception as error:  # the next edits are written all the same
                    logger.exception("the log cannot write this")
                    self._refuse(jobs, error)

    async def _append(self, groups: dict[str, list[_Job]]) -> None:
        """Write each document's group; one that fails alone is refused alone."""
        left: dict[str, list[_Job]] = {}
        for document, group in groups.items():
            followed = self._followed.get(document)
            if followed is not None:
                for job in group:
                    self._mine.update(zip(job.nonces, job.edits, strict=True))
                try:
                    # The listeners hear of everything that comes through here after `follow`.
                    await self._begun(document)
                except Unavailable as error:
                    self._refuse(group, error)
                    continue
            left[document] = group
        for _ in range(3):
            if not left:
                return
            try:
                answers = await self._send(left)
            except FAILURES as error:
                answers = [error] * len(left)
            again: dict[str, list[_Job]] = {}
            for (document, group), answer in zip(left.items(), answers, strict=True):
                try:
                    if isinstance(answer, NoScriptError):
                        await self._redis.script_load(streams.APPEND)
                        again[document] = group
                    elif isinstance(answer, Exception):
                        self._refuse(group, answer)
                    elif answer is None:
                        await self._seed(document)
                        again[document] = group
                    else:
                        self._written(document, group, int(answer))
                except (*FAILURES, Unavailable) as error:
                    self._refuse(group, error)
            left = again
        for group in left.values():
            self._refuse(group, TimeoutError("the stream does not stay"))

    async def _send(self, groups: dict[str, list[_Job]]) -> list[Any]:
        now = times.now()
        async with self._redis.pipeline(transaction=False) as pipeline:
            for document, group in groups.items():
                blobs = [
                    streams.encode(edit, nonce)
                    for job in group
                    for edit, nonce in zip(job.edits, job.nonces, strict=True)
                ]
                pipeline.evalsha(
                    _APPEND, 2, streams.stream(document), streams.WAITING,
                    streams.channel(document), now, document, *blobs,
                )  # fmt: skip
            return list(await pipeline.execute(raise_on_error=False))

    async def _seed(self, document: str) -> None:
        """Make a document's stream, above all positions that were ever used."""
        used = await self._archive.last(document)
        first = max(used + _JUMP, (int(time.time()) - _EPOCH) << 20)
        await self._redis.eval(streams.SEED, 1, streams.stream(document), str(first))

    def _written(self, document: str, group: list[_Job], first: int) -> None:
        followed = self._followed.get(document)
        for job in group:
            job.positions = list(range(first, first + len(job.edits)))
            first += len(job.edits)
            if followed is not None and followed.last < job.positions[-1]:
                followed.written.append(job)  # its listeners hear of it first
            else:
                self._done(job)

    def _refuse(self, group: Sequence[_Job], error: BaseException) -> None:
        logger.error("the log took nothing", error=str(error), edits=sum(len(job.edits) for job in group))
        for job in group:
            for nonce in job.nonces:
                self._mine.pop(nonce, None)
            job.end(error if isinstance(error, Unavailable) else unavailable(error))

    def _done(self, job: _Job) -> None:
        for nonce in job.nonces:
            self._mine.pop(nonce, None)
        job.end(None)

    async def sync(self, document: str, position: int) -> None:
        """Return at once: whatever has a position survives a power cut."""

    # --- following ----------------------------------------------------------------------------------------------

    def follow(self, document: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` for what anybody appends; see the port."""
        followed = self._followed.get(document)
        if followed is None:
            followed = self._followed[document] = _Followed(document)
            heard = followed
            followed.end = self._channels.listen(
                streams.channel(document), lambda message: self._heard(heard, message)
            )
        end_listening = self._followers.add(document, listener)
        left = followed

        def end() -> None:
            end_listening()
            if not self._followers.has(document) and self._followed.get(document) is left:
                del self._followed[document]
                left.begun.set()  # nobody waits for it any more
                left.end()
                for job in left.written:
                    self._done(job)

        return end

    def _heard(self, followed: _Followed, message: bytes | None) -> None:
        if message is None:
            # Hearing begins, perhaps again: something may have been missed.
            self._insist(followed, self._look)
            return
        told = streams.told(message)
        if followed.catching_up or not followed.begun.is_set():
            followed.missed.append(told)
        elif not self._told(followed, told):
            self._catch_up_soon(followed)

    def _told(self, followed: _Followed, told: streams.Told) -> bool:
        """Tell the listeners of a group; says whether it was known or the next."""
        if told.last <= followed.last:
            return True
        if told.first > followed.last + 1 or not told.blobs:
            return False
        skipped = followed.last + 1 - told.first
        blobs = told.blobs[skipped:]
        self._tell(followed, list(enumerate(blobs, followed.last + 1)))
        return True

    def _tell(self, followed: _Followed, rows: Sequence[tuple[int, bytes]]) -> None:
        entries = []
        for position, blob in rows:
            nonce, edit = streams.decode(blob)
            entries.append(Entry(position, self._mine.pop(nonce, edit)))
        self._tell_entries(followed, entries)

    def _tell_entries(self, followed: _Followed, entries: Sequence[Entry]) -> None:
        if not entries or self._followed.get(followed.document) is not followed:
            return
        followed.last = entries[-1].position
        self._followers.tell(followed.document, entries)
        self._acknowledge(followed)

    def _acknowledge(self, followed: _Followed) -> None:
        while followed.written and followed.written[0].positions[-1] <= followed.last:
            self._done(followed.written.pop(0))

    async def _look(self, followed: _Followed) -> None:
        """See where the document is: from there on the listeners hear, or up to there they are told."""
        last = await self._position(followed.document)
        if self._followed.get(followed.document) is not followed:
            return
        if not followed.begun.is_set():
            followed.last = last
            followed.begun.set()
            self._acknowledge(followed)  # written while somebody else followed
            missed, followed.missed = followed.missed, []
            if not all(self._told(followed, told) for told in missed):
                self._catch_up_soon(followed)
        elif last > followed.last:
            self._catch_up_soon(followed)

    def _catch_up_soon(self, followed: _Followed) -> None:
        if not followed.catching_up:
            followed.catching_up = True
            self._insist(followed, self._catch_up)

    async def _catch_up(self, followed: _Followed) -> None:
        """Tell what was missed, from where it is kept."""
        while self._followed.get(followed.document) is followed:
            rows = await self._stream_after(followed.document, followed.last, _PAGE)
            kept = await self._archive.history(followed.document, followed.last, _PAGE)
            self._tell_entries(followed, kept)  # the stream may have been trimmed meanwhile
            if len(kept) < _PAGE:
                self._tell(followed, [row for row in rows if row[0] > followed.last])
            missed, followed.missed = followed.missed, []
            whole = len(rows) < _PAGE and len(kept) < _PAGE
            if whole and all(self._told(followed, told) for told in missed):
                break
        followed.catching_up = False

    def _insist(self, followed: _Followed, work: Callable[[_Followed], Coroutine[Any, Any, None]]) -> None:
        """Do something for a document until it works or nobody follows the document any more."""

        async def insist() -> None:
            wait = 0.1
            while self._followed.get(followed.document) is followed:
                try:
                    return await work(followed)
                except (*FAILURES, Unavailable) as error:
                    logger.warning("the log lags behind", document=followed.document, error=str(error))
                except Exception:
                    logger.exception("the log cannot read this", document=followed.document)
                await asyncio.sleep(wait)
                wait = min(2.0, wait * 2)

        self._start(insist(), f"log {followed.document}")

    async def _begun(self, document: str) -> None:
        """Wait until whoever follows a document here hears of it."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                while (found := self._followed.get(document)) is not None and not found.begun.is_set():
                    await found.begun.wait()
        except TimeoutError as error:
            raise unavailable(error) from error

    # --- reading ------------------------------------------------------------------------------------------------

    async def read(self, document: str) -> Stored:
        """Return the newest snapshot and what came after it."""
        await self._begun(document)
        rows = await self._stream_after(document, 0)
        stored = await self._archive.read(document)
        return Stored(stored.snapshot, _joined(stored.tail, rows, stored.snapshot.position))

    async def history(self, document: str, after: int = 0, limit: int = 5_000) -> tuple[Entry, ...]:
        """Return every edit after a position, oldest first."""
        rows = await self._stream_after(document, after, limit)
        return _joined(await self._archive.history(document, after, limit), rows, after)[:limit]

    async def read_at(self, document: str, position: int) -> Stored:
        """Return the document as it was at a position."""
        rows = [row for row in await self._stream_after(document, 0) if row[0] <= position]
        stored = await self._archive.read_at(document, position)
        return Stored(stored.snapshot, _joined(stored.tail, rows, stored.snapshot.position))

    async def survey(self, prefix: str = "") -> list[Kept]:
        """List the documents whose name begins with `prefix`."""
        found = {kept.document: kept for kept in await self._archive.survey(prefix)}
        for name in await _asked(self._redis.zrange(streams.WAITING, 0, -1)):
            document = name.decode()
            if not document.startswith(prefix):
                continue
            kept = found.get(document, Kept(document, 0, 0, 0, 0))
            rows = await self._stream_after(document, max(kept.position, kept.snapshot_position))
            if rows:
                size = kept.bytes + sum(len(streams.decode(blob)[1].update) for _, blob in rows)
                edits = kept.edits + len(rows)
                found[document] = Kept(document, edits, size, kept.snapshot_position, rows[-1][0])
        return [found[document] for document in sorted(found)]

    async def _stream_after(
        self, document: str, after: int, limit: int | None = None, upto: str = "+"
    ) -> list[tuple[int, bytes]]:
        rows = await _asked(
            self._redis.xrange(streams.stream(document), min=f"0-{after + 1}", max=upto, count=limit)
        )
        return streams.ranged(rows)

    async def _position(self, document: str) -> int:
        last = await _asked(self._redis.eval(streams.LAST, 1, streams.stream(document)))
        return int(last) if last is not None else await self._archive.last(document)

    # --- keeping ------------------------------------------------------------------------------------------------

    async def compact(self, document: str, snapshot: Snapshot, *, keep: Snapshot | None = None) -> bool:
        """Take a verified snapshot and the edits up to it into PostgreSQL; then they leave the stream."""

        async def tail() -> list[Entry]:
            rows = await self._stream_after(document, 0, upto=f"0-{snapshot.position}")
            return [Entry(position, streams.decode(blob)[1]) for position, blob in rows]

        taken = await self._archive.compact(document, snapshot, keep=keep, tail=tail)
        if taken:
            await self._trim(document, snapshot.position)
        return taken

    async def _trim(self, document: str, position: int) -> None:
        await _asked(
            self._redis.eval(
                streams.TRIM,
                2,
                streams.stream(document),
                streams.WAITING,
                str(position + 1),
                document,
                times.now(),
                _IDLE_MS,
            )
        )

    @asynccontextmanager
    async def claim(self, document: str) -> AsyncIterator[bool]:
        """Be the one that compacts a document, for two minutes at most; longer, and the work is done twice."""
        key, own = streams.claim(document), streams.nonce()
        mine = bool(await _asked(self._redis.set(key, own, nx=True, px=_CLAIM_MS)))
        try:
            yield mine
        finally:
            if mine:
                with contextlib.suppress(*FAILURES):
                    await self._redis.eval(streams.RELEASE, 1, key, own)

    async def due(self, age: float) -> list[str]:
        """Return documents with edits that have waited so many seconds for a compaction, the oldest first."""
        oldest = times.now() - int(age * 1000)
        found = await _asked(
            self._redis.zrangebyscore(streams.WAITING, "-inf", oldest, start=0, num=_AT_ONCE)
        )
        return [name.decode() for name in found]

    async def put_off(self, document: str) -> None:
        """Let go of what PostgreSQL has, if somebody was killed before they could; the rest waits as if it came now."""
        await self._trim(document, await self._archive.covered(document))

    async def condense(self, document: str, entry: Entry, snapshot: Snapshot) -> bool:
        """Put one entry in the place of every edit up to its position."""
        return await self._archive.condense(document, entry, snapshot)

    async def disown(self, author: str) -> int:
        """Take a person's name off every edit."""
        return await self._archive.disown(author)

    async def forget(self, document: str) -> None:
        """Remove everything of a document; the stream stays, empty, so that its positions are not used again."""

        async def empty() -> None:
            await self._trim(document, 2**53)

        await self._archive.forget(document, empty)

    # --- working ------------------------------------------------------------------------------------------------

    def _start(self, job: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(job, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def close(self) -> None:
        """End; what had not been handed over is not acknowledged."""
        await cancel_all(self._background)


_APPEND = sha1(streams.APPEND.encode(), usedforsecurity=False).hexdigest()


def _joined(kept: Sequence[Entry], rows: Sequence[tuple[int, bytes]], after: int) -> tuple[Entry, ...]:
    """Join what PostgreSQL has with what the stream had a moment before."""
    last = kept[-1].position if kept else after
    return (*kept, *(Entry(position, streams.decode(blob)[1]) for position, blob in rows if position > last))


async def _asked(answer: Any) -> Any:
    try:
        return await answer
    except FAILURES as error:
        raise unavailable(error) from error
