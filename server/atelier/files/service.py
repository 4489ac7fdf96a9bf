"""Files behind paths: read, written, moved, put in the trash and brought back."""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from atelier import documents, times
from atelier.auth import Action, Caller
from atelier.errors import Conflict, NotFound, TooLarge
from atelier.files import tree
from atelier.files.paths import checked, twin_key
from atelier.files.store import Tree, allowed, change_tree, read_tree, turn
from atelier.files.tree import Node
from atelier.ids import document_key, new_id
from atelier.limits import Limits
from atelier.services import Services


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file as listed; `size` is in bytes."""

    id: str
    path: str
    kind: str
    size: int
    document_id: str | None
    blob: str | None
    media_type: str
    trashed: int | None = None


async def list_files(services: Services, session_id: str) -> list[FileEntry]:
    """Return the session's files and empty folders, sorted by path."""
    return [
        await _entry(services, session_id, node) for node in (await read_tree(services, session_id)).nodes
    ]


async def list_trash(services: Services, session_id: str) -> list[FileEntry]:
    """Return what is in the trash, latest first."""
    entries = (await read_tree(services, session_id)).entries
    return [await _entry(services, session_id, node) for node in tree.trash(entries)]


async def _entry(services: Services, session_id: str, node: Node) -> FileEntry:
    size = node.size or 0
    if node.kind == "text":
        size = len((await documents.text_of(services.log, document_key(session_id, node.id))).encode())
    return FileEntry(
        id=node.id,
        path=node.path,
        kind=node.kind,
        size=size,
        document_id=node.id if node.kind == "text" else None,
        blob=node.blob,
        media_type=media_type_of(node),
        trashed=node.trashed,
    )


def media_type_of(node: Node) -> str:
    """Return what a file is served as."""
    if node.kind == "text":
        return "text/plain; charset=utf-8"
    return node.media_type or mimetypes.guess_type(node.path)[0] or "application/octet-stream"


async def read_text(services: Services, session_id: str, node: Node) -> str:
    """Return a text file's text."""
    return await documents.text_of(services.log, document_key(session_id, node.id))


async def first_text(
    services: Services, session_id: str, entry: str | None, *, most: int
) -> dict[str, str] | None:
    """Return the file that a session opens with: its entry, else a file called main, else the first text.

    The text is left out (empty) beyond `most` characters.
    """
    texts = [node for node in (await read_tree(services, session_id)).nodes if node.kind == "text"]
    if not texts:
        return None
    chosen = min(texts, key=lambda n: (n.path != entry, not n.path.startswith("main."), n.path))
    text = await read_text(services, session_id, chosen)
    return {"document_id": chosen.id, "path": chosen.path, "text": text if len(text) <= most else ""}


@dataclass(frozen=True, slots=True)
class Given:
    """A session's files at one moment: what is in each, and which file it is, by path."""

    content: dict[str, bytes]
    nodes: dict[str, Node]


async def read_all(services: Services, session_id: str) -> dict[str, bytes]:
    """Return every file's content by path, as a copy needs it. Raises as `read_given`."""
    return (await read_given(services, session_id)).content


async def read_given(services: Services, session_id: str) -> Given:
    """Return every file as a run is given it.

    Raises:
        TooLarge: `session_too_large`.
    """
    found: dict[str, bytes] = {}
    nodes: dict[str, Node] = {}
    size = 0
    for node in (await read_tree(services, session_id)).nodes:
        nodes[node.path] = node
        if node.kind == "text":
            found[node.path] = (await read_text(services, session_id, node)).encode()
        elif node.kind == "blob" and node.blob:
            found[node.path] = b"".join([chunk async for chunk in services.blobs.read(node.blob)])
        size += len(found.get(node.path, b""))
        if size > services.limits.session_bytes:
            raise _session_too_large(services.limits)
    return Given(found, nodes)


async def read_some(services: Services, session_id: str, paths: Collection[str]) -> dict[str, bytes]:
    """Return those of these files that are there, as a run is given them."""
    found = {}
    for node in (await read_tree(services, session_id)).nodes:
        if node.path in paths and node.kind == "text":
            found[node.path] = (await read_text(services, session_id, node)).encode()
    return found


async def write_file(
    services: Services, caller: Caller, session_id: str, path: str, body: AsyncIterator[bytes]
) -> tuple[FileEntry, bool]:
    """Create or replace a file; returns it and whether it is new.

    Text (UTF-8 without NUL, within `text_bytes`) replaces text by a small edit that merges with what others type at
    that moment; anything else is kept as a blob. A file that changes its kind is a new one, the old goes to the trash.

    Raises:
        Invalid: a `path_…` code.
        TooLarge: `blob_too_large`, `session_too_large`.
        Conflict: `too_many_files`, `path_taken`.
    """
    path = checked(path)
    await allowed(services, caller, session_id, Action.EDIT)
    head, rest = await _head(body, services.limits.text_bytes)
    text = as_text(head) if rest is None else None
    digest, size = ("", 0)
    if text is None:
        digest, size = await services.blobs.put(_chain(head, rest), limit=services.limits.blob_bytes)
    async with turn(session_id):
        before = await read_tree(services, session_id)
        existing = next((n for n in before.nodes if n.path == path and n.kind != "folder"), None)
        _refuse_growth(before, size or len(head), existing, services.limits)
        if existing is None:
            require_free(before, path)
        if existing is not None and existing.kind == "text" and text is not None:
            await documents.set_text(
                services.log, document_key(session_id, existing.id), caller.user_id, text
            )
            return await _entry(services, session_id, existing), False
        file_id = new_id("doc")
        if text:
            await documents.set_text(services.log, document_key(session_id, file_id), caller.user_id, text)
        patch: dict[str, dict[str, Any]] = {
            file_id: new_entry(path, caller.user_id, text is not None, digest, size)
        }
        if existing is not None and existing.kind == "blob" and text is None:
            patch = {
                existing.id: {"blob": digest, "size": size, "media_type": patch[file_id].get("media_type")}
            }
        elif existing is not None:
            patch[existing.id] = {"trashed": times.now()}
        await change_tree(services, session_id, caller.user_id, lambda _: patch)
        after = await read_tree(services, session_id)
    node = next(
        n for n in after.nodes if (n.id in patch and n.trashed is None and n.path == path) or n.id == file_id
    )
    return await _entry(services, session_id, node), existing is None


def new_entry(path: str, author: str, is_text: bool, digest: str = "", size: int = 0) -> dict[str, Any]:
    """Return the fields of a new file in the tree document."""
    entry: dict[str, Any] = {
        "path": path,
        "kind": "text" if is_text else "blob",
        "created": times.now(),
        "author": author,
    }
    if not is_text:
        entry |= {"blob": digest, "size": size, "media_type": mimetypes.guess_type(path)[0]}
    return {k: v for k, v in entry.items() if v is not None}


async def create_folder(services: Services, caller: Caller, session_id: str, path: str) -> FileEntry:
    """Create an empty folder. Raises as `write_file`."""
    path = checked(path)
    await allowed(services, caller, session_id, Action.EDIT)
    file_id = new_id("doc")
    entry = {"path": path, "kind": "folder", "created": times.now(), "author": caller.user_id}

    def decide(now: Tree) -> Mapping[str, Mapping[str, Any]]:
        require_free(now, path)
        return {file_id: entry}

    async with turn(session_id):
        await change_tree(services, session_id, caller.user_id, decide)
    return FileEntry(file_id, path, "folder", 0, None, None, "inode/directory")


async def move(
    services: Services, caller: Caller, session_id: str, source: str, target: str
) -> list[FileEntry]:
    """Rename or move a file, or a folder with all that is in it.

    Raises:
        Invalid: a `path_…` code.
        NotFound: `file_not_found`.
        Conflict: `path_taken`.
    """
    target = checked(target)
    await allowed(services, caller, session_id, Action.EDIT)
    moved: list[str] = []

    def decide(now: Tree) -> Mapping[str, Mapping[str, Any]]:
        nodes = now.inside(source)
        if target == source:
            return {}
        if target.startswith(f"{source}/"):
            raise Conflict(
                "path_taken", "A folder cannot be moved into itself.", next_step="Choose another place."
            )
        ids = {node.id for node in nodes}
        rest = Tree(now.entries, tuple(n for n in now.nodes if n.id not in ids))
        patch = {}
        for node in nodes:
            path = checked(target + node.path[len(source) :])
            require_free(rest, path)
            patch[node.id] = {"path": path}
            moved.append(path)
        return patch

    async with turn(session_id):
        await change_tree(services, session_id, caller.user_id, decide)
        after = await read_tree(services, session_id)
    return [await _entry(services, session_id, node) for node in after.nodes if node.path in moved]


async def remove(services: Services, caller: Caller, session_id: str, path: str) -> list[str]:
    """Put a file, or a folder with all that is in it, into the trash; returns the ids.

    Raises:
        NotFound: `file_not_found`.
    """
    await allowed(services, caller, session_id, Action.EDIT)
    gone: list[str] = []

    def decide(now: Tree) -> Mapping[str, Mapping[str, Any]]:
        gone.extend(node.id for node in now.inside(path))
        return {file_id: {"trashed": times.now()} for file_id in gone}

    async with turn(session_id):
        await change_tree(services, session_id, caller.user_id, decide)
    return gone


async def restore(services: Services, caller: Caller, session_id: str, file_id: str) -> FileEntry:
    """Bring a file back from the trash; where its path is taken by now, it shows as `name (2)`.

    Raises:
        NotFound: `file_not_found`.
    """
    await allowed(services, caller, session_id, Action.EDIT)

    def decide(now: Tree) -> Mapping[str, Mapping[str, Any]]:
        if now.entries.get(file_id, {}).get("trashed") is None:
            raise NotFound(
                "file_not_found", "There is no such file in the trash.", next_step="It may be back already."
            )
        return {file_id: {"trashed": None}}

    async with turn(session_id):
        await change_tree(services, session_id, caller.user_id, decide)
        after = await read_tree(services, session_id)
    return await _entry(services, session_id, next(n for n in after.nodes if n.id == file_id))


async def seed(services: Services, session_id: str, author: str, files: Mapping[str, bytes]) -> None:
    """Put files into a session: contents first, then all entries in one change of the tree.

    Raises:
        TooLarge: `session_too_large`.
        Conflict: `too_many_files`, `path_taken`.
    """
    if sum(map(len, files.values())) > services.limits.session_bytes:
        raise _session_too_large(services.limits)
    patch: dict[str, dict[str, Any]] = {}
    for path, content in files.items():
        file_id = new_id("doc")
        text = as_text(content) if len(content) <= services.limits.text_bytes else None
        digest = ""
        if text is None:
            digest, _ = await services.blobs.put(_chain(content, None), limit=services.limits.blob_bytes)
        elif text:
            await documents.set_text(services.log, document_key(session_id, file_id), author, text)
        patch[file_id] = new_entry(path, author, text is not None, digest, len(content))

    def decide(now: Tree) -> Mapping[str, Mapping[str, Any]]:
        for path in files:
            require_free(now, path)
        return patch

    async with turn(session_id):
        await change_tree(services, session_id, author, decide)


def require_free(now: Tree, path: str) -> None:
    """Refuse a path that is there, or whose twin in case or Unicode form is.

    Raises:
        Conflict: `path_taken`.
    """
    key = twin_key(path)
    above = {twin_key(parent) for parent in tree.parents(path)}
    for node in now.nodes:
        other = twin_key(node.path)
        if other == key or other.startswith(f"{key}/") or (node.kind != "folder" and other in above):
            raise Conflict(
                "path_taken",
                f"There is {node.path!r} already.",
                next_step="Choose another name.",
                path=node.path,
            )


def as_text(content: bytes) -> str | None:
    """Return the content as text, or None if it is binary."""
    if b"\0" in content:
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


async def _head(body: AsyncIterator[bytes], most: int) -> tuple[bytes, AsyncIterator[bytes] | None]:
    """Read up to `most` bytes; returns them and the rest, or None when there is none."""
    head = bytearray()
    async for chunk in body:
        head += chunk
        if len(head) > most:
            return bytes(head), body
    return bytes(head), None


async def _chain(head: bytes, rest: AsyncIterator[bytes] | None) -> AsyncIterator[bytes]:
    yield head
    if rest is not None:
        async for chunk in rest:
            yield chunk


def _refuse_growth(now: Tree, size: int, replaced: Node | None, limits: Limits) -> None:
    blobs = sum(n.size or 0 for n in now.nodes if n.kind == "blob" and n is not replaced)
    if blobs + size > limits.session_bytes:
        raise _session_too_large(limits)


def _session_too_large(limits: Limits) -> TooLarge:
    return TooLarge(
        "session_too_large",
        f"A session holds at most {limits.session_bytes:,} bytes.",
        next_step="Delete large files, or use another session.",
    )
