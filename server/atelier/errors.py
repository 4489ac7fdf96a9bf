"""Every error that a person or a program can meet, each with a stable code.

AtelierError
├── BadRequest           400  4400   what was sent cannot be read
├── Unauthenticated      401  4401   nobody is logged in
├── Forbidden            403  4403   somebody is, and may not
├── NotFound             404  4404
├── Conflict             409  4409   the thing is not in the state that this needs
├── Gone                 410  4410   it was there: expired, revoked, used up
├── TooLarge             413  1009
├── Invalid              422  4422   readable, and refused by name
├── TooMany              429  4429   come back after `retry_after` seconds
└── Unavailable          503  4503   transient: nothing is lost, try again

WebSocket close codes: 4400–4499 are permanent (do not reconnect unchanged), 4500–4599, 1011, 1012 and 1013 are
transient. One handler (`problems.py`) renders all of them as RFC 9457 problem details; `next_step` is what the
editor offers.
"""

from __future__ import annotations

from typing import Any, ClassVar


class AtelierError(Exception):
    """The root. `code` is stable and documented; `detail` says what was expected and what came."""

    status: ClassVar[int] = 500
    close_code: ClassVar[int] = 1011
    title: ClassVar[str] = "Something went wrong here"

    def __init__(self, code: str, detail: str, *, next_step: str = "", **extra: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.next_step = next_step
        self.extra = extra


class BadRequest(AtelierError):
    status, close_code, title = 400, 4400, "This cannot be read"


class Unauthenticated(AtelierError):
    status, close_code, title = 401, 4401, "Log in first"


class Forbidden(AtelierError):
    status, close_code, title = 403, 4403, "Your role does not allow this"


class NotFound(AtelierError):
    status, close_code, title = 404, 4404, "Not found"


class Conflict(AtelierError):
    status, close_code, title = 409, 4409, "This does not fit the present state"


class Gone(AtelierError):
    status, close_code, title = 410, 4410, "This is no longer available"


class TooLarge(AtelierError):
    status, close_code, title = 413, 1009, "Too large"


class Invalid(AtelierError):
    status, close_code, title = 422, 4422, "This was refused"


class TooMany(AtelierError):
    """`retry_after` is in seconds and also becomes the Retry-After header."""

    status, close_code, title = 429, 4429, "Too many requests"

    def __init__(
        self, code: str, detail: str, *, retry_after: float, next_step: str = "", **extra: Any
    ) -> None:
        super().__init__(code, detail, next_step=next_step, retry_after=retry_after, **extra)
        self.retry_after = retry_after


class Unavailable(AtelierError):
    status, close_code, title = 503, 4503, "Not available just now"
