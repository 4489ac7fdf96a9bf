"""Outgoing mail. It promises an attempt, not a delivery."""

from __future__ import annotations

from typing import Protocol


class Mail(Protocol):
    async def send(self, to: str, subject: str, text: str) -> None:
        """Send one plain-text mail. Raises Unavailable `mail_unavailable`."""
        ...
