"""What changed in a session's files since one last looked, for whoever keeps a copy of them: a terminal's sandbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

from atelier.files.service import read_text
from atelier.files.store import read_tree
from atelier.files.tree import Node
from atelier.ids import TREE, document_key
from atelier.log import Entry
from atelier.services import Services


class Changes:
    """Follows the log of each text and of the tree; a context manager. Looking costs nothing while nothing changed."""

    def __init__(self, services: Services, session_id: str) -> None:
        self._services = services
        self._session_id = session_id
        self._shown: dict[str, Node] = {}
        self._stale: set[str] = set()
        self._unfollow: dict[str, Callable[[], None]] = {}

    def __enter__(self) -> Self:
        self._follow(TREE)
        return self

    def __exit__(self, *_: object) -> None:
        for unfollow in self._unfollow.values():
            unfollow()
        self._unfollow.clear()

    def _follow(self, document_id: str) -> None:
        def changed(_: Sequence[Entry]) -> None:
            self._stale.add(document_id)

        self._stale.add(document_id)
        key = document_key(self._session_id, document_id)
        self._unfollow[document_id] = self._services.log.follow(key, changed)

    async def take(self) -> dict[str, bytes | None]:
        """Return the files that are new or changed, and None for those that are gone; the first time, all of them.

        What could not be read because of an error is there again the next time.
        """
        if not self._stale:
            return {}
        stale, self._stale = self._stale, set()
        try:
            return await self._take(stale)
        except BaseException:
            self._stale |= stale
            raise

    async def _take(self, stale: set[str]) -> dict[str, bytes | None]:
        shown = self._shown
        if TREE in stale:
            nodes = (await read_tree(self._services, self._session_id)).nodes
            shown = {node.path: node for node in nodes if node.kind != "folder"}
            for document_id in {node.id for node in shown.values() if node.kind == "text"} - set(
                self._unfollow
            ):
                self._follow(
                    document_id
                )  # before it is read: what comes while it is read makes it stale again
                stale.add(document_id)
                self._stale.discard(document_id)
        found: dict[str, bytes | None] = {path: None for path in self._shown if path not in shown}
        for path, node in shown.items():
            before = self._shown.get(path)
            if node.kind == "text" and (node.id in stale or before is None or before.id != node.id):
                found[path] = (await read_text(self._services, self._session_id, node)).encode()
            elif node.kind == "blob" and node.blob and (before is None or before.blob != node.blob):
                found[path] = b"".join([chunk async for chunk in self._services.blobs.read(node.blob)])
        self._shown = shown
        return found
