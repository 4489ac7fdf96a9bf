"""Named versions: where the log was for a session's tree and every document, under one name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import RowMapping

from atelier import documents, events, files, times
from atelier.auth import Action, Caller
from atelier.errors import Conflict, NotFound
from atelier.files import Node, Tree
from atelier.history import queries, service
from atelier.history.schemas import RestoredVersion, Version, VersionFile, VersionWithFiles
from atelier.ids import TREE, document_key, new_id
from atelier.services import Services

_FIELDS = ("path", "kind", "blob", "size", "media_type")


async def make(
    services: Services,
    caller: Caller,
    session_id: str,
    name: str,
    *,
    document_id: str | None = None,
    position: int | None = None,
) -> Version:
    """Name the session as it is now, or a point of one document.

    Raises:
        Conflict: `too_many_versions`.
    """
    await files.allowed(services, caller, session_id, Action.EDIT)
    if document_id is not None and position is not None:
        service.key_of(session_id, document_id)
        positions = {document_id: position}
    else:
        positions = await _positions(services, session_id)
    version_id, now = new_id("ver"), times.now()
    async with services.db.begin() as db:
        if await queries.count_versions(db, session_id) >= services.limits.versions_per_session:
            raise Conflict(
                "too_many_versions",
                f"A session has at most {services.limits.versions_per_session} named versions.",
                next_step="Delete one that you no longer need; the history itself stays.",
            )
        await queries.add_version(
            db,
            id=version_id,
            session_id=session_id,
            user_id=caller.user_id,
            name=name,
            document_id=document_id,
            positions=positions,
            created_at=now,
        )
    await events.publish(services, session_id, "versions.changed", {"version_id": version_id})
    return Version(
        id=version_id,
        name=name,
        created_at=now,
        by=caller.user_id,
        by_name=caller.display_name,
        document_id=document_id,
    )


async def _positions(services: Services, session_id: str) -> dict[str, int]:
    """Return where each document of the session is now, all at one moment."""
    prefix = document_key(session_id, "")
    return {kept.document.removeprefix(prefix): kept.position for kept in await services.log.survey(prefix)}


async def listed(services: Services, caller: Caller, session_id: str) -> list[Version]:
    """Return a session's versions, newest first."""
    await files.allowed(services, caller, session_id, Action.READ)
    async with services.db.read() as db:
        return [_version(row) for row in await queries.version_list(db, session_id)]


async def delete(services: Services, caller: Caller, session_id: str, version_id: str) -> None:
    """Forget a version's name; what was written stays.

    Raises:
        NotFound: `version_not_found`.
    """
    await files.allowed(services, caller, session_id, Action.EDIT)
    async with services.db.begin() as db:
        if not await queries.delete_version(db, session_id, version_id):
            raise _not_found()
    await events.publish(services, session_id, "versions.changed", {"version_id": version_id})


async def with_files(
    services: Services, caller: Caller, session_id: str, version_id: str
) -> VersionWithFiles:
    """Return a version and the files that were there.

    Raises:
        NotFound: `version_not_found`.
    """
    await files.allowed(services, caller, session_id, Action.READ)
    row = await _row(services, session_id, version_id)
    nodes = (await _tree(services, session_id, row)).nodes
    return VersionWithFiles(
        **_version(row).model_dump(),
        files=[
            VersionFile(
                path=node.path,
                kind=node.kind,  # type: ignore[arg-type]  # the derivation knows no other
                document_id=node.id if node.kind == "text" else None,
                position=row["positions"].get(node.id, 0) if node.kind == "text" else None,
            )
            for node in nodes
        ],
    )


async def file_at(
    services: Services, caller: Caller, session_id: str, version_id: str, path: str
) -> tuple[Node, str]:
    """Return a file of a version, and its text if it is one.

    Raises:
        NotFound: `version_not_found`, `file_not_found`.
    """
    await files.allowed(services, caller, session_id, Action.READ)
    row = await _row(services, session_id, version_id)
    node = (await _tree(services, session_id, row)).at(path)
    if node.kind != "text":
        return node, ""
    _, text = await service.text_at(
        services, document_key(session_id, node.id), row["positions"].get(node.id, 0)
    )
    return node, text


async def restore(services: Services, caller: Caller, session_id: str, version_id: str) -> RestoredVersion:
    """Make the session's files what they were, by forward edits: texts first, then the tree in one change.

    Files that were deleted since come back, files that were made since go to the trash.

    Raises:
        NotFound: `version_not_found`.
    """
    await files.allowed(services, caller, session_id, Action.EDIT)
    row = await _row(services, session_id, version_id)
    inverses: dict[str, bytes] = {}
    then = await _tree(services, session_id, row)
    done = RestoredVersion(changed=[], brought_back=[], moved=[], trashed=[], undo_id=None)
    now = await _positions(services, session_id)
    for node in then.nodes:
        position = row["positions"].get(node.id, 0)
        if node.kind != "text" or now.get(node.id, 0) == position:
            continue
        change = await service.set_back(services, caller, document_key(session_id, node.id), position)
        if change is not None:
            inverses[node.id] = change.inverse
            done.changed.append(node.path)
    if row["document_id"] is None:
        async with files.turn(session_id):
            tree_change = await files.change_tree(
                services, session_id, caller.user_id, lambda tree: _patch(then, tree, done)
            )
        if tree_change is not None:
            inverses[TREE] = tree_change.inverse
    if inverses:
        done.undo_id = await files.keep_undo(services, caller, session_id, inverses)
    return done


def _patch(then: Tree, now: Tree, done: RestoredVersion) -> Mapping[str, Mapping[str, Any]]:
    """Return what makes the entries of `now` those of `then`, and say it in `done`."""
    patch: dict[str, dict[str, Any]] = {}
    shown_then = {node.id: node.path for node in then.nodes}
    shown_now = {node.id: node.path for node in now.nodes}
    for file_id, entry in then.entries.items():
        if entry.get("trashed") is not None:
            continue
        path = shown_then.get(file_id, str(entry.get("path")))
        current = now.entries.get(file_id)
        if current is None:
            patch[file_id] = dict(entry)
            done.brought_back.append(path)
            continue
        fields = {name: entry.get(name) for name in _FIELDS if current.get(name) != entry.get(name)}
        if current.get("trashed") is not None:
            fields["trashed"] = None
            done.brought_back.append(path)
        elif "path" in fields:
            done.moved.append(path)
        elif fields:
            done.changed.append(path)
        if fields:
            patch[file_id] = fields
    for file_id, entry in now.entries.items():
        was = then.entries.get(file_id)
        if entry.get("trashed") is None and (was is None or was.get("trashed") is not None):
            patch[file_id] = {"trashed": times.now()}
            done.trashed.append(shown_now.get(file_id, str(entry.get("path"))))
    return patch


async def _row(services: Services, session_id: str, version_id: str) -> RowMapping:
    async with services.db.read() as db:
        row = await queries.version(db, session_id, version_id)
    if row is None:
        raise _not_found()
    return row


async def _tree(services: Services, session_id: str, row: RowMapping) -> Tree:
    """Return the tree of a version; of a point of one file, that file as it is called now."""
    if row["document_id"] is not None:
        now = await files.read_tree(services, session_id)
        found = {key: entry for key, entry in now.entries.items() if key == row["document_id"]}
        for entry in found.values():
            entry.pop("trashed", None)
        return files.tree_of(found)
    position = row["positions"].get(TREE, 0)
    if not position:
        return files.tree_of({})
    stored = await services.log.read_at(document_key(session_id, TREE), position)
    update = await documents.apart(documents.size_of(stored), documents.merged, stored)
    return files.tree_of(documents.read_map(update, files.MAP))


def _version(row: RowMapping) -> Version:
    return Version(
        id=row["id"],
        name=row["name"],
        created_at=row["created_at"],
        by=row["user_id"],
        by_name=row["display_name"] or "",
        document_id=row["document_id"],
    )


def _not_found() -> NotFound:
    return NotFound(
        "version_not_found",
        "There is no such version of this session.",
        next_step="Look at the list of versions; somebody may have deleted it.",
    )
