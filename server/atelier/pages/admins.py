"""The admin's page: people and switches."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from atelier import admin
from atelier.auth import Caller, CallerDep
from atelier.deps import ServicesDep
from atelier.errors import Conflict, Invalid, NotFound
from atelier.pages.forms import FormDep
from atelier.pages.render import page
from atelier.services import Services

router = APIRouter(prefix="/admin")


@router.get("")
async def admin_page(
    request: Request, services: ServicesDep, caller: CallerDep, q: str = "", cursor: str = ""
) -> Response:
    """Show people and switches."""
    return await _page(request, services, caller, q, cursor)


@router.post("/switches")
async def set_switches(services: ServicesDep, caller: CallerDep, form: FormDep) -> Response:
    """Set the switches."""
    await admin.set_switches(services, caller, sign_up=form.get("sign_up") == "on")
    return RedirectResponse("/admin", 303)


@router.post("/packages")
async def set_packages(request: Request, services: ServicesDep, caller: CallerDep, form: FormDep) -> Response:
    """Say which packages may be installed."""
    lines = {tool: form.get(tool, "").splitlines() for tool in ("python", "node")}
    listed = form.get("listed") == "on"
    try:
        await admin.set_packages(services, caller, listed=listed, python=lines["python"], node=lines["node"])
    except Invalid as error:
        typed = {"listed": listed, **lines}
        return await _page(request, services, caller, "", "", error, packages=typed)
    return RedirectResponse("/admin#packages", 303)


@router.post("/users/{user_id}/{verb}")
async def change_user(
    user_id: str, verb: str, request: Request, services: ServicesDep, caller: CallerDep, form: FormDep
) -> Response:
    """Promote, demote or delete."""
    try:
        if verb == "delete":
            await admin.delete_user(services, caller, user_id)
        elif verb in ("promote", "demote"):
            await admin.change_user(services, caller, user_id, is_admin=verb == "promote")
    except (Conflict, NotFound) as error:
        return await _page(request, services, caller, "", "", error)
    return RedirectResponse("/admin", 303)


async def _page(
    request: Request,
    services: Services,
    caller: Caller,
    q: str,
    cursor: str,
    error: Conflict | NotFound | Invalid | None = None,
    packages: dict[str, Any] | None = None,
) -> Response:
    people, following = await admin.list_users(services, caller, q[:100], cursor[:64])
    switches = await admin.switches(services, caller)
    status = error.status if error else 200
    return page(
        request,
        "admin.html",
        status=status,
        caller=caller,
        people=people,
        following=following,
        switches=switches,
        packages=packages or await admin.packages(services, caller),
        q=q,
        error=error,
    )
