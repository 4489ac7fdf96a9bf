"""All SQL about terminals. Only those that are open have a row."""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping, Select, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from atelier.db.tables import terminals, users

_SHOWN: Select[Any] = select(terminals, users.c.display_name.label("user_name")).outerjoin(
    users, users.c.id == terminals.c.user_id
)


async def add(db: AsyncConnection, **values: Any) -> None:
    await db.execute(insert(terminals).values(**values))


async def one(db: AsyncConnection, session_id: str, terminal_id: str) -> RowMapping | None:
    query = _SHOWN.where(terminals.c.session_id == session_id, terminals.c.id == terminal_id)
    found: RowMapping | None = (await db.execute(query)).mappings().one_or_none()
    return found


async def of_session(db: AsyncConnection, session_id: str) -> list[RowMapping]:
    query = _SHOWN.where(terminals.c.session_id == session_id).order_by(
        terminals.c.created_at, terminals.c.id
    )
    return list((await db.execute(query)).mappings())


async def count(db: AsyncConnection, session_id: str) -> int:
    query = select(func.count()).where(terminals.c.session_id == session_id)
    return int((await db.execute(query)).scalar_one())


async def remove(db: AsyncConnection, terminal_id: str) -> bool:
    """Say whether it was there: of several processes only one tells that it ended."""
    return bool((await db.execute(delete(terminals).where(terminals.c.id == terminal_id))).rowcount)


async def hold(db: AsyncConnection, holder: str, at: int) -> None:
    await db.execute(update(terminals).where(terminals.c.holder == holder).values(held_at=at))


async def left_behind(db: AsyncConnection, held_before: int) -> list[RowMapping]:
    """Return those that no process has said to hold since then."""
    return list((await db.execute(select(terminals).where(terminals.c.held_at < held_before))).mappings())
