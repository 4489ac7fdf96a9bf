"""The first page, a session's page, the list of sessions, help."""

from __future__ import annotations

import dataclasses

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from atelier import __version__, files, sessions
from atelier.auth import CallerDep, OptionalCallerDep, create_guest, limiter_of, set_login_cookie
from atelier.auth.service import me
from atelier.deps import ServicesDep
from atelier.pages import imports
from atelier.pages.forms import FormDep
from atelier.pages.names import friendly_name
from atelier.pages.render import page

router = APIRouter()
_MOST_SHOWN = 50_000  # characters of the first file in the page itself


@router.head("/")
async def landing_head() -> Response:
    """Answer those who only look whether somebody is there."""
    return Response()


@router.get("/")
async def landing(request: Request, services: ServicesDep, caller: OptionalCallerDep) -> Response:
    """Open the latest session; a stranger becomes a guest with a session that is ready to run."""
    if caller is not None:
        latest, _ = await sessions.list_sessions(services, caller)
        if caller.kind == "account":
            return _see("/sessions")
        if latest:
            return _see(f"/s/{latest[0].id}")
        session = await sessions.create_session(services, caller, "My first session", "welcome")
        return _see(f"/s/{session.id}")
    if "text/html" not in request.headers.get("accept", ""):
        return page(request, "hello.html")  # a program that looks around makes nothing
    await limiter_of(request).hit(
        "guests", request.client.host if request.client else "unknown", services.limits
    )
    made = await create_guest(services, friendly_name())
    session = await sessions.create_session(services, made.caller, "My first session", "welcome")
    answer = _see(f"/s/{session.id}")
    set_login_cookie(answer, services, made.cookie)
    return answer


@router.get("/s/{session_id}")
async def session_page(
    session_id: str, request: Request, services: ServicesDep, caller: OptionalCallerDep
) -> Response:
    """Open the editor; the first file's text is in the page."""
    if caller is None:
        return _see(f"/login?next=/s/{session_id}")
    session = await sessions.get_session(services, caller, session_id)
    first = await files.first_text(services, session_id, session.entry, most=_MOST_SHOWN)
    boot = {
        "me": (await me(services, caller)).model_dump(),
        "session": {
            "id": session.id,
            "name": session.name,
            "role": session.role.value,
            "entry": session.entry,
            "egress": session.egress.model_dump(),
        },
        "limits": dataclasses.asdict(services.limits),
        "first": first,
        "version": __version__,
    }
    return page(request, "session.html", caller=caller, boot=boot, session=session, first=first)


@router.get("/sessions")
async def list_sessions(
    request: Request, services: ServicesDep, caller: CallerDep, show: str = "", cursor: str | None = None
) -> Response:
    """List the caller's sessions."""
    return await imports.sessions_page(request, services, caller, show=show, cursor=cursor)


@router.post("/sessions")
async def new_session(services: ServicesDep, caller: CallerDep, form: FormDep) -> Response:
    """Make a session from a template."""
    name = form.get("name", "").strip()[:120] or "Untitled session"
    session = await sessions.create_session(services, caller, name, form.get("template", "blank"))
    return _see(f"/s/{session.id}")


@router.post("/sessions/{session_id}/{verb}")
async def change_session(
    session_id: str, verb: str, services: ServicesDep, caller: CallerDep, form: FormDep
) -> Response:
    """Rename, duplicate, archive, delete, or bring back."""
    back = "/sessions"
    match verb:
        case "rename":
            name = form.get("name", "").strip()[:120]
            if name:
                await sessions.change_session(
                    services, caller, session_id, name=name, archived=None, entry=None
                )
        case "duplicate":
            back = f"/s/{(await sessions.duplicate_session(services, caller, session_id)).id}"
        case "archive" | "unarchive":
            await sessions.change_session(
                services, caller, session_id, name=None, archived=verb == "archive", entry=None
            )
        case "delete":
            await sessions.delete_session(services, caller, session_id)
            back = "/sessions?show=deleted"
        case "restore":
            await sessions.restore_session(services, caller, session_id)
    return _see(back)


@router.get("/help")
async def help_page(request: Request, services: ServicesDep, caller: OptionalCallerDep) -> Response:
    """First steps, keys, roles, limits."""
    return page(request, "help.html", caller=caller, limits=services.limits)


def _see(path: str) -> RedirectResponse:
    return RedirectResponse(path, 303)
