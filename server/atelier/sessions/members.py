"""Members and share links: who came in how, and how that ends."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from atelier import times
from atelier.auth import Action, Caller, LoggedIn, Role, announce_access, create_guest, require
from atelier.errors import Conflict, Gone, NotFound
from atelier.events import publish
from atelier.ids import hash_secret, new_id, new_secret
from atelier.services import Services
from atelier.sessions import queries
from atelier.sessions.schemas import Link, LinkPreview, MadeLink, Member, Session
from atelier.sessions.service import get_session

_ORDER = list(Role)  # strongest first


@dataclass(frozen=True, slots=True)
class JoinedSession:
    """Who came in where; `made` is set when joining made a guest."""

    session: Session
    caller: Caller
    made: LoggedIn | None


async def list_members(services: Services, caller: Caller, session_id: str) -> list[Member]:
    """Return everybody in a session, in the order in which they came."""
    async with services.db.read() as db:
        await require(db, session_id, caller.user_id, Action.READ)
        return [Member.model_validate(dict(row)) for row in await queries.member_list(db, session_id)]


async def change_role(
    services: Services, caller: Caller, session_id: str, user_id: str, role: Role
) -> Member:
    """Give a member another role; live connections obey within a second.

    Raises:
        NotFound: `member_not_found`.
        Conflict: `last_owner`.
    """
    async with services.db.begin() as db:
        await require(db, session_id, caller.user_id, Action.SHARE)
        member = await _member(db, session_id, user_id)
        if member["role"] == Role.OWNER.value and role is not Role.OWNER:
            await _keep_an_owner(db, session_id)
        await queries.change_member(db, session_id, user_id, role=role.value)
        rows = await queries.member_list(db, session_id)
    await announce_access(services.bus, session_id, user_id)
    changed = next(Member.model_validate(dict(row)) for row in rows if row["user_id"] == user_id)
    await publish(
        services,
        session_id,
        "member.role",
        {"user_id": user_id, "display_name": changed.display_name, "role": role.value},
    )
    return changed


async def remove_member(services: Services, caller: Caller, session_id: str, user_id: str) -> None:
    """Remove a member, or leave oneself; live connections end within a second.

    Raises:
        NotFound: `member_not_found`.
        Conflict: `last_owner`.
    """
    async with services.db.begin() as db:
        await require(
            db, session_id, caller.user_id, Action.READ if user_id == caller.user_id else Action.SHARE
        )
        member = await _member(db, session_id, user_id)
        if member["role"] == Role.OWNER.value:
            await _keep_an_owner(db, session_id)
        await queries.remove_member(db, session_id, user_id)
    await announce_access(services.bus, session_id, user_id)
    await publish(services, session_id, "member.left", {"user_id": user_id})


async def create_link(
    services: Services,
    caller: Caller,
    session_id: str,
    role: str,
    expires_in: int | None,
    max_uses: int | None,
) -> MadeLink:
    """Make a share link; its token is returned this once.

    Raises:
        Conflict: `too_many_links`.
    """
    token, now = new_secret(), times.now()
    values = {
        "id": new_id("lnk"),
        "role": role,
        "created_at": now,
        "uses": 0,
        "max_uses": max_uses,
        "expires_at": None if expires_in is None else now + expires_in * times.SECOND,
    }
    async with services.db.begin() as db:
        await require(db, session_id, caller.user_id, Action.SHARE)
        if len(await queries.link_list(db, session_id)) >= services.limits.links_per_session:
            raise Conflict(
                "too_many_links",
                f"A session has at most {services.limits.links_per_session} share links.",
                next_step="Revoke one that is no longer needed.",
            )
        await queries.add_link(
            db, **values, session_id=session_id, secret_hash=hash_secret(token), created_by=caller.user_id
        )
    await publish(services, session_id, "link.created", {"link_id": values["id"], "role": role})
    return MadeLink.model_validate({**values, "token": token, "url": f"{services.public_url}/j/{token}"})


async def list_links(services: Services, caller: Caller, session_id: str) -> list[Link]:
    """Return the links that are not revoked, newest first."""
    async with services.db.read() as db:
        await require(db, session_id, caller.user_id, Action.SHARE)
        return [Link.model_validate(dict(row)) for row in await queries.link_list(db, session_id)]


async def revoke_link(services: Services, caller: Caller, session_id: str, link_id: str) -> None:
    """End a link and the membership of everybody who came through it.

    Raises:
        NotFound: `link_not_found`.
    """
    async with services.db.begin() as db:
        await require(db, session_id, caller.user_id, Action.SHARE)
        if not await queries.revoke_link(db, session_id, link_id, times.now()):
            raise NotFound(
                "link_not_found", "There is no such share link.", next_step="It may be revoked already."
            )
        removed = await queries.remove_members_of_link(db, session_id, link_id)
    await announce_access(services.bus, session_id)
    await publish(services, session_id, "link.revoked", {"link_id": link_id, "removed": removed})


async def preview_link(services: Services, token: str, caller: Caller | None = None) -> LinkPreview:
    """Say where a link leads; using it up takes `join_link`.

    Raises:
        NotFound: `link_not_found`.
        Gone: `link_revoked`, `link_expired`, `link_used_up`.
    """
    async with services.db.read() as db:
        return LinkPreview.model_validate(dict(await _live_link(db, token, member=caller)))


async def join_link(
    services: Services, caller: Caller | None, token: str, display_name: str | None
) -> JoinedSession:
    """Come in by a link. A stranger becomes a guest; a member keeps the stronger of both roles and uses nothing up.

    Raises:
        NotFound: `link_not_found`.
        Gone: `link_revoked`, `link_expired`, `link_used_up`.
        Conflict: `session_full`.
    """
    async with services.db.read() as db:
        await _live_link(db, token, member=caller)
    made = None
    if caller is None:
        made = await create_guest(services, display_name or "Guest")
        caller = made.caller
    new = await _join(services, caller, token)
    session = await get_session(services, caller, new[0])
    if new[1]:
        await publish(
            services,
            session.id,
            "member.joined",
            {
                "user_id": caller.user_id,
                "display_name": caller.display_name,
                "role": session.role.value,
            },
        )
    return JoinedSession(session, caller, made)


async def _join(services: Services, caller: Caller, token: str) -> tuple[str, bool]:
    now = times.now()
    async with services.db.begin() as db:
        link = await _live_link(db, token, member=caller)
        session_id, role = link["session_id"], Role(link["role"])
        member = await queries.member(db, session_id, caller.user_id)
        if member is not None:
            stronger = _ORDER.index(role) < _ORDER.index(Role(member["role"]))
            if stronger:
                await queries.change_member(
                    db, session_id, caller.user_id, role=role.value, link_id=link["id"]
                )
        else:
            if await queries.count_members(db, session_id) >= services.limits.members_per_session:
                raise Conflict(
                    "session_full",
                    f"A session has at most {services.limits.members_per_session} members.",
                    next_step="Ask its owner to make room.",
                )
            if not await queries.use_link(db, link["id"]):
                raise _used_up()
            await queries.add_member(
                db,
                session_id=session_id,
                user_id=caller.user_id,
                role=role.value,
                link_id=link["id"],
                joined_at=now,
                opened_at=now,
            )
    if member is not None and stronger:
        await announce_access(services.bus, session_id, caller.user_id)
    return session_id, member is None


async def _live_link(db: AsyncConnection, token: str, *, member: Caller | None = None) -> RowMapping:
    """Return a link that lets somebody in; one that is used up still serves whoever is a member already."""
    link = await queries.link_by_secret(db, hash_secret(token))
    if link is None or link["deleted_at"] is not None:
        raise NotFound(
            "link_not_found",
            "There is no such share link.",
            next_step="Check the address, or ask for a new link.",
        )
    if link["revoked_at"] is not None:
        raise Gone("link_revoked", "This share link was revoked.", next_step="Ask for a new one.")
    if link["expires_at"] is not None and link["expires_at"] <= times.now():
        raise Gone("link_expired", "This share link has expired.", next_step="Ask for a new one.")
    if link["max_uses"] is not None and link["uses"] >= link["max_uses"]:
        known = (
            member is not None and await queries.member(db, link["session_id"], member.user_id) is not None
        )
        if not known:
            raise _used_up()
    return link


async def _member(db: AsyncConnection, session_id: str, user_id: str) -> RowMapping:
    member = await queries.member(db, session_id, user_id)
    if member is None:
        raise NotFound("member_not_found", "There is no such member.", next_step="They may have left.")
    return member


async def _keep_an_owner(db: AsyncConnection, session_id: str) -> None:
    if await queries.count_members(db, session_id, Role.OWNER.value) <= 1:
        raise Conflict(
            "last_owner",
            "A session needs an owner, and this is the last one.",
            next_step="Make somebody else owner first.",
        )


def _used_up() -> Gone:
    return Gone(
        "link_used_up", "This share link has been used as often as it may be.", next_step="Ask for a new one."
    )
