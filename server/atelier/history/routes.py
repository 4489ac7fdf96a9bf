"""HTTP to calls: a document's past, going back, named versions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Response
from starlette.responses import StreamingResponse

from atelier import files
from atelier.auth import CallerDep
from atelier.deps import ServicesDep
from atelier.documents import Change, ranges
from atelier.history import letting_go, service, versions
from atelier.history.schemas import (
    Author,
    Burst,
    Changed,
    Diff,
    ForgetBefore,
    Forgotten,
    History,
    Hunk,
    Line,
    Mark,
    NewVersion,
    Playback,
    PlaybackStep,
    Point,
    RestoredVersion,
    RestorePoint,
    Rollback,
    Version,
    Versions,
    VersionWithFiles,
)

router = APIRouter(prefix="/api/v1/sessions/{session_id}", tags=["history"])
_PAST = "/documents/{document_id}/history"


@router.get(_PAST, operation_id="list_history")
async def list_history(
    session_id: str,
    document_id: str,
    services: ServicesDep,
    caller: CallerDep,
    before: Annotated[int | None, Query(ge=0)] = None,
    limit: Annotated[int, Query(ge=1, le=service.PAGE)] = service.PAGE,
) -> History:
    """Say who wrote when: edits in bursts, newest first, with named versions and the ends of long pauses."""
    page = await service.history(services, caller, session_id, document_id, before=before, limit=limit)
    return History(
        items=[
            Burst(
                first=burst.first,
                last=burst.last,
                started_at=burst.started_at,
                ended_at=burst.ended_at,
                edits=burst.edits,
                authors=[
                    Author(id=author, name=page.names.get(author, ""), **asdict(share))
                    for author, share in burst.authors.items()
                ],
            )
            for burst in page.bursts
        ],
        marks=[
            Mark(kind="version" if mark.version_id else "automatic", **asdict(mark)) for mark in page.marks
        ],
        position=page.position,
        edits=page.edits,
        next=page.next,
    )


@router.get(f"{_PAST}/diff", operation_id="compare_points")
async def compare_points(
    session_id: str,
    document_id: str,
    services: ServicesDep,
    caller: CallerDep,
    first: Annotated[int, Query(alias="from", ge=0)],
    last: Annotated[int | None, Query(alias="to", ge=0)] = None,
) -> Diff:
    """Compare two points of a text, or one with now (without `to`)."""
    found = await service.compared(services, caller, session_id, document_id, first, last)
    return Diff(
        hunks=[
            Hunk(
                old_line=hunk.old_line,
                new_line=hunk.new_line,
                lines=[Line(kind=kind, text=text) for kind, text in hunk.lines],
            )
            for hunk in found.hunks
        ],
        added=found.added,
        removed=found.removed,
        truncated=found.truncated,
    )


@router.get(f"{_PAST}/playback", operation_id="play_history")
async def play_history(
    session_id: str,
    document_id: str,
    services: ServicesDep,
    caller: CallerDep,
    after: Annotated[int, Query(ge=0)] = 0,
    upto: Annotated[int | None, Query(alias="to", ge=0)] = None,
    limit: Annotated[int, Query(ge=1, le=2_000)] = 1_000,
) -> Playback:
    """Return the text after a position, and what each of the following edits did to it."""
    text, steps, names, following = await service.playback(
        services, caller, session_id, document_id, after=after, upto=upto, limit=limit
    )
    return Playback(
        text=text, steps=[PlaybackStep(**asdict(step)) for step in steps], names=names, next=following
    )


@router.post(f"{_PAST}/restore", operation_id="restore_point")
async def restore_point(
    session_id: str, document_id: str, body: RestorePoint, services: ServicesDep, caller: CallerDep
) -> Changed:
    """Make the text equal to what it was, by an edit that merges with what others type at that moment."""
    return _changed(*await service.restore(services, caller, session_id, document_id, body.position))


@router.post(f"{_PAST}/rollback", operation_id="roll_back")
async def roll_back(
    session_id: str, document_id: str, body: Rollback, services: ServicesDep, caller: CallerDep
) -> Changed:
    """Take the edits of one person or one period back; what others wrote or deleted stays so."""
    change, undo_id = await service.roll_back(
        services,
        caller,
        session_id,
        document_id,
        author=body.author,
        first=body.first or 0,
        last=body.last,
    )
    return _changed(change, undo_id)


@router.post(f"{_PAST}/forget", operation_id="forget_before")
async def forget_before(
    session_id: str, document_id: str, body: ForgetBefore, services: ServicesDep, caller: CallerDep
) -> Forgotten:
    """Let go, for good, of who wrote what before a point and of what had been deleted by then; the text stays."""
    position, edits = await letting_go.forget_before(services, caller, session_id, document_id, body.position)
    return Forgotten(position=position, edits=edits)


@router.get(f"{_PAST}/{{position}}", operation_id="read_point")
async def read_point(
    session_id: str, document_id: str, position: int, services: ServicesDep, caller: CallerDep
) -> Point:
    """Return the text as it was at a position."""
    found, text = await service.point(services, caller, session_id, document_id, max(0, position))
    return Point(position=found, text=text)


@router.get("/versions", operation_id="list_versions")
async def list_versions(session_id: str, services: ServicesDep, caller: CallerDep) -> Versions:
    """List the named versions."""
    return Versions(items=await versions.listed(services, caller, session_id))


@router.post("/versions", status_code=201, operation_id="make_version")
async def make_version(
    session_id: str, body: NewVersion, services: ServicesDep, caller: CallerDep
) -> Version:
    """Name the whole session as it is now, or a point of one file."""
    return await versions.make(
        services, caller, session_id, body.name, document_id=body.document_id, position=body.position
    )


@router.get("/versions/{version_id}", operation_id="get_version")
async def get_version(
    session_id: str, version_id: str, services: ServicesDep, caller: CallerDep
) -> VersionWithFiles:
    """Return a version and the files that were there."""
    return await versions.with_files(services, caller, session_id, version_id)


@router.delete("/versions/{version_id}", status_code=204, operation_id="delete_version")
async def delete_version(session_id: str, version_id: str, services: ServicesDep, caller: CallerDep) -> None:
    """Forget a version's name; the history stays."""
    await versions.delete(services, caller, session_id, version_id)


@router.get(
    "/versions/{version_id}/files/{path:path}", operation_id="read_version_file", response_class=Response
)
async def read_version_file(
    session_id: str, version_id: str, path: str, services: ServicesDep, caller: CallerDep
) -> Response:
    """Return a file's bytes as they were, in a way that no browser runs them."""
    node, text = await versions.file_at(services, caller, session_id, version_id, path)
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.rpartition('/')[2])}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "private, no-cache",
    }
    media_type = files.media_type_of(node)
    if node.kind == "text":
        return Response(text, headers=headers, media_type=media_type)
    blob = services.blobs.read(node.blob or "")
    first = await anext(blob, b"")  # a missing blob is said before the answer begins

    async def content() -> AsyncIterator[bytes]:
        yield first
        async for chunk in blob:
            yield chunk

    return StreamingResponse(content(), headers=headers, media_type=media_type)


@router.post("/versions/{version_id}/restore", operation_id="restore_version")
async def restore_version(
    session_id: str, version_id: str, services: ServicesDep, caller: CallerDep
) -> RestoredVersion:
    """Make all files what they were, by edits of the caller; says what it did."""
    return await versions.restore(services, caller, session_id, version_id)


def _changed(change: Change | None, undo_id: str | None) -> Changed:
    if change is None:
        return Changed(changed=False, undo_id=None, inserted=0, deleted=0)
    written, deleted = ranges(change.update)
    return Changed(
        changed=True,
        undo_id=undo_id,
        inserted=sum(end - start for _, start, end in written),
        deleted=sum(end - start for _, start, end in deleted),
    )
