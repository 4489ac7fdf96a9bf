"""All SQL about events."""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from atelier.db.tables import events, sessions


async def next_number(db: AsyncConnection, session_id: str, now: int) -> int | None:
    """Return the next number; taking it by an update of the session's row makes concurrent callers take turns."""
    touched = await db.execute(update(sessions).where(sessions.c.id == session_id).values(updated_at=now))
    if touched.rowcount == 0:
        return None
    return await last_number(db, session_id) + 1


async def last_number(db: AsyncConnection, session_id: str) -> int:
    query = select(func.max(events.c.seq)).where(events.c.session_id == session_id)
    return int((await db.execute(query)).scalar_one_or_none() or 0)


async def first_number(db: AsyncConnection, session_id: str) -> int:
    query = select(func.min(events.c.seq)).where(events.c.session_id == session_id)
    return int((await db.execute(query)).scalar_one_or_none() or 1)


async def add(db: AsyncConnection, **values: Any) -> None:
    await db.execute(insert(events).values(**values))


async def after(db: AsyncConnection, session_id: str, seq: int, most: int) -> list[RowMapping]:
    query = (
        select(events)
        .where(events.c.session_id == session_id, events.c.seq > seq)
        .order_by(events.c.seq)
        .limit(most)
    )
    return list((await db.execute(query)).mappings())


async def forget(db: AsyncConnection, session_id: str, upto: int) -> None:
    await db.execute(delete(events).where(events.c.session_id == session_id, events.c.seq <= upto))
