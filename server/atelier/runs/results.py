"""What a run leaves behind: files that go into the session, figures and other things to see that stay with the run.

Files that the program wrote go into the session as an edit of the person who ran it, if they may edit at that moment;
otherwise they only stay with the run. What a browser can show is kept with the run as it was then, since the file in
the session goes on: images, pages, tables, JSON. It goes when the run goes, and before that when newer runs of the
session need the room. Figures (`FIGURES`, where `plt.show()` and `fig.show()` put them) are never files of the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import structlog

from atelier import files
from atelier.auth import Caller
from atelier.errors import AtelierError, Forbidden, NotFound
from atelier.files import Given, LeftOut, Written
from atelier.runs import queries
from atelier.runs.schemas import RunFile, RunFiles, RunLeftOut
from atelier.sandbox import Collect, Collected
from atelier.services import Services

logger = structlog.get_logger(__name__)
FIGURES = ".atelier/figures/"
SHOWN = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
    ".html": "text/html",
    ".htm": "text/html",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".json": "application/json",
}
OTHER = "application/octet-stream"
# What the sandbox says it did not hand back, in words.
_REASONS = {
    "link": "Links are not taken over.",
    "hard_link": "It is one file with two names; neither is taken over.",
    "special": "It is no file: a pipe, a socket or a device.",
    "name": "Its name is not UTF-8, or too long.",
    "unreadable": "It could not be read.",
    "too_large": "It is larger than a file may be.",
    "too_many": "The run wrote more files than are taken over.",
    "too_much": "All files together are more than is taken over.",
    "too_deep": "It lies too many folders deep.",
}
_MOST_LEFT_OUT = 50


@dataclass(slots=True)
class Leavings:
    """What came out of a run's sandbox, until it is dealt with."""

    given: Given
    changed: dict[str, bytes | None] = field(default_factory=dict)
    collected: Collected | None = None


def asked_of(services: Services) -> Collect:
    """Return how much a run may hand back."""
    limits = services.limits
    return Collect(limits.run_files, limits.blob_bytes, limits.run_files_bytes)


async def settle(
    services: Services, caller: Caller, session_id: str, run_id: str, left: Leavings
) -> RunFiles | None:
    """Put a run's files where they belong; returns what to tell about them, None where there is nothing to tell."""
    collected = left.collected
    if collected is None or (not left.changed and collected.complete and not collected.count):
        return None
    found = RunFiles(complete=collected.complete, left_out_count=collected.count)
    for item in collected.left_out:
        found.left_out.append(RunLeftOut(path=item.path, code=item.code, reason=_REASONS.get(item.code, "")))
    ordinary = {path: data for path, data in left.changed.items() if not path.startswith(FIGURES)}
    written = await _write_back(services, caller, session_id, left.given, ordinary, found)
    if written is not None:
        found.deleted, found.undo_id = written.deleted, written.undo_id
        _leave_out(found, written.left_out)
    keeping = _Keeping(services.limits.run_shown_bytes)
    for path, data in sorted(
        left.changed.items(), key=lambda item: (not item[0].startswith(FIGURES), item[0])
    ):
        if data is not None:
            _tell(found, keeping, path, data, left.given, written)
    if keeping.rows:
        rows = [{"run_id": run_id, **row} for row in keeping.rows]
        async with services.db.begin() as db:
            await queries.add_files(db, rows)
            await queries.forget_shown(db, session_id, services.limits.session_shown_bytes)
    return found


async def _write_back(
    services: Services,
    caller: Caller,
    session_id: str,
    given: Given,
    ordinary: Mapping[str, bytes | None],
    found: RunFiles,
) -> Written | None:
    """Write into the session; None where that is not allowed or cannot be done just now."""
    if not ordinary:
        return Written()
    try:
        return await files.write_back(services, caller, session_id, given, ordinary)
    except (Forbidden, NotFound):
        found.not_written = "Whoever ran this may run but not edit, so its files stay with the run."
    except AtelierError as error:
        logger.warning("a run's files were not written", session=session_id, code=error.code)
        found.not_written = f"{error.detail} Its files stay with the run."
    return None


def _tell(
    found: RunFiles, keeping: _Keeping, path: str, data: bytes, given: Given, written: Written | None
) -> None:
    figure = path.startswith(FIGURES)
    place = None if written is None or figure else written.places.get(path)
    if not figure and written is not None and place is None:
        return  # left out, and said so
    media_type = SHOWN.get(PurePosixPath(path).suffix.lower(), OTHER)
    number = None
    if figure or place is None or media_type != OTHER:
        number = keeping.keep(path, media_type, data)
        if number is None and place is None:
            reason = "It is too large to stay with the run."
            _leave_out(found, [LeftOut(path, "too_large_to_show", reason)])
            return
    new = place in written.created if written is not None and place is not None else path not in given.nodes
    found.items.append(
        RunFile(
            path=path.removeprefix(FIGURES) if figure else path,
            kind="figure" if figure else "file",
            change="created" if figure or new else "changed",
            size=len(data),
            place=place,
            number=number,
            media_type=media_type,
        )
    )


def _leave_out(found: RunFiles, left_out: list[LeftOut]) -> None:
    found.left_out_count += len(left_out)
    for item in left_out[: max(0, _MOST_LEFT_OUT - len(found.left_out))]:
        found.left_out.append(RunLeftOut(path=item.path, code=item.code, reason=item.reason))


class _Keeping:
    """Rows of what stays with a run, within its bound."""

    def __init__(self, most: int) -> None:
        self._room = most
        self.rows: list[dict[str, Any]] = []

    def keep(self, path: str, media_type: str, data: bytes) -> int | None:
        """Keep a file and return its number; None when there is no room."""
        if len(data) > self._room:
            return None
        self._room -= len(data)
        number = len(self.rows) + 1
        self.rows.append(
            {
                "number": number,
                "path": path,
                "media_type": media_type,
                "size": len(data),
                "content": data,
            }
        )
        return number
