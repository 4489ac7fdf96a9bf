"""A text that somebody writes, and the updates that come of it."""

from __future__ import annotations

from pycrdt import Doc, Text, TransactionEvent


class Writer:
    """A document with one text; each change of it is kept in `updates` as what a client would send."""

    def __init__(self, doc: Doc[Text] | None = None) -> None:
        self.doc: Doc[Text] = doc or Doc()
        self.text = self.doc.get("content", type=Text)
        self.updates: list[bytes] = []
        self._subscription = self.doc.observe(self._keep)  # kept alive as long as this is

    def _keep(self, event: TransactionEvent) -> None:
        self.updates.append(bytes(event.update))

    def take(self) -> bytes:
        """Return the only update since the last time."""
        (update,) = self.updates
        self.updates.clear()
        return update
