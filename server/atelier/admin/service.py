"""People and switches, for admins only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from atelier import sessions
from atelier.admin import queries
from atelier.auth import Caller, User, announce_access
from atelier.auth import queries as people
from atelier.auth.service import shown, sign_up_open
from atelier.errors import Conflict, Forbidden, NotFound
from atelier.packages import AllowList, allow_list, read_entries, set_allow_list
from atelier.services import Services

_PAGE = 50


def require_admin(caller: Caller) -> None:
    """Raise Forbidden `admin_only` for everybody else."""
    if not caller.is_admin:
        raise Forbidden("admin_only", "Only an admin may do this.", next_step="Ask an admin.")


async def list_users(
    services: Services, caller: Caller, words: str = "", after: str = ""
) -> tuple[list[User], str | None]:
    """Return a page of accounts (with words: of everybody whose name or address holds them) and the next cursor."""
    require_admin(caller)
    async with services.db.read() as db:
        rows = await queries.page_of_users(db, words, after, _PAGE + 1)
    return [shown(row) for row in rows[:_PAGE]], rows[_PAGE - 1]["id"] if len(rows) > _PAGE else None


async def change_user(services: Services, caller: Caller, user_id: str, *, is_admin: bool) -> User:
    """Promote or demote.

    Raises:
        NotFound: `user_not_found`.
        Conflict: `not_yourself`, `last_admin`, `guest_cannot_be_admin`.
    """
    require_admin(caller)
    async with services.db.begin() as db:
        row = await _user(db, user_id)
        if not is_admin:
            await _refuse_last(db, caller, row)
        elif row["kind"] != "account":
            raise Conflict(
                "guest_cannot_be_admin", "A guest cannot be admin.", next_step="They make an account first."
            )
        await queries.set_admin(db, user_id, is_admin)
        return shown({**row, "is_admin": is_admin})


async def delete_user(services: Services, caller: Caller, user_id: str) -> None:
    """Delete a person, their logins, and the sessions that they alone own.

    Raises:
        NotFound: `user_not_found`.
        Conflict: `not_yourself`, `last_admin`.
    """
    require_admin(caller)
    async with services.db.begin() as db:
        await _refuse_last(db, caller, await _user(db, user_id))
        touched = await queries.sessions_joined(db, user_id)
        owned = await queries.sessions_owned_alone(db, user_id)
        await queries.delete_sessions(db, owned)
        await queries.delete_user(db, user_id)
    for session_id in touched:
        await announce_access(services.bus, session_id)
    # Nobody is connected to them any more: what was written in them goes too.
    await sessions.forget(services, owned)


async def switches(services: Services, caller: Caller) -> dict[str, Any]:
    """Return what admins can switch while the server runs."""
    require_admin(caller)
    async with services.db.read() as db:
        return {"sign_up": await sign_up_open(db, services)}


async def set_switches(services: Services, caller: Caller, *, sign_up: bool) -> dict[str, Any]:
    """Let strangers make accounts, or not."""
    require_admin(caller)
    async with services.db.begin() as db:
        await people.set_switch(db, "sign_up", sign_up)
    return {"sign_up": sign_up}


async def packages(services: Services, caller: Caller) -> dict[str, Any]:
    """Return which packages may be installed."""
    require_admin(caller)
    async with services.db.read() as db:
        return _shown_packages(await allow_list(db))


async def set_packages(
    services: Services, caller: Caller, *, listed: bool, python: Sequence[str], node: Sequence[str]
) -> dict[str, Any]:
    """Say which packages may be installed; returns the list as it is kept.

    Raises:
        Invalid: `allow_list_invalid`.
    """
    require_admin(caller)
    allowed = AllowList(listed, read_entries("python", python), read_entries("node", node))
    async with services.db.begin() as db:
        await set_allow_list(db, allowed)
    return _shown_packages(allowed)


def _shown_packages(allowed: AllowList) -> dict[str, Any]:
    return {
        "listed": allowed.listed,
        "python": [entry.text("python") for entry in allowed.python],
        "node": [entry.text("node") for entry in allowed.node],
    }


async def _user(db: AsyncConnection, user_id: str) -> Any:
    row = await people.user(db, user_id)
    if row is None:
        raise NotFound("user_not_found", "There is no such person.", next_step="They may be deleted already.")
    return row


async def _refuse_last(db: AsyncConnection, caller: Caller, row: Any) -> None:
    if row["id"] == caller.user_id:
        raise Conflict(
            "not_yourself", "Nobody demotes or deletes themself here.", next_step="Ask another admin."
        )
    if row["is_admin"] and await queries.count_admins(db) <= 1:
        raise Conflict("last_admin", "This is the last admin.", next_step="Promote somebody else first.")
