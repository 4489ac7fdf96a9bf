"""The editor's files: hashed ones are kept by browsers for ever, text is compressed once."""

from __future__ import annotations

import gzip
import mimetypes
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, Response

from atelier.errors import NotFound
from atelier.pages.render import EDITOR

router = APIRouter(include_in_schema=False)
_PACKED = (".js", ".css", ".svg", ".webmanifest", ".json")
_ROOT_FILES = {
    "sw.js": "text/javascript",
    "manifest.webmanifest": "application/manifest+json",
    "icon.svg": "image/svg+xml",
}


@router.get("/static/editor/{path:path}")
async def editor_file(path: str, request: Request) -> Response:
    """Serve a built file."""
    return _serve(
        path, request, "public, max-age=31536000, immutable" if path.startswith("assets/") else "no-cache"
    )


@router.get("/sw.js")
@router.get("/manifest.webmanifest")
@router.get("/icon.svg")
async def root_file(request: Request) -> Response:
    """Serve what must lie at the root, so that it is in charge of all pages."""
    return _serve(request.url.path.lstrip("/"), request, "no-cache")


def _serve(path: str, request: Request, cache: str) -> Response:
    file = (EDITOR / path).resolve()
    if not file.is_relative_to(EDITOR.resolve()) or not file.is_file() or "/." in f"/{path}":
        raise NotFound("not_found", "There is no such file.", next_step="Reload the page.")
    media_type = _ROOT_FILES.get(path) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    headers = {"Cache-Control": cache, "Vary": "Accept-Encoding"}
    if file.suffix in _PACKED and "gzip" in request.headers.get("accept-encoding", ""):
        packed = _packed(file, file.stat().st_mtime_ns)
        return Response(packed, headers={**headers, "Content-Encoding": "gzip"}, media_type=media_type)
    return FileResponse(file, headers=headers, media_type=media_type)


@lru_cache(maxsize=256)
def _packed(file: Path, _changed: int) -> bytes:
    return gzip.compress(file.read_bytes(), 9, mtime=0)
