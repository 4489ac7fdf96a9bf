"""Letting go of the past: what an owner wants gone, and what is older than the operator keeps.

The text stays as it is. What goes, for good, is who wrote what before a point and everything that had been deleted by
then: all of it becomes one edit of nobody's. Named versions from before it go too, since what they name is gone.
"""

from __future__ import annotations

import asyncio

import structlog

from atelier import documents, events, files, times
from atelier.auth import Action, Caller
from atelier.db import Database
from atelier.errors import AtelierError
from atelier.history import queries, service
from atelier.ids import document_key, parts_of_key
from atelier.log import Log
from atelier.services import Services

logger = structlog.get_logger(__name__)
_EVERY_SECONDS = 6 * 3600


async def forget_before(
    services: Services, caller: Caller, session_id: str, document_id: str, position: int
) -> tuple[int, int]:
    """Let go of everything before a point; returns the first position that is left and how many edits became one.

    Raises:
        Unavailable: `document_busy`.
    """
    await files.allowed(services, caller, session_id, Action.MANAGE)
    service.key_of(session_id, document_id)
    return await _forget(services, session_id, document_id, position)


async def _forget(services: Services, session_id: str, document_id: str, position: int) -> tuple[int, int]:
    first, edits = await documents.let_go(services.log, document_key(session_id, document_id), position)
    if edits:
        async with services.db.begin() as db:
            await queries.delete_bursts(db, session_id, document_id)
            gone = [
                row["id"]
                for row in await queries.version_list(db, session_id)
                if 0 < row["positions"].get(document_id, 0) < first
            ]
            for version_id in gone:
                await queries.delete_version(db, session_id, version_id)
        await events.publish(
            services, session_id, "versions.changed", {"version_id": gone[0] if gone else ""}
        )
    return first, edits


async def forget_regularly(services: Services, *, days: int) -> None:
    """Let go of what is older than so many days, a few times a day, until cancelled."""
    while True:
        try:
            await forget_older(services, times.now() - days * times.DAY)
        except AtelierError as error:
            logger.warning("no past was let go", code=error.code, detail=error.detail)
        await asyncio.sleep(_EVERY_SECONDS)


async def forget_older(services: Services, than: int) -> int:
    """Let go of what was written before a time, in every document; returns how many edits went.

    A document that cannot be worked on keeps its past, and no other document from losing its own.
    """
    went = 0
    for kept in await services.log.survey():
        try:
            upto = await _last_before(services, kept.document, than)
            if upto:
                went += (await _forget(services, *parts_of_key(kept.document), upto))[1]
        except AtelierError as error:
            logger.warning("a document's past stays", document=kept.document, code=error.code)
        except Exception:
            logger.exception("a document's past cannot be let go", document=kept.document)
    return went


async def _last_before(services: Services, key: str, than: int) -> int:
    last = 0
    while entries := await services.log.history(key, last):
        old = [entry.position for entry in entries if entry.edit.at < than]
        last = old[-1] if old else last
        if len(old) < len(entries):
            break
    return last


async def disown(db: Database, log: Log, user_id: str) -> int:
    """Take a person's name off every edit of theirs, in every document; returns how many there were."""
    while await documents.compact_waiting(log, most_bytes=2**53, age=-1):
        pass  # also off those that are still in a live store
    edits = await log.disown(user_id)
    async with db.begin() as connection:
        await queries.delete_bursts_of(connection, user_id)
    return edits
