"""Security headers on every answer, in one place."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Scripts come from this server alone, and none is inline. Styles may be: CodeMirror writes a style element, and
# editors set widths on elements. Images may be data: and blob: for previews. Frames are pages that programs made, each
# answered with a policy of its own (`runs/showing.py`); that they come from here alone also keeps them from going elsewhere.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self' {sockets}; frame-src 'self'; worker-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


class SecurityHeaders:
    """Adds what an answer has not set itself."""

    def __init__(self, app: ASGIApp, public_url: str) -> None:
        self._app = app
        secure = public_url.startswith("https://")
        # 'self' covers sockets of the same scheme; naming them serves browsers that do not think so.
        host = public_url.partition("://")[2].partition("/")[0]
        # same-origin and not no-referrer: under that one browsers send forms with `Origin: null`, and the check that
        # keeps other sites from posting here could not tell them apart. Nothing is told to other sites either way.
        self._headers = {
            "Content-Security-Policy": _POLICY.format(sockets=f"{'wss' if secure else 'ws'}://{host}"),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
            "X-Robots-Tag": "noindex",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
        }
        if secure:
            self._headers["Strict-Transport-Security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)
