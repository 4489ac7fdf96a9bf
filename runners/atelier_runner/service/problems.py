"""Renders every refusal as an RFC 9457 problem detail, with the codes that the server uses too."""

from __future__ import annotations

import logging
import secrets
from typing import Any

from starlette.responses import JSONResponse, Response

from atelier_runner.errors import (
    EventsGone,
    LanguageUnknown,
    RunnerError,
    RunUnknown,
    SandboxUnavailable,
    ServiceRefused,
    SpecInvalid,
)

logger = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: "This cannot be read",
    401: "The secret is missing or wrong",
    403: "This may not be asked",
    404: "Not found",
    405: "This cannot be done here",
    408: "This took too long",
    409: "This does not fit the present state",
    410: "This is no longer available",
    413: "Too large",
    422: "This was refused",
    503: "Not available just now",
}


def place(error: RunnerError) -> tuple[int, str]:
    """Return the status and the code of an error."""
    match error:
        case ServiceRefused():
            return error.status, error.code
        case SandboxUnavailable():
            return 503, "sandbox_unavailable"
        case LanguageUnknown():
            return 422, "language_unknown"
        case SpecInvalid():
            return 422, error.code
        case RunUnknown():
            return 404, "run_not_found"
        case EventsGone():
            return 410, "events_gone"
    return 500, "internal"


def problem(error: RunnerError) -> Response:
    """Build the answer."""
    status, code = place(error)
    headers: dict[str, str] = {}
    extra: dict[str, Any] = {}
    if isinstance(error, ServiceRefused) and error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
        extra["retry_after"] = error.retry_after
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = {
        "type": f"urn:atelier:error:{code}",
        "title": TITLES.get(status, "Something went wrong here"),
        "status": status,
        "detail": error.detail,
        "code": code,
        "id": secrets.token_hex(2).upper(),
        "next_step": error.hint,
        **extra,
    }
    if status >= 500:
        logger.warning("problem %s: %s (%s)", body["id"], error.detail, code)
    return JSONResponse(body, status, headers, MEDIA_TYPE)
