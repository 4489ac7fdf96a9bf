"""Who listens to which document, on the event loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from atelier.errors import Unavailable
from atelier.log.base import Edit, Entry, Listener, Settled

logger = structlog.get_logger(__name__)


class Followers:
    """Calls each document's listeners in the order in which entries are given."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Listener]] = {}

    def add(self, document: str, listener: Listener) -> Callable[[], None]:
        """Listen from now on; returns the function that ends it (calling it twice is fine)."""
        self._listeners.setdefault(document, []).append(listener)

        def end() -> None:
            listeners = self._listeners.get(document, [])
            if listener in listeners:
                listeners.remove(listener)
            if not listeners:
                self._listeners.pop(document, None)

        return end

    def has(self, document: str) -> bool:
        """Say whether anybody listens."""
        return document in self._listeners

    def tell(self, document: str, entries: Sequence[Entry]) -> None:
        """Give the entries to the document's listeners; one that fails does not keep the others from hearing."""
        for listener in tuple(self._listeners.get(document, ())):
            try:
                listener(entries)
            except Exception:
                logger.exception("a listener of the log failed", document=document)


def settle(written: Sequence[tuple[Settled, Edit]], error: Unavailable | None) -> None:
    """Tell each that handed edits over what has become of them, in order."""
    groups: dict[Settled, list[Edit]] = {}
    for settled, edit in written:
        groups.setdefault(settled, []).append(edit)
    for settled, edits in groups.items():
        try:
            settled(edits, error)
        except Exception:
            logger.exception("what was written could not be acknowledged")
