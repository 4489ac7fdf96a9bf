"""All SQL about interpreters and cells."""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from atelier.db.tables import cell_events, cell_files, cells, interpreters, sessions, users

_CELLS: Select[Any] = select(cells, users.c.display_name.label("user_name")).outerjoin(
    users, users.c.id == cells.c.user_id
)


# --- interpreters


async def claim(db: AsyncConnection, **values: Any) -> bool:
    """Become the one who holds a session's interpreter; False: somebody does."""
    try:
        async with db.begin_nested():
            await db.execute(insert(interpreters).values(**values))
    except IntegrityError:
        return False
    return True


async def interpreter_of(db: AsyncConnection, session_id: str) -> RowMapping | None:
    query = (
        select(interpreters, users.c.display_name.label("user_name"))
        .outerjoin(users, users.c.id == interpreters.c.user_id)
        .where(interpreters.c.session_id == session_id)
    )
    found: RowMapping | None = (await db.execute(query)).mappings().one_or_none()
    return found


async def begin_life(db: AsyncConnection, session_id: str, holder: str, life: int) -> None:
    await db.execute(
        update(interpreters)
        .where(interpreters.c.session_id == session_id, interpreters.c.holder == holder)
        .values(life=life)
    )


async def last_life(db: AsyncConnection, session_id: str) -> int:
    query = select(func.max(cells.c.life)).where(cells.c.session_id == session_id)
    return int((await db.execute(query)).scalar_one_or_none() or 0)


async def release(db: AsyncConnection, session_id: str, holder: str) -> bool:
    """Hold it no longer; says whether one did."""
    done = await db.execute(
        delete(interpreters).where(interpreters.c.session_id == session_id, interpreters.c.holder == holder)
    )
    return bool(done.rowcount)


async def hold(db: AsyncConnection, holder: str, at: int) -> None:
    await db.execute(update(interpreters).where(interpreters.c.holder == holder).values(held_at=at))


async def left_behind(db: AsyncConnection, held_before: int) -> list[RowMapping]:
    """Return those that no process has said to hold since then."""
    query = select(interpreters).where(interpreters.c.held_at < held_before)
    return list((await db.execute(query)).mappings())


async def held_by(db: AsyncConnection, holder: str) -> list[RowMapping]:
    query = select(interpreters).where(interpreters.c.holder == holder)
    return list((await db.execute(query)).mappings())


async def of_gone_sessions(db: AsyncConnection, holder: str) -> list[str]:
    """Return the sessions of one's interpreters that have been deleted."""
    query = (
        select(interpreters.c.session_id)
        .join(sessions, sessions.c.id == interpreters.c.session_id)
        .where(interpreters.c.holder == holder, sessions.c.deleted_at.is_not(None))
    )
    return list((await db.execute(query)).scalars())


# --- cells


async def add(db: AsyncConnection, session_id: str, now: int, rows: list[dict[str, Any]]) -> None:
    """Add cells after all others; the session's row makes concurrent callers take turns."""
    await db.execute(update(sessions).where(sessions.c.id == session_id).values(updated_at=now))
    query = select(func.max(cells.c.position)).where(cells.c.session_id == session_id)
    last = int((await db.execute(query)).scalar_one_or_none() or 0)
    await db.execute(insert(cells), [{**row, "position": last + at} for at, row in enumerate(rows, start=1)])


async def waiting(db: AsyncConnection, session_id: str) -> int:
    query = select(func.count()).where(cells.c.session_id == session_id, cells.c.status == "queued")
    return int((await db.execute(query)).scalar_one())


async def next_queued(db: AsyncConnection, session_id: str) -> RowMapping | None:
    query = (
        _CELLS.where(cells.c.session_id == session_id, cells.c.status == "queued")
        .order_by(cells.c.position)
        .limit(1)
    )
    found: RowMapping | None = (await db.execute(query)).mappings().one_or_none()
    return found


async def cell(db: AsyncConnection, session_id: str, cell_id: str) -> RowMapping | None:
    query = _CELLS.where(cells.c.session_id == session_id, cells.c.id == cell_id)
    found: RowMapping | None = (await db.execute(query)).mappings().one_or_none()
    return found


async def latest(db: AsyncConnection, session_id: str, most: int) -> list[RowMapping]:
    """Return the newest, newest first."""
    query = _CELLS.where(cells.c.session_id == session_id).order_by(cells.c.position.desc()).limit(most)
    return list((await db.execute(query)).mappings())


async def begin(db: AsyncConnection, cell_id: str, **values: Any) -> bool:
    """Let a queued cell begin; False: it was taken out meanwhile."""
    done = await db.execute(
        update(cells)
        .where(cells.c.id == cell_id, cells.c.status == "queued")
        .values(status="running", **values)
    )
    return bool(done.rowcount)


async def end(db: AsyncConnection, cell_id: str, status: str, **values: Any) -> bool:
    """End a cell that has this status; False: it has another by now."""
    done = await db.execute(
        update(cells).where(cells.c.id == cell_id, cells.c.status == status).values(status="ended", **values)
    )
    return bool(done.rowcount)


async def unfinished(db: AsyncConnection, session_id: str, batch: str | None = None) -> list[RowMapping]:
    """Return what waits or runs, of a batch or at all."""
    query = _CELLS.where(cells.c.session_id == session_id, cells.c.status != "ended")
    if batch is not None:
        query = query.where(cells.c.batch == batch)
    return list((await db.execute(query.order_by(cells.c.position))).mappings())


async def clear(db: AsyncConnection, session_id: str, keep: int = 0) -> None:
    """Forget cells that have ended, but for the newest."""
    newest = (
        select(cells.c.position)
        .where(cells.c.session_id == session_id)
        .order_by(cells.c.position.desc())
        .limit(keep)
    )
    query = delete(cells).where(cells.c.session_id == session_id, cells.c.status == "ended")
    if keep:
        query = query.where(cells.c.position.not_in(newest.scalar_subquery()))
    await db.execute(query)


# --- what they print and show


async def add_events(db: AsyncConnection, rows: list[dict[str, Any]]) -> None:
    await db.execute(insert(cell_events), rows)


async def events_of(db: AsyncConnection, cell_id: str) -> list[RowMapping]:
    query = select(cell_events).where(cell_events.c.cell_id == cell_id).order_by(cell_events.c.seq)
    return list((await db.execute(query)).mappings())


async def add_file(db: AsyncConnection, **values: Any) -> None:
    await db.execute(insert(cell_files).values(**values))


async def file_of(db: AsyncConnection, session_id: str, cell_id: str, number: int) -> RowMapping | None:
    query = (
        select(cell_files)
        .join(cells, cells.c.id == cell_files.c.cell_id)
        .where(
            cells.c.session_id == session_id, cell_files.c.cell_id == cell_id, cell_files.c.number == number
        )
    )
    found: RowMapping | None = (await db.execute(query)).mappings().one_or_none()
    return found


async def forget_files(db: AsyncConnection, session_id: str, most: int) -> None:
    """Remove the files of the oldest cells of a session, until the rest has at most so many bytes."""
    query = (
        select(cell_files.c.cell_id, func.sum(cell_files.c.size).label("size"))
        .join(cells, cells.c.id == cell_files.c.cell_id)
        .where(cells.c.session_id == session_id)
        .group_by(cell_files.c.cell_id, cells.c.position)
        .order_by(cells.c.position.desc())
    )
    forgotten = []
    for position, row in enumerate((await db.execute(query)).mappings()):
        most -= row["size"]
        if most < 0 and position:
            forgotten.append(row["cell_id"])
    if forgotten:
        await db.execute(delete(cell_files).where(cell_files.c.cell_id.in_(forgotten)))
