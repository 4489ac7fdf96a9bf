"""Compaction: a snapshot in parts from what a log has, made in a thread, or in a process when it is large.

A large document's tail is folded into new parts behind the old ones; once there are twice as many parts as its size
asks for, the whole is encoded anew, squashed and verified. So an edit is rewritten a few times at most, however large
its document grows. Merging and applying hold the interpreter's lock: beyond some size a worker process
does it, so that nobody's keystroke waits.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import ParamSpec, TypeVar

import structlog

from atelier.documents.crdt import EMPTY_UPDATE, difference, fold, merged, squashed, state_of
from atelier.documents.shape import ranges
from atelier.documents.split import PART_BYTES, split
from atelier.documents.state import State
from atelier.errors import TooLarge, Unavailable
from atelier.log import Log, Snapshot, Stored

P = ParamSpec("P")
T = TypeVar("T")
logger = structlog.get_logger(__name__)
TAIL_ENTRIES = 400
TAIL_BYTES = 1024 * 1024
_HEAVY = 1024 * 1024  # bytes
_KEEP_EDITS = 4_000
_workers: list[ProcessPoolExecutor] = []


async def apart(size: int, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a pure function of `size` bytes of input off the event loop: in a thread, or in a process when it is large.

    Raises:
        Unavailable: `worker_lost`.
    """
    if size < _HEAVY:
        return await asyncio.to_thread(call, *args, **kwargs)
    if not _workers:
        _workers.append(ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=50))
    worker = _workers[0]
    try:
        return await asyncio.wrap_future(worker.submit(call, *args, **kwargs))
    except BrokenProcessPool as error:
        # It was killed, or this input killed it; the next call gets a new one.
        if worker in _workers:
            _workers.remove(worker)
        raise Unavailable(
            "worker_lost",
            "The process that worked on this document has ended before it was done.",
            next_step="Try again; if it happens again, ask whoever runs this server to look at the document.",
        ) from error


def end_workers() -> None:
    """End the worker process, if there is one."""
    while _workers:
        _workers.pop().shutdown(wait=False, cancel_futures=True)


def size_of(stored: Stored) -> int:
    """Return how many bytes of updates there are."""
    return sum(len(s.update) for s in stored.snapshot.segments) + sum(len(e.edit.update) for e in stored.tail)


def is_long(stored: Stored) -> bool:
    """Say whether the tail is worth compacting."""
    tail = stored.tail
    return len(tail) >= TAIL_ENTRIES or sum(len(entry.edit.update) for entry in tail) >= TAIL_BYTES


def compacted(stored: Stored, *, whole_history: bool = False) -> Snapshot:
    """Make the next snapshot: what is kept is checked to be what was there.

    What was deleted is in it by its ids alone, except for `whole_history`: nobody who joins needs it, and history,
    which does, starts from snapshots of its own.
    """
    snapshot = stored.snapshot
    segments = snapshot.segments
    old = sum(len(segment.update) for segment in segments)
    if (
        old > PART_BYTES
        and len(segments) < 2 * (old // PART_BYTES) + 8
        and snapshot.state
        and not (whole_history or waits(snapshot))
    ):
        return _appended(stored)
    whole = merged(stored)
    try:
        whole = squashed(whole, whole_history=whole_history)
    except (RuntimeError, ValueError) as error:
        # Somebody has sent what does not survive being encoded anew; merged it is larger, and all there.
        logger.warning("a document is kept as it was merged", position=stored.position, error=str(error))
    return Snapshot(stored.position, _vector(whole), split(whole))


def waits(snapshot: Snapshot) -> bool:
    """Say whether a snapshot holds structs that wait for one that is missing.

    They cannot stay in a part of their own: Yjs does not always look at them again when the missing one has come.
    """
    state = State(snapshot.state)
    for segment in snapshot.segments:
        ends = segment.ends or State.of(ranges(segment.update)[0]).encode()
        if not state.covers(ends):
            return True
    return False


def _vector(whole: bytes) -> bytes:
    """Return the state vector of an update as Yjs has it, which counts what waits for another client's struct."""
    state = state_of(whole)
    if difference(whole, state)[:1] == b"\x00":
        return state
    counted = State()
    counted.add(ranges(whole)[0])
    return counted.encode()


def _appended(stored: Stored) -> Snapshot:
    added = fold([entry.edit.update for entry in stored.tail])
    state = State(stored.snapshot.state)
    state.add(ranges(added)[0])
    new = split(added) if added != EMPTY_UPDATE else ()
    expected = sorted(ranges(added)[1])
    if sorted(r for segment in new for r in ranges(segment.update)[1]) != expected:
        raise RuntimeError("a compacted tail is not what was there before")
    return Snapshot(stored.position, state.encode(), stored.snapshot.segments + new)


async def compact_if_long(
    log: Log, document: str, *, most_bytes: int, most_clients: int = 2**53, always: bool = False
) -> bool:
    """Make a verified snapshot when the tail has grown long and no other process is at it; says whether it did.

    Raises:
        TooLarge: `document_too_large`, the snapshot alone is over a limit; it is kept all the same.
    """
    async with log.claim(document) as mine:
        if not mine:
            return False
        snapshot = await _compact(log, document, always=always)
    if snapshot is None:
        return False
    size, clients = sum(len(segment.update) for segment in snapshot.segments), len(State(snapshot.state))
    for what, value, most in (
        ("bytes", size, most_bytes),
        ("client ids that have written", clients, most_clients),
    ):
        if value > most:
            raise TooLarge(
                "document_too_large",
                f"The document has {value:,} {what}; the limit is {most:,}.",
                next_step="Copy what you need into new files.",
            )
    return True


async def _compact(log: Log, document: str, *, always: bool) -> Snapshot | None:
    stored = await log.read(document)
    if not stored.tail or not (always or is_long(stored)):
        return None
    keep = await _for_history(log, document, stored)
    # What history keeps has been put together already; of it there is only to be left out what was deleted.
    source = stored if keep is None else Stored(Snapshot(keep.position, b"", keep.segments), ())
    snapshot = await apart(size_of(source), compacted, source)
    await log.compact(document, snapshot, keep=keep)
    size = sum(len(segment.update) for segment in snapshot.segments)
    logger.info(
        "compacted", document=document, entries=len(stored.tail), bytes=size, parts=len(snapshot.segments)
    )
    return snapshot


async def _for_history(log: Log, document: str, stored: Stored) -> Snapshot | None:
    """Return a snapshot with all that was deleted, when so many edits lie between here and the last one that stayed."""
    before = await log.read_at(document, stored.position)
    size = sum(len(segment.update) for segment in stored.snapshot.segments)
    if len(before.tail) < _KEEP_EDITS or sum(len(e.edit.update) for e in before.tail) * 4 < size:
        return None
    return await apart(size_of(before), partial(compacted, whole_history=True), before)
