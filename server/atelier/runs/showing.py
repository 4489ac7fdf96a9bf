"""How a browser is given what a program made: so that nothing of it runs as this site.

The bytes are a program's, and whoever wrote it may want the cookies of those who look. A page is the only thing that
may run scripts, and only in a sandbox without an origin, whether it is in the editor's frame or opened by itself:
the policy says so with the bytes. It reaches nothing: no network, no frames, no forms; the editor's own policy keeps the frame from
going elsewhere. Everything else is shown without scripts, and what no browser shows is a download.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

_PAGE = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "style-src 'unsafe-inline' data:; img-src data: blob:; font-src data:; media-src data: blob:; worker-src blob:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
_STILL = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
_DOWNLOADED = "application/octet-stream"


def shown(file: Mapping[str, Any]) -> Response:
    """Return the answer for one kept file."""
    media_type: str = file["media_type"]
    name = file["path"].rpartition("/")[2]
    how = "attachment" if media_type == _DOWNLOADED else "inline"
    headers = {
        "Content-Disposition": f"{how}; filename*=UTF-8''{quote(name)}",
        "Content-Security-Policy": _PAGE if media_type == "text/html" else _STILL,
        "Cross-Origin-Resource-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "X-DNS-Prefetch-Control": "off",
        "Cache-Control": "private, max-age=3600",
    }
    if media_type.startswith("text/"):
        media_type += "; charset=utf-8"
    return Response(file["content"], headers=headers, media_type=media_type)
