"""Looks up a person's role in a session and holds it against an action; tells live sockets when it changed."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from atelier.auth.permissions import Action, Role, allows
from atelier.bus import Bus
from atelier.db.tables import members, sessions
from atelier.errors import Forbidden, NotFound


async def role_in(db: AsyncConnection, session_id: str, user_id: str) -> Role | None:
    """Return the person's role, or None for a stranger or a session that is deleted or never was."""
    query = (
        select(members.c.role)
        .join(sessions, sessions.c.id == members.c.session_id)
        .where(
            members.c.session_id == session_id, members.c.user_id == user_id, sessions.c.deleted_at.is_(None)
        )
    )
    role = (await db.execute(query)).scalar_one_or_none()
    return None if role is None else Role(role)


async def require(db: AsyncConnection, session_id: str, user_id: str, action: Action) -> Role:
    """Return the person's role if it allows `action`.

    Raises:
        NotFound: `session_not_found`, also for strangers: who may not read it learns nothing of it.
        Forbidden: `role_forbids`, with `role` and `action`.
    """
    role = await role_in(db, session_id, user_id)
    if role is None:
        raise NotFound(
            "session_not_found",
            "There is no such session, or you are not one of its members.",
            next_step="Ask its owner for a share link.",
        )
    check(role, action)
    return role


def check(role: Role, action: Action) -> None:
    """Raise Forbidden `role_forbids` unless `role` allows `action`."""
    if not allows(role, action):
        raise Forbidden(
            "role_forbids",
            f"The role {role.value} does not allow this ({action.value}).",
            next_step="Ask the owner to change your role.",
            role=role.value,
            action=action.value,
        )


def check_egress(role: Role, kind: str, *, on: bool, allowed: bool) -> None:
    """Raise Forbidden unless a person of this role and kind may switch a session's egress on, or off.

    Raises:
        Forbidden: `role_forbids`; `egress_not_allowed` by the operator; `account_needed`, since a guest is nobody in particular.
    """
    check(role, Action.EGRESS)
    if on and not allowed:
        raise Forbidden(
            "egress_not_allowed",
            "On this server programs cannot be given the internet.",
            next_step="Ask whoever runs it to set ATELIER_EGRESS=on.",
        )
    if on and kind != "account":
        raise Forbidden(
            "account_needed",
            "A guest cannot give programs the internet.",
            next_step="Make an account, or ask an owner who has one.",
        )


async def has_egress(db: AsyncConnection, session_id: str, *, allowed: bool) -> bool:
    """Say whether the session's programs reach the internet at present; `allowed` is the operator's word."""
    query = select(sessions.c.egress_at).where(sessions.c.id == session_id, sessions.c.deleted_at.is_(None))
    return allowed and (await db.execute(query)).scalar_one_or_none() is not None


def access_topic(session_id: str) -> str:
    """The bus topic on which live sockets hear that roles changed; the message is a user's id, or empty for all."""
    return f"access:{session_id}"


async def announce_access(bus: Bus, session_id: str, user_id: str = "") -> None:
    """Make every live socket of the session look its role up again: of one person, or of everybody."""
    await bus.publish(access_topic(session_id), user_id.encode())
