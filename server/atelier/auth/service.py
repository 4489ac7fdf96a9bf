"""People come in, prove who they are, and leave."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from atelier import times
from atelier.auth import queries
from atelier.auth.callers import COOKIE_DAYS, TICKET_SECONDS, Caller, caller_from
from atelier.auth.passwords import hash_password, password_fits
from atelier.auth.permissions import Role
from atelier.auth.schemas import Credentials, User
from atelier.auth.tokens import ACCESS_SECONDS, make_access_token
from atelier.errors import Conflict, Forbidden, Invalid, Unauthenticated
from atelier.ids import hash_secret, new_id, new_secret
from atelier.services import Services

REFRESH_DAYS = 30
RESET_MINUTES = 60
_ORDER = list(Role)  # strongest first


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A person with fresh secrets: the API's credentials and the browser's cookie."""

    caller: Caller
    credentials: Credentials
    cookie: str


def shown(user: RowMapping | dict[str, Any]) -> User:
    """Return a user's row as its owner may see it."""
    return User.model_validate({name: user[name] for name in User.model_fields})


async def create_guest(services: Services, display_name: str) -> LoggedIn:
    """Make a guest: a person without an account, with a login of this browser."""
    async with services.db.begin() as db:
        user_id = new_id("usr")
        await queries.add_user(db, **_new_person(user_id, "guest", display_name))
        return await _log_in(db, services, user_id)


async def create_account(
    services: Services, guest: Caller | None, email: str, password: str, display_name: str
) -> LoggedIn:
    """Make an account; a guest becomes it in place, so their sessions are theirs still. The first one is admin.

    Raises:
        Forbidden: `sign_up_closed`.
        Conflict: `email_taken`.
        Invalid: `password_too_short`, `password_too_long`.
    """
    hashed = await hash_password(password)
    email = email.lower()
    try:
        async with services.db.begin() as db:
            first = await queries.count_accounts(db) == 0
            if not first and not await sign_up_open(db, services):
                raise Forbidden(
                    "sign_up_closed",
                    "New accounts are switched off here.",
                    next_step="Ask an admin for one, or join by a share link.",
                )
            account = {
                "kind": "account",
                "email": email,
                "password_hash": hashed,
                "display_name": display_name,
                "is_admin": first,
            }
            if guest is not None and guest.kind == "guest":
                user_id = guest.user_id
                await queries.change_user(db, user_id, **account)
            else:
                user_id = new_id("usr")
                await queries.add_user(db, **{**_new_person(user_id, "account", display_name), **account})
            return await _log_in(db, services, user_id)
    except IntegrityError:
        raise Conflict(
            "email_taken",
            "There is an account with this address already.",
            next_step="Log in, or reset its password.",
        ) from None


async def sign_up_open(db: AsyncConnection, services: Services) -> bool:
    """Say whether strangers may make accounts: the admin's switch, else the setting."""
    switch = await queries.switch(db, "sign_up")
    return services.sign_up if switch is None else bool(switch)


async def log_in(services: Services, guest: Caller | None, email: str, password: str) -> LoggedIn:
    """Log in to an account; a guest's sessions join it.

    Raises:
        Unauthenticated: `wrong_credentials`, the same for an unknown address and a wrong password.
    """
    async with services.db.read() as db:
        user = await queries.user_by_email(db, email.strip().lower())
    if not await password_fits(password, user["password_hash"] if user else None) or user is None:
        raise Unauthenticated(
            "wrong_credentials",
            "The address or the password is wrong.",
            next_step="Try again, or reset the password.",
        )
    async with services.db.begin() as db:
        if guest is not None and guest.kind == "guest" and guest.user_id != user["id"]:
            await _merge(db, guest.user_id, user["id"])
        return await _log_in(db, services, user["id"])


async def refresh(services: Services, token: str) -> LoggedIn:
    """Trade a refresh token for a new pair. One that comes a second time was stolen or copied: its family ends.

    Raises:
        Unauthenticated: `refresh_invalid`.
    """
    now = times.now()
    async with services.db.begin() as db:
        login = await queries.login_with_user(db, hash_secret(token), "refresh")
        if (
            login is not None
            and await queries.use_login(db, login["login_id"], now)
            and login["login_expires_at"] > now
        ):
            return await _log_in(db, services, login["id"], family=login["login_family"], cookie=False)
        if login is not None:
            await queries.end_family(db, login["login_family"])
    raise Unauthenticated(
        "refresh_invalid",
        "This refresh token was used before, has expired, or is not ours.",
        next_step="Log in again.",
    )


async def log_out(services: Services, caller: Caller) -> None:
    """End the login of this browser."""
    if caller.login_id is not None:
        async with services.db.begin() as db:
            await queries.end_login(db, caller.login_id)


async def me(services: Services, caller: Caller) -> User:
    """Return the caller's own profile."""
    async with services.db.read() as db:
        return shown(await _own(db, caller))


async def change_profile(
    services: Services, caller: Caller, display_name: str | None, preferences: dict[str, Any] | None
) -> User:
    """Change one's name or merge preferences; a preference set to null is forgotten.

    Raises:
        Invalid: `preferences_too_large`.
    """
    async with services.db.begin() as db:
        row = await _own(db, caller)
        changes: dict[str, Any] = {}
        if display_name is not None:
            changes["display_name"] = display_name
        if preferences is not None:
            merged = {k: v for k, v in {**row["preferences"], **preferences}.items() if v is not None}
            if len(json.dumps(merged)) > 16 * 1024:
                raise Invalid(
                    "preferences_too_large", "Preferences may take 16 KiB.", next_step="Keep fewer."
                )
            changes["preferences"] = merged
        if changes:
            await queries.change_user(db, caller.user_id, **changes)
        return shown({**row, **changes})


async def change_password(services: Services, caller: Caller, current: str, new: str) -> None:
    """Set a new password and end every other login of this person.

    Raises:
        Conflict: `no_password`, for a guest.
        Unauthenticated: `wrong_password`.
        Invalid: `password_too_short`, `password_too_long`.
    """
    async with services.db.read() as db:
        row = await _own(db, caller)
    if row["password_hash"] is None:
        raise Conflict("no_password", "A guest has no password.", next_step="Make an account first.")
    if not await password_fits(current, row["password_hash"]):
        raise Unauthenticated("wrong_password", "The current password is wrong.", next_step="Try again.")
    hashed = await hash_password(new)
    async with services.db.begin() as db:
        await queries.change_user(db, caller.user_id, password_hash=hashed)
        await queries.end_logins_of(db, caller.user_id, but=caller.login_id)


async def ask_reset(services: Services, email: str) -> None:
    """Mail a reset link if there is such an account; the caller learns nothing of whether there is."""
    async with services.db.begin() as db:
        user = await queries.user_by_email(db, email.strip().lower())
        if user is None:
            return
        secret = new_secret()
        await queries.end_tickets_of(db, user["id"], "reset")
        await queries.add_ticket(
            db, hash_secret(secret), "reset", user["id"], times.now() + RESET_MINUTES * times.MINUTE
        )
    text = (
        f"Hello {user['display_name']},\n\nchoose a new password here, within an hour:\n\n"
        f"{services.public_url}/reset/{secret}\n\nIf you did not ask for this, do nothing: your password stays.\n"
    )
    # Sent beside the answer: waiting here would tell by the time it takes whether the address is known.
    services.tasks.start(
        services.mail.send(str(user["email"]), "Choose a new password", text), name="reset mail"
    )


async def reset_password(services: Services, secret: str, password: str) -> LoggedIn:
    """Set a new password by a mailed link, which works once; every login of this person ends.

    Raises:
        Unauthenticated: `reset_invalid`.
        Invalid: `password_too_short`, `password_too_long`.
    """
    hashed = await hash_password(password)
    async with services.db.begin() as db:
        ticket = await queries.take_ticket(db, hash_secret(secret), "reset")
        if ticket is not None and ticket["expires_at"] > times.now():
            await queries.change_user(db, ticket["user_id"], password_hash=hashed)
            await queries.end_logins_of(db, ticket["user_id"])
            return await _log_in(db, services, ticket["user_id"])
    raise Unauthenticated(
        "reset_invalid", "This link was used, or is older than an hour.", next_step="Ask for a new one."
    )


async def make_ticket(services: Services, caller: Caller) -> tuple[str, int]:
    """Return a one-time secret for one socket and the seconds that it lives."""
    secret = new_secret()
    now = times.now()
    async with services.db.begin() as db:
        await queries.forget_expired(db, now)
        await queries.add_ticket(
            db, hash_secret(secret), "socket", caller.user_id, now + TICKET_SECONDS * times.SECOND
        )
    return secret, TICKET_SECONDS


async def _own(db: AsyncConnection, caller: Caller) -> RowMapping:
    row = await queries.user(db, caller.user_id)
    if row is None:
        raise Unauthenticated("token_invalid", "This person is gone.", next_step="Log in again.")
    return row


def _new_person(user_id: str, kind: str, display_name: str) -> dict[str, Any]:
    now = times.now()
    return {
        "id": user_id,
        "kind": kind,
        "display_name": display_name,
        "is_admin": False,
        "preferences": {},
        "created_at": now,
        "seen_at": now,
    }


async def _log_in(
    db: AsyncConnection, services: Services, user_id: str, *, family: str | None = None, cookie: bool = True
) -> LoggedIn:
    now = times.now()
    family = family or new_id("fam")
    secrets = {"refresh": new_secret()} | ({"cookie": new_secret()} if cookie else {})
    days = {"refresh": REFRESH_DAYS, "cookie": COOKIE_DAYS}
    login_ids = {kind: new_id("log") for kind in secrets}
    for kind, secret in secrets.items():
        await queries.add_login(
            db,
            id=login_ids[kind],
            user_id=user_id,
            secret_hash=hash_secret(secret),
            kind=kind,
            family=family,
            created_at=now,
            expires_at=now + days[kind] * times.DAY,
        )
    user = await queries.user(db, user_id)
    assert user is not None
    credentials = Credentials(
        user=shown(user),
        access_token=make_access_token(services.secret_key, user_id),
        expires_in=ACCESS_SECONDS,
        refresh_token=secrets["refresh"],
    )
    return LoggedIn(caller_from(user, login_ids.get("cookie")), credentials, secrets.get("cookie", ""))


async def _merge(db: AsyncConnection, guest_id: str, account_id: str) -> None:
    """Give a guest's memberships to an account; where both are members, the stronger role stays."""
    own = {row["session_id"]: row["role"] for row in await queries.memberships(db, account_id)}
    for row in await queries.memberships(db, guest_id):
        session_id, role = row["session_id"], row["role"]
        if session_id not in own:
            await queries.move_membership(db, session_id, guest_id, account_id)
        elif _ORDER.index(Role(role)) < _ORDER.index(Role(own[session_id])):
            await queries.set_role(db, session_id, account_id, role)
    await queries.inherit(db, guest_id, account_id)
