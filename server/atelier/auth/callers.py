"""Who is calling: a browser by its cookie, an API client by its bearer token, a socket by a token or a ticket."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response
from sqlalchemy import RowMapping

from atelier import times
from atelier.auth import queries
from atelier.auth.tokens import read_access_token
from atelier.deps import ServicesDep
from atelier.errors import Forbidden, Unauthenticated
from atelier.ids import hash_secret
from atelier.services import Services

COOKIE = "atelier_login"
COOKIE_DAYS = 90
TICKET_SECONDS = 30
_KNOWN_SECONDS = 1.0
_MOST_KNOWN = 10_000
# Who opened a socket a moment ago: when everybody reconnects at once, the database is not asked for each.
_known: dict[str, tuple[Caller, float]] = {}
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Caller:
    """A person behind a request. `login_id` names the cookie's login; None for a bearer token."""

    user_id: str
    display_name: str
    kind: str
    is_admin: bool
    login_id: str | None = None


def caller_from(user: RowMapping | Any, login_id: str | None = None) -> Caller:
    """Build a caller from a user's row."""
    return Caller(user["id"], user["display_name"], user["kind"], user["is_admin"], login_id)


async def find_caller(request: Request, services: ServicesDep) -> Caller | None:
    """Return who calls, or None; a token that is there and wrong is an error, not nobody."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return await bearer_caller(services, token.strip())
    secret = request.cookies.get(COOKIE)
    if not secret:
        return None
    if request.method not in _SAFE:
        refuse_other_sites(request, services.public_url)
    return await cookie_caller(services, secret)


async def require_caller(caller: Annotated[Caller | None, Depends(find_caller)]) -> Caller:
    """Return who calls. Raises Unauthenticated `log_in_required`."""
    if caller is None:
        raise Unauthenticated(
            "log_in_required", "Nobody is logged in.", next_step="Log in, or open a share link."
        )
    return caller


OptionalCallerDep = Annotated[Caller | None, Depends(find_caller)]
CallerDep = Annotated[Caller, Depends(require_caller)]


async def bearer_caller(services: Services, token: str) -> Caller:
    """Return the person that an access token names.

    Raises:
        Unauthenticated: `token_expired`, `token_invalid`, also when the person has been deleted.
    """
    user_id = read_access_token(services.secret_key, token)
    async with services.db.read() as db:
        user = await queries.user(db, user_id)
    if user is None:
        raise Unauthenticated(
            "token_invalid",
            "The person that this access token names is gone.",
            next_step="Make a new account or open a share link.",
        )
    return caller_from(user)


async def cookie_caller(services: Services, secret: str) -> Caller | None:
    """Return the person of a browser's login; using it moves its end, at most once a day."""
    now = times.now()
    async with services.db.read() as db:
        row = await queries.login_with_user(db, hash_secret(secret), "cookie")
    if row is None or row["login_expires_at"] < now:
        return None
    if row["login_expires_at"] < now + (COOKIE_DAYS - 1) * times.DAY:
        async with services.db.begin() as db:
            await queries.extend_login(db, row["login_id"], now + COOKIE_DAYS * times.DAY)
            await queries.change_user(db, row["id"], seen_at=now)
    return caller_from(row, row["login_id"])


async def socket_caller(services: Services, token: str | None) -> Caller:
    """Return who opens a socket: `token` is a one-time ticket or an access token.

    Raises:
        Unauthenticated: `log_in_required`, `ticket_invalid`, `token_expired` or `token_invalid`.
    """
    if not token:
        raise Unauthenticated(
            "log_in_required",
            "A socket needs ?token= with a ticket or an access token.",
            next_step="Get a ticket from POST /api/v1/tickets.",
        )
    if token.count(".") == 2:
        return await _known_caller(services, token)
    async with services.db.begin() as db:
        ticket = await queries.take_ticket(db, hash_secret(token), "socket")
        user = (
            None
            if ticket is None or ticket["expires_at"] < times.now()
            else await queries.user(db, ticket["user_id"])
        )
    if user is None:
        raise Unauthenticated(
            "ticket_invalid",
            f"This ticket was used, or is older than {TICKET_SECONDS} s.",
            next_step="Get a new one from POST /api/v1/tickets.",
        )
    return caller_from(user)


async def _known_caller(services: Services, token: str) -> Caller:
    """Do as `bearer_caller`; whose token was good a moment ago is not looked up again, only the token is checked."""
    user_id = read_access_token(services.secret_key, token)
    caller, until = _known.get(user_id, (None, 0.0))
    if caller is None or time.monotonic() >= until:
        caller = await bearer_caller(services, token)
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[user_id] = (caller, time.monotonic() + _KNOWN_SECONDS)
    return caller


def refuse_other_sites(request: Request, public_url: str) -> None:
    """Refuse a change that another site's page asks for with this browser's cookie.

    Raises:
        Forbidden: `cross_site`.
    """
    site = request.headers.get("sec-fetch-site")
    if site in ("same-origin", "none"):
        return
    origin = request.headers.get("origin")
    allowed = {urlsplit(public_url).netloc, request.headers.get("host", "")}
    if site is None and origin is not None and urlsplit(origin).netloc in allowed:
        return
    raise Forbidden(
        "cross_site",
        "A page of another site may not change anything here with this browser's login.",
        next_step="Open Atelier itself, or use an access token.",
    )


def set_login_cookie(response: Response, services: Services, secret: str) -> None:
    """Put a login's secret into the browser: unreadable by scripts, sent only to this site."""
    response.set_cookie(
        COOKIE,
        secret,
        max_age=COOKIE_DAYS * 24 * 3600,
        httponly=True,
        samesite="lax",
        secure=services.public_url.startswith("https://"),
        path="/",
    )


def clear_login_cookie(response: Response) -> None:
    """Take the login out of the browser."""
    response.delete_cookie(COOKIE, path="/")
