"""Sessions: made, found, changed, put away and brought back."""

from __future__ import annotations

import structlog
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from atelier import files, times
from atelier.auth import Action, Caller, Role, announce_access, check_egress, require
from atelier.errors import BadRequest, Conflict, NotFound
from atelier.events import publish
from atelier.ids import new_id
from atelier.services import Services
from atelier.sessions import queries
from atelier.sessions.schemas import Egress, Session

logger = structlog.get_logger(__name__)
_PAGE = 50
KEPT_DAYS = 30


def shown(services: Services, row: RowMapping, role: Role) -> Session:
    """Return a session's row as a member sees it."""
    return Session(
        id=row["id"],
        name=row["name"],
        role=role,
        entry=row["entry"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        archived=row["archived_at"] is not None,
        members=row["members"],
        url=f"{services.public_url}/s/{row['id']}",
        egress=_egress(services, row),
    )


def _egress(services: Services, row: RowMapping) -> Egress:
    on = services.program_egress and row["egress_at"] is not None
    return Egress(
        on=on,
        allowed=services.program_egress,
        by=row["egress_name"] if on else None,
        at=row["egress_at"] if on else None,
    )


async def create_session(services: Services, caller: Caller, name: str, template: str = "blank") -> Session:
    """Make a session from a template; its maker is the owner.

    Raises:
        NotFound: `template_not_found`.
        Conflict: `too_many_sessions`.
    """
    content = files.template(template)
    return await _create(services, caller, name, content.files, content.entry)


async def create_from_files(
    services: Services, caller: Caller, name: str, content: dict[str, bytes]
) -> Session:
    """Make a session from files that have been unpacked and checked."""
    return await _create(services, caller, name, content, None)


async def duplicate_session(services: Services, caller: Caller, session_id: str) -> Session:
    """Make a session of one's own with the same files.

    Raises:
        NotFound: `session_not_found`.
    """
    session = await get_session(services, caller, session_id)
    content = await files.read_all(services, session_id)
    return await _create(services, caller, f"Copy of {session.name}"[:120], content, session.entry)


async def _create(
    services: Services, caller: Caller, name: str, content: dict[str, bytes], entry: str | None
) -> Session:
    session_id, now = new_id("ses"), times.now()
    async with services.db.begin() as db:
        if await queries.count_owned(db, caller.user_id) >= services.limits.sessions_per_user:
            raise Conflict(
                "too_many_sessions",
                f"One person owns at most {services.limits.sessions_per_user} sessions.",
                next_step="Delete one that you no longer need.",
            )
        await queries.add_session(
            db,
            id=session_id,
            name=name,
            entry=entry,
            created_by=caller.user_id,
            created_at=now,
            updated_at=now,
        )
        await queries.add_member(
            db,
            session_id=session_id,
            user_id=caller.user_id,
            role=Role.OWNER.value,
            joined_at=now,
            opened_at=now,
        )
    if content:
        await files.seed(services, session_id, caller.user_id, content)
    return await get_session(services, caller, session_id)


async def get_session(services: Services, caller: Caller, session_id: str) -> Session:
    """Return a session that the caller is a member of.

    Raises:
        NotFound: `session_not_found`.
    """
    async with services.db.read() as db:
        role = await require(db, session_id, caller.user_id, Action.READ)
        return shown(services, await _row(db, session_id), role)


async def list_sessions(
    services: Services,
    caller: Caller,
    *,
    archived: bool = False,
    deleted: bool = False,
    cursor: str | None = None,
) -> tuple[list[Session], str | None]:
    """Return a page of the caller's sessions, latest change first, and the cursor of the next one.

    Raises:
        BadRequest: `bad_cursor`.
    """
    before = None
    if cursor is not None:
        at, _, session_id = cursor.partition("-")
        if not at.isdigit() or len(at) > 15:
            raise BadRequest(
                "bad_cursor", "This is not a cursor of this list.", next_step="Start from the first page."
            )
        before = (int(at), session_id)
    async with services.db.read() as db:
        rows = await queries.sessions_of(
            db, caller.user_id, archived=archived, deleted=deleted, before=before, most=_PAGE + 1
        )
    more = f"{rows[_PAGE - 1]['updated_at']}-{rows[_PAGE - 1]['id']}" if len(rows) > _PAGE else None
    return [shown(services, row, Role(row["role"])) for row in rows[:_PAGE]], more


async def change_session(
    services: Services,
    caller: Caller,
    session_id: str,
    *,
    name: str | None,
    archived: bool | None,
    entry: str | None,
) -> Session:
    """Rename or archive (owners), or choose the entry (whoever edits).

    Raises:
        NotFound: `session_not_found`.
        Forbidden: `role_forbids`.
    """
    manages = name is not None or archived is not None
    async with services.db.begin() as db:
        await require(db, session_id, caller.user_id, Action.MANAGE if manages else Action.EDIT)
        changes: dict[str, object] = {"updated_at": times.now()}
        if name is not None:
            changes["name"] = name
        if archived is not None:
            changes["archived_at"] = times.now() if archived else None
        if entry is not None:
            changes["entry"] = entry or None
        await queries.change_session(db, session_id, **changes)
    return await _tell(services, caller, session_id)


async def change_egress(services: Services, caller: Caller, session_id: str, *, on: bool) -> Session:
    """Let the session's programs reach the internet, or no longer those that start from now on.

    Raises:
        NotFound: `session_not_found`.
        Forbidden: `role_forbids`, `egress_not_allowed`, `account_needed`.
    """
    async with services.db.begin() as db:
        role = await require(db, session_id, caller.user_id, Action.READ)
        check_egress(role, caller.kind, on=on, allowed=services.program_egress)
        granted = {"egress_by": caller.user_id if on else None, "egress_at": times.now() if on else None}
        await queries.change_session(db, session_id, updated_at=times.now(), **granted)
    logger.info("egress granted" if on else "egress withdrawn", session=session_id, user=caller.user_id)
    return await _tell(services, caller, session_id)


async def _tell(services: Services, caller: Caller, session_id: str) -> Session:
    """Tell everybody what has changed about a session."""
    session = await get_session(services, caller, session_id)
    await publish(
        services,
        session_id,
        "session.changed",
        {
            "name": session.name,
            "entry": session.entry,
            "archived": session.archived,
            "egress": session.egress.model_dump(mode="json"),
        },
    )
    return session


async def delete_session(services: Services, caller: Caller, session_id: str) -> None:
    """Put a session away; an owner can bring it back for 30 days. Everybody's connection ends.

    Raises:
        NotFound: `session_not_found`.
        Forbidden: `role_forbids`.
    """
    async with services.db.begin() as db:
        await require(db, session_id, caller.user_id, Action.MANAGE)
        await queries.change_session(db, session_id, deleted_at=times.now())
    await announce_access(services.bus, session_id)


async def restore_session(services: Services, caller: Caller, session_id: str) -> Session:
    """Bring a deleted session back.

    Raises:
        NotFound: `session_not_found`, also for those who did not own it.
    """
    async with services.db.begin() as db:
        member = await queries.member(db, session_id, caller.user_id)
        if member is None or member["role"] != Role.OWNER.value:
            raise _missing()
        await queries.change_session(db, session_id, deleted_at=None, updated_at=times.now())
    return await get_session(services, caller, session_id)


async def _row(db: AsyncConnection, session_id: str) -> RowMapping:
    row = await queries.session(db, session_id)
    if row is None:
        raise _missing()
    return row


def _missing() -> NotFound:
    return NotFound(
        "session_not_found",
        "There is no such session, or you are not one of its members.",
        next_step="Ask its owner for a share link.",
    )
