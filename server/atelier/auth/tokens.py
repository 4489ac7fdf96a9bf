"""Access tokens: signed, short-lived proof of who calls the API. See docs/tokens.md for all lifetimes."""

from __future__ import annotations

import time

import jwt

from atelier import times
from atelier.errors import Unauthenticated

ACCESS_SECONDS = 60 * 60
_ISSUER = "atelier"
_ALGORITHM = "HS256"
_MOST_READ = 10_000
# Tokens that were found good, with whom they name and when they expire: checking one costs as much as the rest of a join.
_read: dict[tuple[str, str], tuple[str, float]] = {}


def make_access_token(secret_key: str, user_id: str) -> str:
    """Return a token that names `user_id` for an hour."""
    issued = times.now() // times.SECOND
    claims = {"iss": _ISSUER, "aud": _ISSUER, "sub": user_id, "iat": issued, "exp": issued + ACCESS_SECONDS}
    return jwt.encode(claims, secret_key, _ALGORITHM)


def read_access_token(secret_key: str, token: str) -> str:
    """Return the user's id that a valid token names.

    Raises:
        Unauthenticated: `token_expired` or `token_invalid`.
    """
    known = _read.get((secret_key, token))
    if known is not None and time.time() < known[1]:
        return known[0]
    try:
        claims = jwt.decode(
            token,
            secret_key,
            [_ALGORITHM],
            issuer=_ISSUER,
            audience=_ISSUER,
            # Not `iat`: a clock that is set back must not turn everybody away.
            options={"require": ["exp", "sub"], "verify_iat": False},
        )
    except jwt.ExpiredSignatureError:
        raise Unauthenticated(
            "token_expired",
            "This access token has expired.",
            next_step="Get a new one with the refresh token.",
        ) from None
    except jwt.InvalidTokenError:
        raise Unauthenticated(
            "token_invalid", "This access token is not one of ours.", next_step="Log in again."
        ) from None
    if len(_read) >= _MOST_READ:
        _read.clear()
    _read[secret_key, token] = (str(claims["sub"]), float(claims["exp"]))
    return str(claims["sub"])
