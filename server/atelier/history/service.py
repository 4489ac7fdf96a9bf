"""A document's past: who wrote when, any point of it, what differs, playback; and going back by a forward edit.

Bursts are derived from the log and kept, so that a long history is read once: whoever lists the history takes in what
was written since. The newest burst may still grow and is not kept.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from sqlalchemy.exc import IntegrityError

from atelier import documents, files
from atelier.auth import Action, Caller
from atelier.documents import Change
from atelier.errors import Invalid, TooLarge
from atelier.history import diff, points, queries
from atelier.history.bursts import LONG_QUIET, Burst, Grouping
from atelier.history.points import Choice, Step
from atelier.ids import DOCUMENT_ID, document_key
from atelier.log import Entry, Stored
from atelier.services import Services

PAGE = 200
_READ = 5_000  # edits at a time
_PLAYED_CHARACTERS = 512 * 1024
_turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()


@dataclass(frozen=True, slots=True)
class Mark:
    """A point worth going to; without a version's id it is the state before a long pause ended."""

    position: int
    at: int
    name: str = ""
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Bursts and marks, newest first; `next` is the position before which there are more."""

    bursts: list[Burst]
    marks: list[Mark]
    names: dict[str, str]
    position: int
    edits: int
    next: int | None


def key_of(session_id: str, document_id: str) -> str:
    """Return the log's key of a document.

    Raises:
        Invalid: `document_id_invalid`.
    """
    if not DOCUMENT_ID.fullmatch(document_id):
        raise Invalid(
            "document_id_invalid",
            "A document id has 1 to 64 letters, digits, - or _.",
            next_step="Take the document_id of the session's list of files.",
        )
    return document_key(session_id, document_id)


async def history(
    services: Services, caller: Caller, session_id: str, document_id: str, *, before: int | None, limit: int
) -> Page:
    """Return who wrote when, newest first."""
    await files.allowed(services, caller, session_id, Action.READ)
    growing = await _take_in(services, session_id, document_id)
    async with services.db.read() as db:
        found = await queries.burst_page(db, session_id, document_id, before=before, most=limit + 1)
        edits = await queries.count_edits(db, session_id, document_id)
        newest = await queries.newest_burst(db, session_id, document_id)
        versions = await queries.version_list(db, session_id)
        # Meanwhile somebody else's request may have kept it.
        if growing is not None and growing.first > newest:
            edits, newest = edits + growing.edits, growing.last
            if before is None or growing.last < before:
                found.insert(0, growing)
        page = found[:limit]
        names = await queries.names(db, {author for burst in page for author in burst.authors})
    following = page[-1].first if len(found) > limit else None
    marks = [
        Mark(earlier.last, earlier.ended_at)
        for later, earlier in pairwise(found)
        if later.started_at - earlier.ended_at >= LONG_QUIET
    ]
    for row in versions:
        position = row["positions"].get(document_id)
        if position and (before is None or position < before) and position >= (following or 0):
            marks.append(Mark(position, row["created_at"], row["name"], row["id"]))
    marks.sort(key=lambda mark: (-mark.position, -mark.at))
    return Page(page, marks, names, newest, edits, following)


async def _take_in(services: Services, session_id: str, document_id: str) -> Burst | None:
    """Keep the bursts that are complete by now; returns the one that may still grow."""
    key = key_of(session_id, document_id)
    lock = _turns.get(key)
    if lock is None:
        lock = _turns[key] = asyncio.Lock()
    async with lock:
        while True:
            try:
                return await _read_on(services, session_id, document_id)
            except IntegrityError:
                continue  # another process keeps the same bursts just now: go on behind what it has kept


async def _read_on(services: Services, session_id: str, document_id: str) -> Burst | None:
    key = document_key(session_id, document_id)
    async with services.db.read() as db:
        after = await queries.newest_burst(db, session_id, document_id)
    grouping: Grouping | None = None
    while entries := await services.log.history(key, after, _READ):
        if grouping is None:
            stored = await services.log.read_at(key, after)
            grouping = await asyncio.to_thread(_grouping, stored if after else None)
        complete = await asyncio.to_thread(_complete, grouping, entries)
        async with services.db.begin() as db:
            await queries.add_bursts(db, session_id, document_id, complete)
        after = entries[-1].position
    return None if grouping is None else grouping.open


def _grouping(stored: Stored | None) -> Grouping:
    return Grouping(documents.EMPTY_UPDATE if stored is None else documents.merged(stored))


def _complete(grouping: Grouping, entries: Iterable[Entry]) -> list[Burst]:
    return list(grouping.take(entries))


async def point(
    services: Services, caller: Caller, session_id: str, document_id: str, position: int
) -> tuple[int, str]:
    """Return a document's text at a position, and the position of the last edit in it.

    Raises:
        TooLarge: `point_too_large`.
    """
    await files.allowed(services, caller, session_id, Action.READ)
    return await text_at(services, key_of(session_id, document_id), position)


async def text_at(services: Services, key: str, position: int) -> tuple[int, str]:
    """Return the text of the document with this key at a position. Raises as `point`."""
    stored = await services.log.read_at(key, position)
    text = await documents.apart(documents.size_of(stored), _text, stored)
    return stored.position, _bounded(services, text)


def _text(stored: Stored) -> str:
    return documents.text_in(documents.merged(stored))


def _bounded(services: Services, text: str) -> str:
    most = services.limits.text_bytes
    if len(text) > most or len(text.encode()) > most:
        raise TooLarge(
            "point_too_large",
            f"The text at this point has more than {most:,} bytes.",
            next_step="Choose another point, or open the file with a Yjs client.",
        )
    return text


async def compared(
    services: Services, caller: Caller, session_id: str, document_id: str, first: int, last: int | None
) -> diff.Diff:
    """Return what differs between two points; without `last`, between a point and now."""
    await files.allowed(services, caller, session_id, Action.READ)
    key = key_of(session_id, document_id)
    _, old = await text_at(services, key, first)
    if last is None:
        new = _bounded(services, await documents.text_of(services.log, key))
    else:
        _, new = await text_at(services, key, last)
    return await documents.apart(len(old) + len(new), diff.compare, old, new)


async def playback(
    services: Services,
    caller: Caller,
    session_id: str,
    document_id: str,
    *,
    after: int,
    upto: int | None,
    limit: int,
) -> tuple[str, list[Step], dict[str, str], int | None]:
    """Return the text at `after`, what each edit behind it did, names by author, and where to go on."""
    await files.allowed(services, caller, session_id, Action.READ)
    key = key_of(session_id, document_id)
    stored = await services.log.read_at(key, after)
    entries = [
        entry
        for entry in await services.log.history(key, after, limit + 1)
        if upto is None or entry.position <= upto
    ]
    size = documents.size_of(stored) + sum(len(entry.edit.update) for entry in entries)
    text, found = await documents.apart(size, _steps, stored, entries[:limit])
    async with services.db.read() as db:
        names = await queries.names(db, {step.author for step in found})
    more = len(entries) > len(found)
    return _bounded(services, text), found, names, found[-1].position if more else None


def _steps(stored: Stored, entries: list[Entry]) -> tuple[str, list[Step]]:
    return points.steps(documents.merged(stored), entries, most=_PLAYED_CHARACTERS)


async def restore(
    services: Services, caller: Caller, session_id: str, document_id: str, position: int
) -> tuple[Change | None, str | None]:
    """Make the text equal to what it was, by a forward edit; returns it and the id that takes it back."""
    await files.allowed(services, caller, session_id, Action.EDIT)
    key = key_of(session_id, document_id)
    change = await set_back(services, caller, key, position)
    return change, await _undo_of(services, caller, session_id, document_id, change)


async def set_back(services: Services, caller: Caller, key: str, position: int) -> Change | None:
    """Make a document's text equal to what it was at a position; None when it is already."""
    _, text = await text_at(services, key, position)
    return await documents.change_text(
        services.log, key, caller.user_id, lambda now: documents.spans_between(now, text)
    )


async def roll_back(
    services: Services,
    caller: Caller,
    session_id: str,
    document_id: str,
    *,
    author: str | None,
    first: int,
    last: int | None,
) -> tuple[Change | None, str | None]:
    """Take the edits of one person or one period back; text and deletions of others stay.

    Whoever may edit may do this to anybody's edits: they could delete that text by hand, and this is attributed to
    them and can itself be taken back.
    """
    await files.allowed(services, caller, session_id, Action.EDIT)
    key = key_of(session_id, document_id)
    before = max(0, first - 1)
    base = await services.log.read_at(key, before)
    entries: list[Entry] = []
    while more := await services.log.history(key, entries[-1].position if entries else before, _READ):
        entries += more
    # Not what newcomers get: that holds what was deleted by its ids alone.
    now = Stored(base.snapshot, (*base.tail, *entries))
    choice = Choice(author, first, last if last is not None else now.position)
    size = documents.size_of(now) + sum(len(entry.edit.update) for entry in entries)
    change = await documents.apart(size, _taken_back, base, entries, choice, now)
    if change is not None:
        await documents.apply_update(services.log, key, caller.user_id, change.update)
    return change, await _undo_of(services, caller, session_id, document_id, change)


def _taken_back(base: Stored, entries: list[Entry], choice: Choice, now: Stored) -> Change | None:
    return points.taken_back(documents.merged(base), entries, choice, documents.merged(now))


async def _undo_of(
    services: Services, caller: Caller, session_id: str, document_id: str, change: Change | None
) -> str | None:
    if change is None:
        return None
    return await files.keep_undo(services, caller, session_id, {document_id: change.inverse})
