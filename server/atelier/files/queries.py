"""All SQL about files: the inverses of edits over several of them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from atelier.db.tables import undos


async def add_undo(db: AsyncConnection, **values: Any) -> None:
    await db.execute(insert(undos).values(**values))


async def take_undo(db: AsyncConnection, session_id: str, undo_id: str, user_id: str) -> bytes | None:
    """Remove and return an undo of this person: only one caller can have it."""
    query = (
        delete(undos)
        .where(undos.c.id == undo_id, undos.c.session_id == session_id, undos.c.user_id == user_id)
        .returning(undos.c.updates)
    )
    return (await db.execute(query)).scalar_one_or_none()


async def forget_undos(db: AsyncConnection, before: int) -> None:
    await db.execute(delete(undos).where(undos.c.created_at < before))
