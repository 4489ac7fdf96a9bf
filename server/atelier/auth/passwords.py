"""Password hashes: argon2, computed in a thread since one takes tens of milliseconds."""

from __future__ import annotations

import asyncio

from pwdlib import PasswordHash

from atelier.errors import Invalid

SHORTEST, LONGEST = 10, 256
_hasher = PasswordHash.recommended()
# Verified when an address is unknown, so that the answer takes as long as for a known one.
_DECOY = _hasher.hash("the address is unknown")


async def hash_password(password: str) -> str:
    """Return the argon2 hash of a new password.

    Raises:
        Invalid: `password_too_short` or `password_too_long`.
    """
    if len(password) < SHORTEST:
        raise Invalid(
            "password_too_short",
            f"A password needs at least {SHORTEST} characters; this has {len(password)}.",
            next_step="A few unrelated words make a good one.",
        )
    if len(password) > LONGEST:
        raise Invalid(
            "password_too_long",
            f"A password has at most {LONGEST} characters; this has {len(password)}.",
            next_step="Choose a shorter one.",
        )
    return await asyncio.to_thread(_hasher.hash, password)


async def password_fits(password: str, stored: str | None) -> bool:
    """Say whether the password belongs to the stored hash; as slow for no hash as for a wrong password."""
    fits = await asyncio.to_thread(_hasher.verify, password[:LONGEST], stored or _DECOY)
    return fits and stored is not None
