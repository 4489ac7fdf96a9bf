"""Compaction of documents whose edits have waited long, whoever has them open: what a live store must let go of."""

from __future__ import annotations

import asyncio

import structlog

from atelier.documents.compact import compact_if_long
from atelier.errors import AtelierError, TooLarge
from atelier.log import Log

logger = structlog.get_logger(__name__)
_LOOK_SECONDS = 5.0
_AGE_SECONDS = 300.0


async def compact_waiting(log: Log, *, most_bytes: int, age: float = _AGE_SECONDS) -> int:
    """Compact what has waited for `age` seconds, once; returns how many documents that were.

    A document that cannot be compacted waits anew and keeps nobody else.
    """
    done = 0
    for document in await log.due(age):
        try:
            if await compact_if_long(log, document, most_bytes=most_bytes, always=True):
                done += 1
            else:
                await log.put_off(document)
        except TooLarge:
            done += 1
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a panic of the library below is no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            logger.exception("a document cannot be compacted", document=document)
            await log.put_off(document)
    return done


async def compact_regularly(log: Log, *, most_bytes: int) -> None:
    """Look every few seconds; several processes share the work."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            await compact_waiting(log, most_bytes=most_bytes)
        except AtelierError as error:
            logger.warning("nothing is compacted just now", code=error.code, detail=error.detail)
