"""Renders every error as an RFC 9457 problem detail, with a short id that is also in the log."""

from __future__ import annotations

import secrets
from typing import Any, Protocol

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from atelier.errors import AtelierError

log = structlog.get_logger(__name__)
MEDIA_TYPE = "application/problem+json"


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    next_step: str = "",
    headers: dict[str, str] | None = None,
    **extra: Any,
) -> Response:
    """Build a problem detail: type, title, status, detail, code, id, next_step and what else the error carries."""
    body = {
        "type": f"urn:atelier:error:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "id": secrets.token_hex(2).upper(),
        "next_step": next_step,
        **extra,
    }
    if status >= 500:
        log.warning("problem", **{k: v for k, v in body.items() if k in ("status", "detail", "code", "id")})
    return JSONResponse(body, status, headers, MEDIA_TYPE)


class Page(Protocol):
    """Renders a problem for a person: status, title, detail and next step as HTML."""

    def __call__(
        self, request: Request, status: int, title: str, detail: str, next_step: str
    ) -> Response: ...


def add_handlers(app: FastAPI, page: Page) -> None:
    """Route every kind of failure of a request through `problem`, or through `page` where a browser asked for one."""

    def wants_page(request: Request) -> bool:
        return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")

    @app.exception_handler(AtelierError)
    async def ours(request: Request, error: AtelierError) -> Response:
        if wants_page(request):
            return page(request, error.status, error.title, error.detail, error.next_step)
        after = error.extra.get("retry_after")
        headers = {"Retry-After": str(max(1, round(after)))} if after is not None else None
        if error.status == 401:
            headers = {"WWW-Authenticate": "Bearer"}
        return problem(
            error.status,
            error.code,
            error.title,
            error.detail,
            next_step=error.next_step,
            headers=headers,
            **error.extra,
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        fields = [
            {"field": ".".join(str(part) for part in e["loc"]), "message": e["msg"]} for e in error.errors()
        ]
        detail = (
            "; ".join(f"{f['field']}: {f['message']}" for f in fields)
            or "The request does not have the expected shape."
        )
        return problem(
            422,
            "invalid_request",
            "This was refused",
            detail,
            next_step="Correct the named fields.",
            errors=fields,
        )

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if wants_page(request):
            return page(
                request,
                error.status_code,
                "There is no such page",
                "The address leads nowhere here.",
                "Go to the first page.",
            )
        code = {404: "not_found", 405: "method_not_allowed"}.get(
            error.status_code, f"http_{error.status_code}"
        )
        return problem(
            error.status_code, code, str(error.detail), str(error.detail), headers=dict(error.headers or {})
        )

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        log.error("unexpected error", path=request.url.path, exc_info=error)
        if wants_page(request):
            return page(
                request,
                500,
                "Something went wrong here",
                "An error that nobody foresaw. Your edits are safe.",
                "Try again.",
            )
        return problem(
            500,
            "internal",
            "Something went wrong here",
            "An error that nobody foresaw. Your edits are safe.",
            next_step="Try again; if it stays, report the id.",
        )
