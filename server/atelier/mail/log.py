"""Mail on a machine without a mail server: written to the log, where its operator finds it."""

from __future__ import annotations

import structlog

log = structlog.get_logger(__name__)


class LogMail:
    """Writes each mail to the log as one record."""

    async def send(self, to: str, subject: str, text: str) -> None:
        """Write the mail; nothing leaves the machine."""
        log.warning(
            "no mail server is set up (ATELIER_MAIL_URL), so here is the mail",
            to=to,
            subject=subject,
            text=text,
        )
