"""A new session from a Git address: a form, its errors, and what was left out, without any script."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from atelier import files, sessions
from atelier.auth import Caller, CallerDep, limiter_of
from atelier.deps import ServicesDep
from atelier.disconnects import while_connected
from atelier.errors import AtelierError
from atelier.pages.forms import FormDep
from atelier.pages.render import page
from atelier.services import Services

router = APIRouter()


@router.post("/sessions/git")
async def new_from_git(request: Request, services: ServicesDep, caller: CallerDep, form: FormDep) -> Response:
    """Fetch a repository, then make a session of it; nothing is made when that fails."""
    url, ref = form.get("url", ""), form.get("ref", "")
    try:
        await limiter_of(request).hit("imports", caller.user_id, services.limits)
        fetched = await while_connected(request, files.fetch_git(services, caller, url, ref))
        session = await sessions.create_from_files(services, caller, _name(url), fetched.checkout.files)
    except AtelierError as error:
        return await sessions_page(request, services, caller, error=error, url=url, ref=ref)
    if not fetched.checkout.left_out:
        return RedirectResponse(f"/s/{session.id}", 303)
    return page(request, "imported.html", caller=caller, session=session, made=fetched.checkout)


async def sessions_page(
    request: Request,
    services: Services,
    caller: Caller,
    *,
    show: str = "",
    cursor: str | None = None,
    error: AtelierError | None = None,
    url: str = "",
    ref: str = "",
) -> Response:
    """Render the list of sessions, with what was typed and what was wrong with it."""
    items, following = await sessions.list_sessions(
        services, caller, archived=show == "archived", deleted=show == "deleted", cursor=cursor
    )
    return page(
        request,
        "sessions.html",
        status=error.status if error else 200,
        caller=caller,
        items=items,
        following=following,
        show=show,
        templates=files.templates(),
        error=error,
        url=url,
        ref=ref,
    )


def _name(url: str) -> str:
    """Return what a repository is called: the last part of its address."""
    last = url.strip().rstrip("/").rpartition("/")[2].removesuffix(".git")
    plain = "".join(c for c in last if c.isprintable()).strip()[:120]
    return plain or "Imported session"
