"""What a program wrote, put into the session like an edit of the person who ran it.

A run is given the files as they are when it starts, and people go on meanwhile. So what counts is the difference
between what the program was given and what it left: in a text it becomes a small edit of the text as it is now, which
deletes nothing that was typed since; a file that was moved is written where it is now; one that was deleted, and one
whose place or content somebody else has taken, comes back under a name of its own. A file that the program deleted goes
to the trash, if it is still what the program was given. Whatever is not put in is named, with its reason, and one
undo takes all of it back.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from atelier import documents, times
from atelier.auth import Action, Caller
from atelier.errors import AtelierError
from atelier.files import tree
from atelier.files.checkout import LeftOut
from atelier.files.paths import checked, twin_key
from atelier.files.service import Given, as_text, new_entry
from atelier.files.store import MAP, Tree, allowed, change_tree, read_tree, turn
from atelier.files.tree import Node
from atelier.files.undos import keep
from atelier.ids import TREE, document_key, new_id
from atelier.services import Services

_MOST_NUMBERED = 100


@dataclass(slots=True)
class Written:
    """What became of what a program wrote; `places` says where each of its files is now."""

    created: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    undo_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Content:
    """One file as the program left it: a text, or the digest of what is binary, at a path in its normal form."""

    path: str
    text: str | None
    digest: str
    size: int


async def write_back(
    services: Services, caller: Caller, session_id: str, given: Given, files: Mapping[str, bytes | None]
) -> Written:
    """Put what a program wrote into the session; `files` are by path, None for one that it deleted.

    Raises:
        Forbidden: `role_forbids`, by the role that the person has now.
        NotFound: `session_not_found`.
    """
    await allowed(services, caller, session_id, Action.EDIT)
    done = Written()
    contents: dict[str, _Content] = {}
    for path, data in files.items():
        if data is not None:
            try:
                contents[path] = await _content(services, checked(path), data)
            except AtelierError as error:
                done.left_out.append(LeftOut(path, error.code, error.detail))
    gone = [path for path, data in files.items() if data is None]
    async with turn(session_id):
        back = _WriteBack(services, caller, session_id, given, await read_tree(services, session_id), done)
        for path in sorted(gone):  # first: a folder may be where it was
            await back.remove(path)
        for path in sorted(contents):
            await back.put(path, contents[path])
        await back.finish()
    return done


async def _content(services: Services, path: str, data: bytes) -> _Content:
    text = as_text(data) if len(data) <= services.limits.text_bytes else None
    if text is not None:
        return _Content(path, text.replace("\r\n", "\n").replace("\r", "\n"), "", len(data))
    digest, size = await services.blobs.put(_whole(data), limit=services.limits.blob_bytes)
    return _Content(path, None, digest, size)


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


class _WriteBack:
    """One change of the tree in the making; under the session's turn."""

    def __init__(
        self,
        services: Services,
        caller: Caller,
        session_id: str,
        given: Given,
        now: Tree,
        done: Written,
    ) -> None:
        self._services, self._caller, self._session_id = services, caller, session_id
        self._given, self._done = given, done
        self._nodes = {node.id: node for node in now.nodes}
        self._places = _Places(now.nodes)
        self._room = services.limits.files_per_session - len(now.entries)
        self._bytes = sum(node.size or 0 for node in now.nodes if node.kind == "blob")
        self._patch: dict[str, dict[str, Any]] = {}
        self._way_back: dict[str, dict[str, Any]] = {}
        self._inverses: dict[str, bytes] = {}

    async def put(self, path: str, content: _Content) -> None:
        """Write one file to where it belongs now."""
        was = self._given.nodes.get(path)
        node = None if was is None else self._nodes.get(was.id)
        if node is None or was is None:
            await self._create(path, content.path, content)
        elif content.text is not None and node.kind == "text":
            await self._merge(path, node, content.text)
        elif content.text is None and node.kind == "blob" and node.blob == was.blob:
            self._replace(path, node, content)
        elif await self._is_as_given(
            path, node
        ):  # what it is has changed: text became binary, or the other way
            self._places.free(node.path)
            if await self._create(path, node.path, content):
                self._trash(node)
            else:
                self._places.take(node.path)
        else:
            await self._create(path, node.path, content)

    async def remove(self, path: str) -> None:
        """Put a file that the program deleted into the trash, unless people have done something to it."""
        was = self._given.nodes.get(path)
        node = None if was is None else self._nodes.get(was.id)
        if node is None:
            return  # somebody else was quicker
        if node.path != path or not await self._is_as_given(path, node):
            self._leave_out(
                path, "changed_meanwhile", "The program deleted it, but it was changed or moved meanwhile."
            )
            return
        self._trash(node)
        self._places.free(node.path)
        self._done.deleted.append(path)

    def _trash(self, node: Node) -> None:
        self._patch[node.id] = {"trashed": times.now()}
        self._way_back[node.id] = {"trashed": None}

    async def finish(self) -> None:
        """Change the tree, and keep what takes everything back."""
        if self._patch:
            patch, way_back = self._patch, self._way_back
            await change_tree(self._services, self._session_id, self._caller.user_id, lambda _: patch)
            # Not the change's own inverse, which would let new files vanish: what was written in them since must stay.
            key = document_key(self._session_id, TREE)
            update = await documents.map_update(self._services.log, key, MAP, lambda _: way_back)
            if update is not None:
                self._inverses[TREE] = update
        if self._inverses:
            self._done.undo_id = await keep(self._services, self._caller, self._session_id, self._inverses)

    async def _merge(self, path: str, node: Node, text: str) -> None:
        base = self._given.content[path].decode()
        change = await documents.change_text(
            self._services.log,
            document_key(self._session_id, node.id),
            self._caller.user_id,
            lambda now: documents.merged_spans(base, text, now),
        )
        if change is not None:
            self._inverses[node.id] = change.inverse
            self._done.changed.append(node.path)
        self._done.places[path] = node.path

    def _replace(self, path: str, node: Node, content: _Content) -> None:
        grown = self._bytes - (node.size or 0) + content.size
        if self._refuses(path, grown):
            return
        self._patch[node.id] = {"blob": content.digest, "size": content.size}
        self._way_back[node.id] = {"blob": node.blob, "size": node.size}
        self._done.changed.append(node.path)
        self._done.places[path] = node.path

    async def _create(self, asked: str, path: str, content: _Content) -> bool:
        """Make a new file at a path, or beside it where that is taken; says whether there is one."""
        place = self._places.free_beside(path)
        if place is None:
            self._leave_out(asked, "path_taken", "There is a file where its folder would have to be.")
            return False
        if self._room <= 0:
            most = self._services.limits.files_per_session
            self._leave_out(asked, "too_many_files", f"A session holds at most {most} files, trash included.")
            return False
        if content.text is None and self._refuses(asked, self._bytes + content.size):
            return False
        file_id = new_id("doc")
        if content.text:
            key = document_key(self._session_id, file_id)
            await documents.set_text(self._services.log, key, self._caller.user_id, content.text)
        self._patch[file_id] = new_entry(
            place, self._caller.user_id, content.text is not None, content.digest, content.size
        )
        self._way_back[file_id] = {"trashed": times.now()}
        self._room -= 1
        self._places.take(place)
        self._done.created.append(place)
        self._done.places[asked] = place
        return True

    def _refuses(self, path: str, grown: int) -> bool:
        most = self._services.limits.session_bytes
        if grown > most:
            self._leave_out(path, "session_too_large", f"A session holds at most {most:,} bytes.")
            return True
        self._bytes = grown
        return False

    async def _is_as_given(self, path: str, node: Node) -> bool:
        """Say whether a file is still what the program was given."""
        content = self._given.content[path]
        if node.kind == "text":
            text = await documents.text_of(self._services.log, document_key(self._session_id, node.id))
            return text.encode() == content
        return node.blob == hashlib.sha256(content).hexdigest()

    def _leave_out(self, path: str, code: str, reason: str) -> None:
        self._done.left_out.append(LeftOut(path, code, reason))


class _Places:
    """Which paths of a tree are taken, however they are spelled."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()
        for node in nodes:
            (self._folders if node.kind == "folder" else self._files).add(twin_key(node.path))
            self._folders.update(map(twin_key, tree.parents(node.path)))

    def free_beside(self, path: str) -> str | None:
        """Return the path, or the first `name (2)` that is free; None where no file can be."""
        if any(twin_key(parent) in self._files for parent in tree.parents(path)):
            return None
        for number in range(1, _MOST_NUMBERED):
            place = path if number == 1 else tree.numbered(path, number)
            if twin_key(place) not in self._files and twin_key(place) not in self._folders:
                return place
        return None

    def take(self, path: str) -> None:
        self._files.add(twin_key(path))
        self._folders.update(map(twin_key, tree.parents(path)))

    def free(self, path: str) -> None:
        self._files.discard(twin_key(path))
