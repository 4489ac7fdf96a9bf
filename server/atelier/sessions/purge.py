"""What was deleted goes for good: a session's documents with all their history, then its rows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from atelier import times
from atelier.errors import AtelierError
from atelier.ids import document_key
from atelier.services import Services
from atelier.sessions import queries

KEPT = 30 * times.DAY
"""How long an owner can bring a deleted session back."""
_EVERY_SECONDS = 3_600
logger = structlog.get_logger(__name__)


async def purge_regularly(services: Services) -> None:
    """Purge now and every hour, until cancelled."""
    while True:
        try:
            await purge(services)
        except AtelierError as error:
            logger.warning("nothing was purged", code=error.code, detail=error.detail)
        await asyncio.sleep(_EVERY_SECONDS)


async def purge(services: Services) -> list[str]:
    """Remove sessions that were deleted more than 30 days ago; returns their ids."""
    async with services.db.read() as db:
        due = await queries.deleted_before(db, times.now() - KEPT)
    await forget(services, due)
    async with services.db.begin() as db:
        await queries.remove_sessions(db, due)
    for session_id in due:
        logger.info("a deleted session is gone for good", session=session_id)
    return due


async def forget(services: Services, session_ids: Iterable[str]) -> None:
    """Remove all documents of sessions, history too.

    Before their rows, so that a kill in between leaves something to go on with.
    """
    for session_id in session_ids:
        for kept in await services.log.survey(document_key(session_id, "")):
            await services.log.forget(kept.document)
