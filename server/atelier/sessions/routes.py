"""HTTP to calls: sessions, members, share links."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from atelier import files
from atelier.auth import CallerDep, OptionalCallerDep, rate_limited, set_login_cookie
from atelier.auth.service import me
from atelier.deps import ServicesDep
from atelier.sessions import members, service
from atelier.sessions.schemas import (
    EgressChange,
    Join,
    Joined,
    LinkPreview,
    Links,
    MadeLink,
    Member,
    Members,
    NewLink,
    NewSession,
    RoleChange,
    Session,
    SessionChange,
    SessionName,
    SessionPage,
    Template,
    Templates,
)

router = APIRouter(prefix="/api/v1", tags=["sessions"])


@router.post("/sessions", status_code=201, operation_id="create_session")
async def create_session(body: NewSession, services: ServicesDep, caller: CallerDep) -> Session:
    """Make a session from a template."""
    return await service.create_session(services, caller, body.name, body.template)


@router.post("/sessions/import", status_code=201, operation_id="import_session", openapi_extra=files.ZIP_BODY)
async def import_session(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    name: Annotated[SessionName, Query()] = "Imported session",
) -> Session:
    """Make a session from a zip."""
    content = await files.unpack(request.stream(), services.limits)
    return await service.create_from_files(services, caller, name, content)


@router.get("/sessions", operation_id="list_sessions")
async def list_sessions(
    services: ServicesDep,
    caller: CallerDep,
    archived: bool = False,
    deleted: bool = False,
    cursor: str | None = None,
) -> SessionPage:
    """List my sessions, latest change first."""
    items, following = await service.list_sessions(
        services, caller, archived=archived, deleted=deleted, cursor=cursor
    )
    return SessionPage(items=items, next=following)


@router.get("/sessions/{session_id}", operation_id="get_session")
async def get_session(session_id: str, services: ServicesDep, caller: CallerDep) -> Session:
    """Show a session."""
    return await service.get_session(services, caller, session_id)


@router.patch("/sessions/{session_id}", operation_id="change_session")
async def change_session(
    session_id: str, body: SessionChange, services: ServicesDep, caller: CallerDep
) -> Session:
    """Rename or archive a session, or choose its entry."""
    return await service.change_session(
        services, caller, session_id, name=body.name, archived=body.archived, entry=body.entry
    )


@router.put("/sessions/{session_id}/egress", operation_id="change_egress")
async def change_egress(
    session_id: str, body: EgressChange, services: ServicesDep, caller: CallerDep
) -> Session:
    """Let the session's programs reach the internet, or no longer."""
    return await service.change_egress(services, caller, session_id, on=body.on)


@router.delete("/sessions/{session_id}", status_code=204, operation_id="delete_session")
async def delete_session(session_id: str, services: ServicesDep, caller: CallerDep) -> None:
    """Put a session away; it can be restored for 30 days."""
    await service.delete_session(services, caller, session_id)


@router.post("/sessions/{session_id}/restore", operation_id="restore_session")
async def restore_session(session_id: str, services: ServicesDep, caller: CallerDep) -> Session:
    """Bring a deleted session back."""
    return await service.restore_session(services, caller, session_id)


@router.post("/sessions/{session_id}/duplicate", status_code=201, operation_id="duplicate_session")
async def duplicate_session(session_id: str, services: ServicesDep, caller: CallerDep) -> Session:
    """Make a session of my own with the same files."""
    return await service.duplicate_session(services, caller, session_id)


@router.get("/templates", operation_id="list_templates")
async def list_templates() -> Templates:
    """List what a session can start from."""
    return Templates(
        items=[Template(name=t.name, title=t.title, description=t.description) for t in files.templates()]
    )


@router.get("/sessions/{session_id}/members", operation_id="list_members")
async def list_members(session_id: str, services: ServicesDep, caller: CallerDep) -> Members:
    """List who is in a session."""
    return Members(items=await members.list_members(services, caller, session_id))


@router.patch("/sessions/{session_id}/members/{user_id}", operation_id="change_role")
async def change_role(
    session_id: str, user_id: str, body: RoleChange, services: ServicesDep, caller: CallerDep
) -> Member:
    """Give a member another role."""
    return await members.change_role(services, caller, session_id, user_id, body.role)


@router.delete("/sessions/{session_id}/members/{user_id}", status_code=204, operation_id="remove_member")
async def remove_member(session_id: str, user_id: str, services: ServicesDep, caller: CallerDep) -> None:
    """Remove a member, or leave."""
    await members.remove_member(services, caller, session_id, user_id)


@router.post("/sessions/{session_id}/links", status_code=201, operation_id="create_link")
async def create_link(session_id: str, body: NewLink, services: ServicesDep, caller: CallerDep) -> MadeLink:
    """Make a share link; the token is shown this once."""
    return await members.create_link(services, caller, session_id, body.role, body.expires_in, body.max_uses)


@router.get("/sessions/{session_id}/links", operation_id="list_links")
async def list_links(session_id: str, services: ServicesDep, caller: CallerDep) -> Links:
    """List the share links that still work."""
    return Links(items=await members.list_links(services, caller, session_id))


@router.delete("/sessions/{session_id}/links/{link_id}", status_code=204, operation_id="revoke_link")
async def revoke_link(session_id: str, link_id: str, services: ServicesDep, caller: CallerDep) -> None:
    """Revoke a link; who came through it is out within a second."""
    await members.revoke_link(services, caller, session_id, link_id)


@router.get("/links/{token}", operation_id="preview_link")
async def preview_link(token: str, services: ServicesDep) -> LinkPreview:
    """Say where a share link leads."""
    return await members.preview_link(services, token)


@router.post("/links/{token}/join", operation_id="join_link", dependencies=[Depends(rate_limited("guests"))])
async def join_link(
    token: str, response: Response, services: ServicesDep, caller: OptionalCallerDep, body: Join | None = None
) -> Joined:
    """Come in by a share link, as whoever I am, or as a new guest."""
    joined = await members.join_link(services, caller, token, body.display_name if body else None)
    user = await me(services, joined.caller)
    if joined.made is None:
        return Joined(session=joined.session, role=joined.session.role, user=user)
    set_login_cookie(response, services, joined.made.cookie)
    tokens = joined.made.credentials
    return Joined(
        session=joined.session,
        role=joined.session.role,
        user=user,
        access_token=tokens.access_token,
        expires_in=tokens.expires_in,
        refresh_token=tokens.refresh_token,
    )
