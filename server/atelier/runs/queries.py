"""All SQL about runs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from atelier.db.tables import run_events, run_files, runs, sessions, users


async def add(db: AsyncConnection, **values: Any) -> None:
    await db.execute(insert(runs).values(**values))


async def change(db: AsyncConnection, run_id: str, **values: Any) -> None:
    await db.execute(update(runs).where(runs.c.id == run_id).values(**values))


async def remove(db: AsyncConnection, run_id: str) -> None:
    await db.execute(delete(runs).where(runs.c.id == run_id))


async def one(db: AsyncConnection, session_id: str, run_id: str) -> RowMapping | None:
    query = (
        select(runs, users.c.display_name.label("user_name"))
        .outerjoin(users, users.c.id == runs.c.user_id)
        .where(runs.c.session_id == session_id, runs.c.id == run_id)
    )
    return (await db.execute(query)).mappings().one_or_none()


async def latest(db: AsyncConnection, session_id: str, most: int) -> list[RowMapping]:
    query = (
        select(runs, users.c.display_name.label("user_name"))
        .outerjoin(users, users.c.id == runs.c.user_id)
        .where(runs.c.session_id == session_id)
        .order_by(runs.c.created_at.desc(), runs.c.id.desc())
        .limit(most)
    )
    return list((await db.execute(query)).mappings())


async def unfinished(db: AsyncConnection, held_before: int) -> list[RowMapping]:
    """Return runs that have not ended and that no process has said to hold since then."""
    forgotten = or_(runs.c.held_at.is_(None), runs.c.held_at < held_before)
    return list((await db.execute(select(runs).where(runs.c.status != "ended", forgotten))).mappings())


async def hold(db: AsyncConnection, holder: str, at: int) -> None:
    await db.execute(update(runs).where(runs.c.holder == holder, runs.c.status != "ended").values(held_at=at))


async def take_over(db: AsyncConnection, run_id: str, held_before: int, holder: str, at: int) -> bool:
    """Make a run that was left behind one's own; only one process succeeds."""
    forgotten = or_(runs.c.held_at.is_(None), runs.c.held_at < held_before)
    taken = await db.execute(
        update(runs)
        .where(runs.c.id == run_id, runs.c.status != "ended", forgotten)
        .values(holder=holder, held_at=at)
    )
    return bool(taken.rowcount)


async def add_events(db: AsyncConnection, rows: list[dict[str, Any]]) -> None:
    await db.execute(insert(run_events), rows)


async def events_after(db: AsyncConnection, run_id: str, seq: int) -> list[RowMapping]:
    query = (
        select(run_events)
        .where(run_events.c.run_id == run_id, run_events.c.seq > seq)
        .order_by(run_events.c.seq)
    )
    return list((await db.execute(query)).mappings())


async def last_event(db: AsyncConnection, run_id: str) -> RowMapping | None:
    query = (
        select(run_events.c.seq, run_events.c.type)
        .where(run_events.c.run_id == run_id)
        .order_by(run_events.c.seq.desc())
        .limit(1)
    )
    return (await db.execute(query)).mappings().one_or_none()


async def add_files(db: AsyncConnection, rows: list[dict[str, Any]]) -> None:
    await db.execute(insert(run_files), rows)


async def file_of(db: AsyncConnection, session_id: str, run_id: str, number: int) -> RowMapping | None:
    query = (
        select(run_files)
        .join(runs, runs.c.id == run_files.c.run_id)
        .where(runs.c.session_id == session_id, run_files.c.run_id == run_id, run_files.c.number == number)
    )
    return (await db.execute(query)).mappings().one_or_none()


async def forget_shown(db: AsyncConnection, session_id: str, most: int) -> None:
    """Remove what the oldest runs of a session keep to be shown, until the rest has at most so many bytes."""
    query = (
        select(run_files.c.run_id, func.sum(run_files.c.size).label("size"))
        .join(runs, runs.c.id == run_files.c.run_id)
        .where(runs.c.session_id == session_id)
        .group_by(run_files.c.run_id, runs.c.created_at)
        .order_by(runs.c.created_at.desc(), run_files.c.run_id.desc())
    )
    forgotten = []
    for position, row in enumerate((await db.execute(query)).mappings()):
        most -= row["size"]
        if most < 0 and position:
            forgotten.append(row["run_id"])
    if forgotten:
        await db.execute(delete(run_files).where(run_files.c.run_id.in_(forgotten)))


async def forget_old(db: AsyncConnection, session_id: str, keep: int) -> None:
    newest = (
        select(runs.c.id)
        .where(runs.c.session_id == session_id)
        .order_by(runs.c.created_at.desc(), runs.c.id.desc())
        .limit(keep)
    )
    await db.execute(
        delete(runs).where(
            runs.c.session_id == session_id,
            runs.c.status == "ended",
            runs.c.id.not_in(newest.scalar_subquery()),
        )
    )


async def entry_of(db: AsyncConnection, session_id: str) -> str | None:
    return (
        await db.execute(select(sessions.c.entry).where(sessions.c.id == session_id))
    ).scalar_one_or_none()
