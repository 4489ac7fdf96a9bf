"""What changed in a session's files since one last looked, for whoever keeps a copy of them: a terminal's sandbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Self

from atelier.files.service import Given, read_text
from atelier.files.store import read_tree
from atelier.files.tree import Node
from atelier.ids import TREE, document_key
from atelier.log import Entry
from atelier.services import Services


class Changes:
    """Follows the log of each text and of the tree; a context manager. Looking costs nothing while nothing changed.

    `given` is what the copy has, and of which file each path is: what came from `take` and was said by `wrote`.
    """

    def __init__(self, services: Services, session_id: str) -> None:
        self.given = Given({}, {})
        self._services = services
        self._session_id = session_id
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

    @property
    def waiting(self) -> bool:
        """Whether something has changed, as far as is known."""
        return bool(self._stale)

    async def take(self) -> dict[str, bytes | None]:
        """Return what the copy must be given: new and changed files, None for those that are gone; at first, all.

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
        shown, content = self.given.nodes, self.given.content
        if TREE in stale:
            nodes = (await read_tree(self._services, self._session_id)).nodes
            shown = {node.path: node for node in nodes if node.kind != "folder"}
            texts = {node.id for node in shown.values() if node.kind == "text"}
            for document_id in texts - self._unfollow.keys():
                self._follow(
                    document_id
                )  # before it is read: what comes while it is read makes it stale again
                self._stale.discard(document_id)
                stale.add(document_id)
        found: dict[str, bytes | None] = {path: None for path in content if path not in shown}
        for path, node in shown.items():
            if self._may_differ(path, node, stale):
                now = await self._read(node)
                if content.get(path) != now:
                    found[path] = now
        for path, data in found.items():
            if data is None:
                del content[path]
            else:
                content[path] = data
        self.given = Given(content, shown)
        return found

    def _may_differ(self, path: str, node: Node, stale: set[str]) -> bool:
        before = self.given.nodes.get(path)
        if path not in self.given.content or before is None or before.id != node.id:
            return True
        return node.id in stale if node.kind == "text" else before.blob != node.blob

    async def _read(self, node: Node) -> bytes:
        if node.kind == "text":
            return (await read_text(self._services, self._session_id, node)).encode()
        if not node.blob:
            return b""
        return b"".join([chunk async for chunk in self._services.blobs.read(node.blob)])

    async def wrote(self, files: Mapping[str, bytes | None], places: Mapping[str, str]) -> None:
        """Take note of what was changed in the copy, and where in the session it has been put."""
        nodes = {node.path: node for node in (await read_tree(self._services, self._session_id)).nodes}
        for path, data in files.items():
            self.given.nodes.pop(path, None)
            if data is None:
                self.given.content.pop(path, None)
                continue
            self.given.content[path] = data
            if places.get(path) == path and path in nodes:
                self.given.nodes[path] = nodes[path]
