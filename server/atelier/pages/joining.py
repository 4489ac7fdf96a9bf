"""Coming in by a share link: the token leaves the address bar at once, and using it up takes a press of Join."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from atelier import files, sessions
from atelier.auth import OptionalCallerDep, set_login_cookie
from atelier.deps import ServicesDep
from atelier.errors import Conflict, Gone, Invalid, NotFound
from atelier.pages.forms import FormDep, display_name
from atelier.pages.names import friendly_name
from atelier.pages.render import page

router = APIRouter()
_COOKIE = "atelier_link"
_MINUTES = 60
_MOST_SHOWN = 8_000


@router.get("/j/{token}")
async def open_link(token: str, services: ServicesDep) -> Response:
    """Take the token out of the address bar."""
    answer = RedirectResponse("/join", 303, {"Referrer-Policy": "no-referrer", "Cache-Control": "no-store"})
    answer.set_cookie(
        _COOKIE,
        token[:128],
        max_age=_MINUTES * 60,
        httponly=True,
        samesite="lax",
        path="/join",
        secure=services.public_url.startswith("https://"),
    )
    return answer


@router.get("/join")
async def join_page(request: Request, services: ServicesDep, caller: OptionalCallerDep) -> Response:
    """Show where the link leads, with the text, and ask for a name."""
    preview = await sessions.preview_link(services, _token(request), caller)
    if caller is not None:
        try:
            await sessions.get_session(services, caller, preview.session_id)
            return RedirectResponse(f"/s/{preview.session_id}", 303)
        except NotFound:
            pass  # not a member yet: that is what the page is for
    return await _form(
        request, services, caller, preview, name=caller.display_name if caller else friendly_name()
    )


@router.post("/join")
async def join(request: Request, services: ServicesDep, caller: OptionalCallerDep, form: FormDep) -> Response:
    """Come in."""
    token = _token(request)
    name = form.get("name", "")
    try:
        joined = await sessions.join_link(
            services, caller, token, display_name(name) if caller is None else None
        )
    except (Invalid, Conflict) as error:
        preview = await sessions.preview_link(services, token, caller)
        return await _form(request, services, caller, preview, name=name, error=error)
    answer = RedirectResponse(f"/s/{joined.session.id}", 303)
    answer.delete_cookie(_COOKIE, path="/join")
    if joined.made is not None:
        set_login_cookie(answer, services, joined.made.cookie)
    return answer


async def _form(
    request: Request,
    services: ServicesDep,
    caller: OptionalCallerDep,
    preview: sessions.LinkPreview,
    *,
    name: str,
    error: Invalid | Conflict | None = None,
) -> Response:
    first = await files.first_text(services, preview.session_id, None, most=_MOST_SHOWN)
    status = error.status if error else 200
    return page(
        request,
        "join.html",
        status=status,
        caller=caller,
        preview=preview,
        name=name,
        first=first,
        error=error,
    )


def _token(request: Request) -> str:
    token = request.cookies.get(_COOKIE)
    if not token:
        raise Gone(
            "link_forgotten",
            "This page is open for an hour after a share link was followed.",
            next_step="Open the share link again.",
        )
    return token
