"""The tree document of a session: read, and changed in turn by this process."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from atelier import documents, events
from atelier.auth import Action, Caller, require
from atelier.documents import Change, Patch
from atelier.errors import Conflict, NotFound
from atelier.files import tree
from atelier.files.tree import Node
from atelier.ids import TREE, document_key
from atelier.services import Services

MAP = "files"
Entries = dict[str, dict[str, Any]]
# Server-side changes of one session take turns, so that two of them see each other. Browsers and other processes do
# not wait for this lock: what they do at the same time is settled by the derivation.
_turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()


@dataclass(frozen=True, slots=True)
class Tree:
    """A session's entries and what they show."""

    entries: Entries
    nodes: tuple[Node, ...]

    def at(self, path: str) -> Node:
        """Return the file shown at `path`.

        Raises:
            NotFound: `file_not_found`.
        """
        for node in self.nodes:
            if node.path == path and node.kind != "folder":
                return node
        raise NotFound(
            "file_not_found",
            f"There is no file {path[:200]!r} in this session.",
            next_step="Look at the list of files.",
            path=path[:200],
        )

    def inside(self, path: str) -> list[Node]:
        """Return what is at `path` or in the folder of that name.

        Raises:
            NotFound: `file_not_found`.
        """
        found = [n for n in self.nodes if n.path == path or n.path.startswith(f"{path}/")]
        if not found:
            raise NotFound(
                "file_not_found",
                f"There is no file or folder {path[:200]!r} in this session.",
                next_step="Look at the list of files.",
                path=path[:200],
            )
        return found


def turn(session_id: str) -> asyncio.Lock:
    """Return the lock under which this process changes a session's tree."""
    lock = _turns.get(session_id)
    if lock is None:
        lock = _turns[session_id] = asyncio.Lock()
    return lock


async def allowed(services: Services, caller: Caller, session_id: str, action: Action) -> None:
    """Hold the caller's role in the session against an action."""
    async with services.db.read() as db:
        await require(db, session_id, caller.user_id, action)


async def read_tree(services: Services, session_id: str) -> Tree:
    """Return the tree as it is in the log."""
    return tree_of(await documents.map_of(services.log, document_key(session_id, TREE), MAP))


def tree_of(entries: Mapping[str, Mapping[str, Any]]) -> Tree:
    """Derive the tree of some entries."""
    return Tree({k: dict(v) for k, v in entries.items()}, tuple(tree.shown(entries)))


async def change_tree(
    services: Services, session_id: str, author: str, decide: Callable[[Tree], Patch]
) -> Change | None:
    """Change the tree by the patch that `decide` makes of it, and tell the session which paths changed.

    Raises:
        Conflict: `too_many_files`.
    """
    touched: list[str] = []

    def patch_of(entries: Entries) -> Patch:
        before = tree_of(entries)
        patch = decide(before)
        added = sum(key not in entries for key in patch)
        if added and len(entries) + added > services.limits.files_per_session:
            raise Conflict(
                "too_many_files",
                f"A session holds at most {services.limits.files_per_session} files, trash included.",
                next_step="Empty the trash, or use another session.",
            )
        shown = {node.id: node.path for node in before.nodes}
        for key, fields in patch.items():
            touched.extend(str(p) for p in (shown.get(key), (fields or {}).get("path")) if p)
        return patch

    change = await documents.change_map(services.log, document_key(session_id, TREE), author, MAP, patch_of)
    if change is not None:
        await events.publish(services, session_id, "files.changed", {"paths": sorted(set(touched))[:200]})
    return change
