"""Mail over SMTP, with STARTTLS where the server offers it."""

from __future__ import annotations

from email.message import EmailMessage
from email.utils import formatdate, make_msgid

import aiosmtplib

from atelier.errors import Unavailable

_TIMEOUT_SECONDS = 20


class SmtpMail:
    """One connection per mail: resets are rare, and a kept connection goes stale."""

    def __init__(self, host: str, port: int, user: str, password: str, tls: bool, sender: str) -> None:
        self._host, self._port, self._user, self._password = host, port, user, password
        self._tls, self._sender = tls, sender

    async def send(self, to: str, subject: str, text: str) -> None:
        """Hand the mail to the server.

        Raises:
            Unavailable: `mail_unavailable`, when the server is away or refuses.
        """
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self._sender, to, subject
        message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain="atelier")
        message.set_content(text)
        try:
            await aiosmtplib.send(
                message,
                hostname=self._host,
                port=self._port,
                username=self._user or None,
                password=self._password or None,
                use_tls=self._tls,
                timeout=_TIMEOUT_SECONDS,
            )
        except (aiosmtplib.SMTPException, OSError) as error:
            raise Unavailable(
                "mail_unavailable",
                f"The mail server did not take the mail ({type(error).__name__}).",
                next_step="Try again later, or ask the operator to check ATELIER_MAIL_URL.",
            ) from error
