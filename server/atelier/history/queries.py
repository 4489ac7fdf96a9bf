"""All SQL about history: bursts that are complete, named versions, names of people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import RowMapping, Text, cast, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from atelier.db.tables import bursts, users, versions
from atelier.history.bursts import Burst, Share


async def newest_burst(db: AsyncConnection, session_id: str, document_id: str) -> int:
    """Return the position up to which bursts are kept; 0 when none is."""
    query = select(func.max(bursts.c.last)).where(
        bursts.c.session_id == session_id, bursts.c.document_id == document_id
    )
    return int((await db.execute(query)).scalar_one() or 0)


async def burst_page(
    db: AsyncConnection, session_id: str, document_id: str, *, before: int | None, most: int
) -> list[Burst]:
    """Return bursts that end before a position, newest first."""
    query = (
        select(bursts)
        .where(bursts.c.session_id == session_id, bursts.c.document_id == document_id)
        .order_by(bursts.c.first.desc())
        .limit(most)
    )
    if before is not None:
        query = query.where(bursts.c.last < before)
    return [_burst(row) for row in (await db.execute(query)).mappings()]


def _burst(row: RowMapping) -> Burst:
    authors = {author: Share(*share) for author, share in row["authors"].items()}
    return Burst(row["first"], row["last"], row["started_at"], row["ended_at"], row["edits"], authors)


async def count_edits(db: AsyncConnection, session_id: str, document_id: str) -> int:
    """Return how many edits the kept bursts hold."""
    query = select(func.sum(bursts.c.edits)).where(
        bursts.c.session_id == session_id, bursts.c.document_id == document_id
    )
    return int((await db.execute(query)).scalar_one() or 0)


async def add_bursts(
    db: AsyncConnection, session_id: str, document_id: str, complete: Iterable[Burst]
) -> None:
    rows = [
        {
            "session_id": session_id,
            "document_id": document_id,
            "first": burst.first,
            "last": burst.last,
            "started_at": burst.started_at,
            "ended_at": burst.ended_at,
            "edits": burst.edits,
            "authors": {
                author: [share.edits, share.inserted, share.deleted]
                for author, share in burst.authors.items()
            },
        }
        for burst in complete
    ]
    if rows:
        await db.execute(insert(bursts), rows)


async def delete_bursts(db: AsyncConnection, session_id: str, document_id: str) -> None:
    """Forget what was kept of a document's bursts; they are derived from the log again."""
    await db.execute(
        delete(bursts).where(bursts.c.session_id == session_id, bursts.c.document_id == document_id)
    )


async def delete_bursts_of(db: AsyncConnection, user_id: str) -> None:
    """Do the same for every document in which a person has written."""
    named = cast(bursts.c.authors, Text).contains(f'"{user_id}"', autoescape=True)
    for row in (
        await db.execute(select(bursts.c.session_id, bursts.c.document_id).where(named).distinct())
    ).all():
        await delete_bursts(db, *row)


async def names(db: AsyncConnection, user_ids: Iterable[str]) -> dict[str, str]:
    """Return display names by user id; who is deleted is not in it."""
    query = select(users.c.id, users.c.display_name).where(users.c.id.in_(sorted(set(user_ids))))
    return {row.id: row.display_name for row in await db.execute(query)}


async def add_version(db: AsyncConnection, **values: Any) -> None:
    await db.execute(insert(versions).values(**values))


async def version_list(db: AsyncConnection, session_id: str) -> list[RowMapping]:
    """Return a session's versions, newest first, with their makers' names."""
    query = (
        select(versions, users.c.display_name)
        .outerjoin(users, users.c.id == versions.c.user_id)
        .where(versions.c.session_id == session_id)
        .order_by(versions.c.created_at.desc(), versions.c.id)
    )
    return list((await db.execute(query)).mappings())


async def version(db: AsyncConnection, session_id: str, version_id: str) -> RowMapping | None:
    query = (
        select(versions, users.c.display_name)
        .outerjoin(users, users.c.id == versions.c.user_id)
        .where(versions.c.session_id == session_id, versions.c.id == version_id)
    )
    return (await db.execute(query)).mappings().one_or_none()


async def count_versions(db: AsyncConnection, session_id: str) -> int:
    query = select(func.count()).select_from(versions).where(versions.c.session_id == session_id)
    return int((await db.execute(query)).scalar_one())


async def delete_version(db: AsyncConnection, session_id: str, version_id: str) -> bool:
    done = await db.execute(
        delete(versions).where(versions.c.session_id == session_id, versions.c.id == version_id)
    )
    return bool(done.rowcount)
