"""All SQL that only admins need."""

from __future__ import annotations

from sqlalchemy import RowMapping, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from atelier.db.tables import members, sessions, users


async def page_of_users(db: AsyncConnection, words: str, after: str, most: int) -> list[RowMapping]:
    query = select(users).where(users.c.id > after).order_by(users.c.id).limit(most)
    if words:
        like = f"%{words.lower()}%"
        query = query.where(or_(func.lower(users.c.display_name).like(like), users.c.email.like(like)))
    else:
        query = query.where(users.c.kind == "account")
    return list((await db.execute(query)).mappings())


async def count_admins(db: AsyncConnection) -> int:
    query = select(func.count()).select_from(users).where(users.c.is_admin.is_(True))
    return int((await db.execute(query)).scalar_one())


async def set_admin(db: AsyncConnection, user_id: str, is_admin: bool) -> None:
    await db.execute(update(users).where(users.c.id == user_id).values(is_admin=is_admin))


async def sessions_owned_alone(db: AsyncConnection, user_id: str) -> list[str]:
    others = select(members.c.session_id).where(members.c.role == "owner", members.c.user_id != user_id)
    query = select(members.c.session_id).where(
        members.c.role == "owner", members.c.user_id == user_id, members.c.session_id.not_in(others)
    )
    return list((await db.execute(query)).scalars())


async def sessions_joined(db: AsyncConnection, user_id: str) -> list[str]:
    return list(
        (await db.execute(select(members.c.session_id).where(members.c.user_id == user_id))).scalars()
    )


async def delete_sessions(db: AsyncConnection, session_ids: list[str]) -> None:
    await db.execute(delete(sessions).where(sessions.c.id.in_(session_ids)))


async def delete_user(db: AsyncConnection, user_id: str) -> None:
    await db.execute(delete(users).where(users.c.id == user_id))
