"""All SQL about sessions, members and links."""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping, ScalarSelect, and_, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from atelier.db.tables import links, members, sessions, users


def _count_of_members() -> ScalarSelect[int]:
    everybody = members.alias()
    query = select(func.count()).select_from(everybody)
    return query.where(everybody.c.session_id == sessions.c.id).scalar_subquery()


async def add_session(db: AsyncConnection, **values: Any) -> None:
    await db.execute(insert(sessions).values(**values))


async def session(db: AsyncConnection, session_id: str) -> RowMapping | None:
    """Return a session that is not deleted, with `members`, the number of people in it."""
    counted = _count_of_members()
    query = (
        select(sessions, counted.label("members"), users.c.display_name.label("egress_name"))
        .outerjoin(users, users.c.id == sessions.c.egress_by)
        .where(sessions.c.id == session_id)
    )
    return (await db.execute(query)).mappings().one_or_none()


async def sessions_of(
    db: AsyncConnection,
    user_id: str,
    *,
    archived: bool,
    deleted: bool,
    before: tuple[int, str] | None,
    most: int,
) -> list[RowMapping]:
    """Return a person's sessions with their `role`, latest change first."""
    counted = _count_of_members()
    query = (
        select(
            sessions,
            members.c.role,
            counted.label("members"),
            users.c.display_name.label("egress_name"),
        )
        .join(members, members.c.session_id == sessions.c.id)
        .outerjoin(users, users.c.id == sessions.c.egress_by)
        .where(members.c.user_id == user_id)
        .where(sessions.c.deleted_at.is_not(None) if deleted else sessions.c.deleted_at.is_(None))
        .order_by(sessions.c.updated_at.desc(), sessions.c.id.desc())
        .limit(most)
    )
    if deleted:
        query = query.where(members.c.role == "owner")
    else:
        query = query.where(
            sessions.c.archived_at.is_not(None) if archived else sessions.c.archived_at.is_(None)
        )
    if before is not None:
        at, session_id = before
        query = query.where(
            or_(sessions.c.updated_at < at, and_(sessions.c.updated_at == at, sessions.c.id < session_id))
        )
    return list((await db.execute(query)).mappings())


async def count_owned(db: AsyncConnection, user_id: str) -> int:
    query = (
        select(func.count())
        .select_from(members)
        .join(sessions, sessions.c.id == members.c.session_id)
        .where(members.c.user_id == user_id, members.c.role == "owner", sessions.c.deleted_at.is_(None))
    )
    return int((await db.execute(query)).scalar_one())


async def change_session(db: AsyncConnection, session_id: str, **values: Any) -> None:
    await db.execute(update(sessions).where(sessions.c.id == session_id).values(**values))


async def member(db: AsyncConnection, session_id: str, user_id: str) -> RowMapping | None:
    query = select(members).where(members.c.session_id == session_id, members.c.user_id == user_id)
    return (await db.execute(query)).mappings().one_or_none()


async def member_list(db: AsyncConnection, session_id: str) -> list[RowMapping]:
    query = (
        select(members, users.c.display_name, users.c.kind)
        .join(users, users.c.id == members.c.user_id)
        .where(members.c.session_id == session_id)
        .order_by(members.c.joined_at, members.c.user_id)
    )
    return list((await db.execute(query)).mappings())


async def count_members(db: AsyncConnection, session_id: str, role: str | None = None) -> int:
    query = select(func.count()).select_from(members).where(members.c.session_id == session_id)
    if role is not None:
        query = query.where(members.c.role == role)
    return int((await db.execute(query)).scalar_one())


async def add_member(db: AsyncConnection, **values: Any) -> None:
    await db.execute(insert(members).values(**values))


async def change_member(db: AsyncConnection, session_id: str, user_id: str, **values: Any) -> None:
    await db.execute(
        update(members)
        .where(members.c.session_id == session_id, members.c.user_id == user_id)
        .values(**values)
    )


async def remove_member(db: AsyncConnection, session_id: str, user_id: str) -> None:
    await db.execute(delete(members).where(members.c.session_id == session_id, members.c.user_id == user_id))


async def remove_members_of_link(db: AsyncConnection, session_id: str, link_id: str) -> list[str]:
    query = (
        delete(members)
        .where(members.c.session_id == session_id, members.c.link_id == link_id, members.c.role != "owner")
        .returning(members.c.user_id)
    )
    return list((await db.execute(query)).scalars())


async def add_link(db: AsyncConnection, **values: Any) -> None:
    await db.execute(insert(links).values(**values))


async def link_list(db: AsyncConnection, session_id: str) -> list[RowMapping]:
    query = (
        select(links)
        .where(links.c.session_id == session_id, links.c.revoked_at.is_(None))
        .order_by(links.c.created_at.desc(), links.c.id)
    )
    return list((await db.execute(query)).mappings())


async def link_by_secret(db: AsyncConnection, secret_hash: str) -> RowMapping | None:
    """Return the link with its session's name and its maker's."""
    query = (
        select(
            links,
            sessions.c.name.label("session_name"),
            sessions.c.deleted_at,
            users.c.display_name.label("invited_by"),
        )
        .join(sessions, sessions.c.id == links.c.session_id)
        .outerjoin(users, users.c.id == links.c.created_by)
        .where(links.c.secret_hash == secret_hash)
    )
    return (await db.execute(query)).mappings().one_or_none()


async def revoke_link(db: AsyncConnection, session_id: str, link_id: str, now: int) -> bool:
    result = await db.execute(
        update(links)
        .where(links.c.session_id == session_id, links.c.id == link_id, links.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    return bool(result.rowcount)


async def use_link(db: AsyncConnection, link_id: str) -> bool:
    """Count one use; False when none is left (two who come at once cannot both have the last one)."""
    result = await db.execute(
        update(links)
        .where(
            links.c.id == link_id,
            links.c.revoked_at.is_(None),
            or_(links.c.max_uses.is_(None), links.c.uses < links.c.max_uses),
        )
        .values(uses=links.c.uses + 1)
    )
    return bool(result.rowcount)


async def deleted_before(db: AsyncConnection, moment: int) -> list[str]:
    """Return the ids of sessions that were deleted before a moment."""
    query = select(sessions.c.id).where(sessions.c.deleted_at < moment).order_by(sessions.c.deleted_at)
    return list((await db.execute(query)).scalars())


async def remove_sessions(db: AsyncConnection, session_ids: list[str]) -> None:
    """Remove sessions with everything that refers to them."""
    await db.execute(delete(sessions).where(sessions.c.id.in_(session_ids)))
