"""Log in, sign up, log out, password reset, settings."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import TypeAdapter, ValidationError
from pydantic.networks import EmailStr
from starlette.responses import RedirectResponse, Response

from atelier.auth import (
    Caller,
    CallerDep,
    OptionalCallerDep,
    clear_login_cookie,
    limiter_of,
    service,
    set_login_cookie,
)
from atelier.deps import ServicesDep
from atelier.errors import AtelierError, Invalid
from atelier.pages.forms import FormDep, display_name
from atelier.pages.render import THEME_COOKIE, page
from atelier.services import Services

router = APIRouter()
_EMAIL: TypeAdapter[str] = TypeAdapter(EmailStr)


@router.get("/login")
async def login_page(request: Request, caller: OptionalCallerDep, next: str = "/sessions") -> Response:
    """Ask for address and password."""
    return page(request, "login.html", caller=caller, next=next, email="", error=None)


@router.post("/login")
async def login(
    request: Request, services: ServicesDep, caller: OptionalCallerDep, form: FormDep
) -> Response:
    """Log in; a guest's sessions come along."""
    email = form.get("email", "")
    try:
        await _count(request, services, email)
        made = await service.log_in(services, caller, email, form.get("password", ""))
    except AtelierError as error:
        return page(
            request,
            "login.html",
            status=error.status,
            caller=caller,
            next=form.get("next", ""),
            email=email,
            error=error,
        )
    answer = RedirectResponse(_local(form.get("next", "")), 303)
    set_login_cookie(answer, services, made.cookie)
    return answer


@router.get("/signup")
async def signup_page(request: Request, caller: OptionalCallerDep) -> Response:
    """Ask for name, address and password."""
    return page(
        request,
        "signup.html",
        caller=caller,
        email="",
        name=caller.display_name if caller else "",
        error=None,
    )


@router.post("/signup")
async def signup(
    request: Request, services: ServicesDep, caller: OptionalCallerDep, form: FormDep
) -> Response:
    """Make an account; a guest keeps their sessions."""
    email, name = form.get("email", ""), form.get("name", "")
    try:
        await _count(request, services, email)
        made = await service.create_account(
            services, caller, _address(email), form.get("password", ""), display_name(name)
        )
    except AtelierError as error:
        return page(
            request, "signup.html", status=error.status, caller=caller, email=email, name=name, error=error
        )
    answer = RedirectResponse("/sessions", 303)
    set_login_cookie(answer, services, made.cookie)
    return answer


@router.post("/logout")
async def logout(services: ServicesDep, caller: OptionalCallerDep, form: FormDep) -> Response:
    """End this browser's login."""
    if caller is not None:
        await service.log_out(services, caller)
    answer = RedirectResponse("/login", 303)
    clear_login_cookie(answer)
    return answer


@router.get("/reset")
async def reset_page(request: Request, caller: OptionalCallerDep) -> Response:
    """Ask for the address."""
    return page(request, "reset.html", caller=caller, sent=False, error=None)


@router.post("/reset")
async def reset(
    request: Request, services: ServicesDep, caller: OptionalCallerDep, form: FormDep
) -> Response:
    """Mail a link if there is such an account."""
    try:
        await _count(request, services, form.get("email", ""))
        await service.ask_reset(services, form.get("email", ""))
    except AtelierError as error:
        return page(request, "reset.html", status=error.status, caller=caller, sent=False, error=error)
    return page(request, "reset.html", caller=caller, sent=True, error=None)


@router.get("/reset/{token}")
async def new_password_page(token: str, request: Request, caller: OptionalCallerDep) -> Response:
    """Ask for the new password."""
    return page(request, "new_password.html", caller=caller, error=None)


@router.post("/reset/{token}")
async def new_password(
    token: str, request: Request, services: ServicesDep, caller: OptionalCallerDep, form: FormDep
) -> Response:
    """Set the new password and log in."""
    try:
        await _count(request, services, "")
        made = await service.reset_password(services, token, form.get("password", ""))
    except AtelierError as error:
        return page(request, "new_password.html", status=error.status, caller=caller, error=error)
    answer = RedirectResponse("/sessions", 303)
    set_login_cookie(answer, services, made.cookie)
    return answer


@router.get("/settings")
async def settings_page(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """Show the profile."""
    return await _settings(request, services, caller)


@router.post("/settings/profile")
async def change_profile(
    request: Request, services: ServicesDep, caller: CallerDep, form: FormDep
) -> Response:
    """Change name and theme."""
    theme = form.get("theme", "system")
    try:
        await service.change_profile(
            services, caller, display_name(form.get("name", "")), {"theme": theme[:10]}
        )
    except AtelierError as error:
        return await _settings(request, services, caller, error=error)
    answer = RedirectResponse("/settings?saved=1", 303)
    answer.set_cookie(
        THEME_COOKIE,
        theme if theme in ("light", "dark") else "",
        max_age=365 * 24 * 3600,
        samesite="lax",
        path="/",
    )
    return answer


@router.post("/settings/password")
async def change_password(
    request: Request, services: ServicesDep, caller: CallerDep, form: FormDep
) -> Response:
    """Change the password; every other login ends."""
    try:
        await _count(request, services, caller.user_id)
        await service.change_password(services, caller, form.get("current", ""), form.get("new", ""))
    except AtelierError as error:
        return await _settings(request, services, caller, error=error)
    return RedirectResponse("/settings?saved=1", 303)


async def _settings(
    request: Request, services: Services, caller: Caller, error: AtelierError | None = None
) -> Response:
    profile = await service.me(services, caller)
    saved = error is None and "saved" in request.query_params
    status = error.status if error else 200
    return page(
        request, "settings.html", status=status, caller=caller, profile=profile, saved=saved, error=error
    )


async def _count(request: Request, services: Services, key: str) -> None:
    address = request.client.host if request.client else "unknown"
    for counted in {address, key.strip().lower()} - {""}:
        await limiter_of(request).hit("log_ins", counted, services.limits)


def _address(text: str) -> str:
    try:
        return _EMAIL.validate_python(text.strip())
    except ValidationError:
        raise Invalid(
            "email_invalid", "This is not an e-mail address.", next_step="Check it for typing errors."
        ) from None


def _local(path: str) -> str:
    # Only paths of this server: `//host` and `/\host` lead elsewhere.
    return path if path.startswith("/") and path[1:2] not in ("/", "\\") else "/sessions"
