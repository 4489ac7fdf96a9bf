"""Outgoing mail, chosen by URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote, urlsplit

from atelier.mail.base import Mail
from atelier.mail.log import LogMail
from atelier.mail.smtp import SmtpMail

__all__ = ["Mail", "open_mail"]


@asynccontextmanager
async def open_mail(url: str, sender: str) -> AsyncIterator[Mail]:
    """Open `url`: smtp://USER:PASSWORD@HOST:PORT, smtps://… (TLS from the start), or log://.

    Raises:
        ValueError: another scheme.
    """
    parts = urlsplit(url)
    if parts.scheme == "log":
        yield LogMail()
    elif parts.scheme in ("smtp", "smtps"):
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        tls = parts.scheme == "smtps"
        yield SmtpMail(
            parts.hostname or "localhost", parts.port or (465 if tls else 587), user, password, tls, sender
        )
    else:
        raise ValueError(f"mail is smtp://, smtps:// or log://, not {parts.scheme}://")
