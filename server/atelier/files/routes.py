"""HTTP to calls: the tree, contents, zip, search and replace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from atelier.auth import Action, CallerDep, limiter_of
from atelier.deps import ServicesDep
from atelier.disconnects import while_connected
from atelier.files import archive, imports, search, service, undos
from atelier.files.paths import checked
from atelier.files.schemas import (
    File,
    FileMatches,
    Files,
    GitImport,
    Imported,
    LeftOut,
    Move,
    NewFolder,
    Removed,
    Replaced,
    Replacement,
    SearchResult,
    Undone,
)
from atelier.files.service import FileEntry
from atelier.files.store import allowed, read_tree

router = APIRouter(prefix="/api/v1/sessions/{session_id}", tags=["files"])
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_INLINE = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/avif")


def _file(entry: FileEntry) -> File:
    return File.model_validate({name: value for name, value in asdict(entry).items() if name != "blob"})


@router.get("/files", operation_id="list_files")
async def list_files(session_id: str, services: ServicesDep, caller: CallerDep) -> Files:
    """List the files and empty folders."""
    await allowed(services, caller, session_id, Action.READ)
    return Files(items=[_file(entry) for entry in await service.list_files(services, session_id)])


@router.get("/files/{path:path}", operation_id="read_file", response_class=Response)
async def read_file(
    session_id: str, path: str, services: ServicesDep, caller: CallerDep, download: bool = False
) -> Response:
    """Return a file's bytes, in a way that no browser runs them."""
    path = checked(path)
    await allowed(services, caller, session_id, Action.READ)
    node = (await read_tree(services, session_id)).at(path)
    media_type = service.media_type_of(node)
    shown = not download and (node.kind == "text" or media_type in _INLINE)
    name = path.rpartition("/")[2]
    headers = {
        "Content-Disposition": f"{'inline' if shown else 'attachment'}; filename*=UTF-8''{quote(name)}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "private, no-cache",
    }
    if node.kind == "text":
        return Response(
            await service.read_text(services, session_id, node), headers=headers, media_type=media_type
        )
    blob = services.blobs.read(node.blob or "")
    first = await anext(blob, b"")  # a missing blob is said before the answer begins

    async def content() -> AsyncIterator[bytes]:
        yield first
        async for chunk in blob:
            yield chunk

    return StreamingResponse(content(), headers=headers, media_type=media_type)


@router.put(
    "/files/{path:path}", operation_id="write_file", openapi_extra=_BODY, responses={201: {"model": File}}
)
async def write_file(
    session_id: str, path: str, request: Request, response: Response, services: ServicesDep, caller: CallerDep
) -> File:
    """Create a file (201) or replace its content (200). Text is merged as a collaborative edit."""
    entry, new = await service.write_file(services, caller, session_id, path, request.stream())
    response.status_code = 201 if new else 200
    return _file(entry)


@router.delete("/files/{path:path}", operation_id="delete_file")
async def delete_file(session_id: str, path: str, services: ServicesDep, caller: CallerDep) -> Removed:
    """Put a file, or a folder with what is in it, into the trash."""
    return Removed(ids=await service.remove(services, caller, session_id, checked(path)))


@router.post("/folders", status_code=201, operation_id="create_folder")
async def create_folder(session_id: str, body: NewFolder, services: ServicesDep, caller: CallerDep) -> File:
    """Create an empty folder."""
    return _file(await service.create_folder(services, caller, session_id, body.path))


@router.post("/moves", operation_id="move_file")
async def move_file(session_id: str, body: Move, services: ServicesDep, caller: CallerDep) -> Files:
    """Rename or move a file or a folder."""
    moved = await service.move(services, caller, session_id, checked(body.source), body.to)
    return Files(items=[_file(entry) for entry in moved])


@router.get("/trash", operation_id="list_trash")
async def list_trash(session_id: str, services: ServicesDep, caller: CallerDep) -> Files:
    """List what is in the trash."""
    await allowed(services, caller, session_id, Action.READ)
    return Files(items=[_file(entry) for entry in await service.list_trash(services, session_id)])


@router.post("/trash/{file_id}/restore", operation_id="restore_file")
async def restore_file(session_id: str, file_id: str, services: ServicesDep, caller: CallerDep) -> File:
    """Bring a file back from the trash."""
    return _file(await service.restore(services, caller, session_id, file_id))


@router.get("/export.zip", operation_id="export_zip", response_class=Response)
async def export_zip(session_id: str, services: ServicesDep, caller: CallerDep) -> Response:
    """Return all files as a zip."""
    await allowed(services, caller, session_id, Action.READ)
    packed = await asyncio.to_thread(archive.pack, await service.read_all(services, session_id))
    headers = {"Content-Disposition": f'attachment; filename="{session_id}.zip"'}
    return Response(packed, media_type="application/zip", headers=headers)


@router.post("/import", operation_id="import_zip", openapi_extra=archive.ZIP_BODY)
async def import_zip(
    session_id: str, request: Request, services: ServicesDep, caller: CallerDep, into: str = ""
) -> Imported:
    """Unpack a zip into the session, all of it or nothing."""
    await allowed(services, caller, session_id, Action.EDIT)
    content = await archive.unpack(request.stream(), services.limits)
    placed = {checked(f"{into.strip('/')}/{path}" if into else path): data for path, data in content.items()}
    await service.seed(services, session_id, caller.user_id, placed)
    return Imported(paths=sorted(placed))


@router.post("/imports", operation_id="import_git")
async def import_git(
    session_id: str, body: GitImport, request: Request, services: ServicesDep, caller: CallerDep
) -> Imported:
    """Put the files of a public Git repository into the session, without its history. Ends when the client leaves."""
    await allowed(services, caller, session_id, Action.EDIT)
    await limiter_of(request).hit("imports", caller.user_id, services.limits)
    into = body.into.strip("/")
    work = imports.import_git(services, caller, session_id, body.url, body.ref, into)
    fetched = await while_connected(request, work)
    return Imported(
        paths=sorted(fetched.checkout.files),
        left_out=[LeftOut.model_validate(asdict(item)) for item in fetched.checkout.left_out],
        ref=fetched.ref.name,
        commit=fetched.ref.commit.decode(),
    )


@router.get("/search", operation_id="search_files")
async def search_files(
    session_id: str,
    q: str,
    services: ServicesDep,
    caller: CallerDep,
    regex: bool = False,
    case: bool = False,
    word: bool = False,
) -> SearchResult:
    """Search all text files."""
    items, truncated = await search.search(services, caller, session_id, search.Query(q, regex, case, word))
    return SearchResult(
        items=[FileMatches.model_validate(asdict(item)) for item in items], truncated=truncated
    )


@router.post("/replacements", operation_id="replace_in_files")
async def replace_in_files(
    session_id: str, body: Replacement, services: ServicesDep, caller: CallerDep
) -> Replaced:
    """Replace over all text files; the answer's id takes it back."""
    query = search.Query(body.q, body.regex, body.case, body.word)
    undo_id, files, places = await search.replace(
        services, caller, session_id, query, body.replacement, body.paths
    )
    return Replaced(id=undo_id, files=files, replacements=places)


@router.post("/undos/{undo_id}", operation_id="undo_replacement")
async def undo_replacement(session_id: str, undo_id: str, services: ServicesDep, caller: CallerDep) -> Undone:
    """Take a replacement back; what others typed since then stays."""
    return Undone(files=await undos.undo(services, caller, session_id, undo_id))
