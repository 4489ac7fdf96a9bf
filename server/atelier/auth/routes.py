"""HTTP to calls: guests, accounts, tokens, profiles, resets, tickets, limits."""

from __future__ import annotations

import dataclasses

from fastapi import APIRouter, Depends, Request, Response

from atelier.auth import service
from atelier.auth.callers import CallerDep, OptionalCallerDep, clear_login_cookie, set_login_cookie
from atelier.auth.rates import limiter_of, rate_limited
from atelier.auth.schemas import (
    Credentials,
    LogIn,
    NewGuest,
    NewPassword,
    NewUser,
    PasswordChange,
    Profile,
    Refresh,
    ResetRequest,
    Ticket,
    User,
)
from atelier.deps import ServicesDep

router = APIRouter(prefix="/api/v1", tags=["auth"])
GUESTS, LOG_INS = Depends(rate_limited("guests")), Depends(rate_limited("log_ins"))


@router.post("/guests", status_code=201, operation_id="create_guest", dependencies=[GUESTS])
async def create_guest(body: NewGuest, response: Response, services: ServicesDep) -> Credentials:
    """Come in without an account. Browsers get a cookie, API clients use the tokens."""
    made = await service.create_guest(services, body.display_name)
    set_login_cookie(response, services, made.cookie)
    return made.credentials


@router.post("/users", status_code=201, operation_id="create_user", dependencies=[LOG_INS])
async def create_user(
    body: NewUser, response: Response, services: ServicesDep, caller: OptionalCallerDep
) -> Credentials:
    """Make an account. A guest who calls this keeps their sessions. The first account is admin."""
    made = await service.create_account(services, caller, body.email, body.password, body.display_name)
    set_login_cookie(response, services, made.cookie)
    return made.credentials


@router.post("/tokens", operation_id="log_in", dependencies=[LOG_INS])
async def log_in(
    body: LogIn, request: Request, response: Response, services: ServicesDep, caller: OptionalCallerDep
) -> Credentials:
    """Log in. A guest who calls this takes their sessions along."""
    await limiter_of(request).hit("log_ins", body.email.strip().lower(), services.limits)
    made = await service.log_in(services, caller, body.email, body.password)
    set_login_cookie(response, services, made.cookie)
    return made.credentials


@router.post("/tokens/refresh", operation_id="refresh_tokens")
async def refresh_tokens(body: Refresh, services: ServicesDep) -> Credentials:
    """Trade a refresh token for a new access token and a new refresh token."""
    return (await service.refresh(services, body.refresh_token)).credentials


@router.delete("/logins/current", status_code=204, operation_id="log_out")
async def log_out(response: Response, services: ServicesDep, caller: CallerDep) -> None:
    """End this browser's login."""
    await service.log_out(services, caller)
    clear_login_cookie(response)


@router.get("/me", operation_id="get_me")
async def get_me(services: ServicesDep, caller: CallerDep) -> User:
    """Say who I am."""
    return await service.me(services, caller)


@router.patch("/me", operation_id="change_me")
async def change_me(body: Profile, services: ServicesDep, caller: CallerDep) -> User:
    """Change my name or preferences."""
    return await service.change_profile(services, caller, body.display_name, body.preferences)


@router.put("/me/password", status_code=204, operation_id="change_password", dependencies=[LOG_INS])
async def change_password(body: PasswordChange, services: ServicesDep, caller: CallerDep) -> None:
    """Change my password; every other login of mine ends."""
    await service.change_password(services, caller, body.current_password, body.new_password)


@router.post("/password-resets", status_code=202, operation_id="ask_password_reset", dependencies=[LOG_INS])
async def ask_password_reset(body: ResetRequest, services: ServicesDep) -> None:
    """Mail a reset link, if there is such an account; the answer is the same if not."""
    await service.ask_reset(services, body.email)


@router.post(
    "/password-resets/{token}", status_code=204, operation_id="reset_password", dependencies=[LOG_INS]
)
async def reset_password(token: str, body: NewPassword, response: Response, services: ServicesDep) -> None:
    """Set a new password by a mailed link."""
    made = await service.reset_password(services, token, body.password)
    set_login_cookie(response, services, made.cookie)


@router.post("/tickets", status_code=201, operation_id="create_ticket")
async def create_ticket(services: ServicesDep, caller: CallerDep) -> Ticket:
    """Get a one-time secret to open one WebSocket with."""
    ticket, seconds = await service.make_ticket(services, caller)
    return Ticket(ticket=ticket, expires_in=seconds)


@router.get("/limits", operation_id="get_limits")
async def get_limits(services: ServicesDep) -> dict[str, int]:
    """Show the bounds on everything that comes from outside."""
    return dataclasses.asdict(services.limits)
