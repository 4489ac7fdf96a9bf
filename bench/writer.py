"""A text that somebody writes, and the updates that come of it."""

from __future__ import annotations

from typing import Self

from pycrdt import Doc, Text, TransactionEvent


class Writer:
    """A document with one text; each change of it is kept in `updates` as what a client would send.

    As a context manager it keeps what changes inside, in a document that goes on without it.
    """

    def __init__(self, doc: Doc[Text] | None = None) -> None:
        self.doc: Doc[Text] = doc or Doc()
        self.text = self.doc.get("content", type=Text)
        self.updates: list[bytes] = []
        self._subscription = self.doc.observe(self._keep)  # kept alive as long as this is

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.doc.unobserve(self._subscription)

    def _keep(self, event: TransactionEvent) -> None:
        self.updates.append(bytes(event.update))

    def take(self) -> bytes:
        """Return the only update since the last time."""
        (update,) = self.updates
        self.updates.clear()
        return update
