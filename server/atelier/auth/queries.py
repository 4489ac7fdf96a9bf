"""All SQL about people, logins and tickets."""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from atelier.db.tables import logins, members, runs, sessions, switches, tickets, users


async def user(db: AsyncConnection, user_id: str) -> RowMapping | None:
    return (await db.execute(select(users).where(users.c.id == user_id))).mappings().one_or_none()


async def user_by_email(db: AsyncConnection, email: str) -> RowMapping | None:
    return (await db.execute(select(users).where(users.c.email == email))).mappings().one_or_none()


async def add_user(db: AsyncConnection, **values: Any) -> None:
    await db.execute(insert(users).values(**values))


async def change_user(db: AsyncConnection, user_id: str, **values: Any) -> None:
    await db.execute(update(users).where(users.c.id == user_id).values(**values))


async def count_accounts(db: AsyncConnection) -> int:
    query = select(func.count()).select_from(users).where(users.c.kind == "account")
    return int((await db.execute(query)).scalar_one())


async def add_login(db: AsyncConnection, **values: Any) -> None:
    await db.execute(insert(logins).values(**values))


async def login_with_user(db: AsyncConnection, secret_hash: str, kind: str) -> RowMapping | None:
    """Return the login's columns prefixed `login_`, and its user's."""
    query = (
        select(
            users,
            logins.c.id.label("login_id"),
            logins.c.family.label("login_family"),
            logins.c.used_at.label("login_used_at"),
            logins.c.expires_at.label("login_expires_at"),
        )
        .join(users, users.c.id == logins.c.user_id)
        .where(logins.c.secret_hash == secret_hash, logins.c.kind == kind)
    )
    return (await db.execute(query)).mappings().one_or_none()


async def use_login(db: AsyncConnection, login_id: str, at: int) -> bool:
    """Mark a refresh token as used; False when it had been used before."""
    result = await db.execute(
        update(logins).where(logins.c.id == login_id, logins.c.used_at.is_(None)).values(used_at=at)
    )
    return bool(result.rowcount)


async def extend_login(db: AsyncConnection, login_id: str, expires_at: int) -> None:
    await db.execute(update(logins).where(logins.c.id == login_id).values(expires_at=expires_at))


async def end_family(db: AsyncConnection, family: str) -> None:
    await db.execute(delete(logins).where(logins.c.family == family))


async def end_login(db: AsyncConnection, login_id: str) -> None:
    await db.execute(delete(logins).where(logins.c.id == login_id))


async def end_logins_of(db: AsyncConnection, user_id: str, *, but: str | None = None) -> None:
    query = delete(logins).where(logins.c.user_id == user_id)
    await db.execute(query if but is None else query.where(logins.c.id != but))


async def add_ticket(
    db: AsyncConnection, secret_hash: str, purpose: str, user_id: str, expires_at: int
) -> None:
    await db.execute(
        insert(tickets).values(
            secret_hash=secret_hash, purpose=purpose, user_id=user_id, expires_at=expires_at
        )
    )


async def take_ticket(db: AsyncConnection, secret_hash: str, purpose: str) -> RowMapping | None:
    """Remove and return a ticket: only one caller can have it."""
    query = (
        delete(tickets)
        .where(tickets.c.secret_hash == secret_hash, tickets.c.purpose == purpose)
        .returning(tickets.c.user_id, tickets.c.expires_at)
    )
    return (await db.execute(query)).mappings().one_or_none()


async def end_tickets_of(db: AsyncConnection, user_id: str, purpose: str) -> None:
    await db.execute(delete(tickets).where(tickets.c.user_id == user_id, tickets.c.purpose == purpose))


async def forget_expired(db: AsyncConnection, now: int) -> None:
    await db.execute(delete(tickets).where(tickets.c.expires_at < now))
    await db.execute(delete(logins).where(logins.c.expires_at < now))


async def switch(db: AsyncConnection, name: str) -> Any:
    """Return an admin's switch, or None when nobody set it."""
    return (await db.execute(select(switches.c.value).where(switches.c.name == name))).scalar_one_or_none()


async def set_switch(db: AsyncConnection, name: str, value: Any) -> None:
    await db.execute(delete(switches).where(switches.c.name == name))
    await db.execute(insert(switches).values(name=name, value=value))


async def memberships(db: AsyncConnection, user_id: str) -> list[RowMapping]:
    query = select(members).where(members.c.user_id == user_id)
    return list((await db.execute(query)).mappings())


async def move_membership(db: AsyncConnection, session_id: str, old: str, new: str) -> None:
    await db.execute(
        update(members)
        .where(members.c.session_id == session_id, members.c.user_id == old)
        .values(user_id=new)
    )


async def set_role(db: AsyncConnection, session_id: str, user_id: str, role: str) -> None:
    await db.execute(
        update(members)
        .where(members.c.session_id == session_id, members.c.user_id == user_id)
        .values(role=role)
    )


async def inherit(db: AsyncConnection, old: str, new: str) -> None:
    """Give what `old` made to `new`, then remove `old`."""
    await db.execute(update(sessions).where(sessions.c.created_by == old).values(created_by=new))
    await db.execute(update(runs).where(runs.c.user_id == old).values(user_id=new))
    await db.execute(delete(users).where(users.c.id == old))
