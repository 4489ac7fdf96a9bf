"""Taking back an edit over several files: the inverse of each is kept for an hour and appended as a forward edit."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from atelier import documents, times
from atelier.auth import Action, Caller
from atelier.errors import NotFound
from atelier.files import queries
from atelier.files.store import allowed
from atelier.ids import document_key, new_id
from atelier.services import Services

_KEPT = times.HOUR


async def keep(services: Services, caller: Caller, session_id: str, inverses: Mapping[str, bytes]) -> str:
    """Keep the inverse updates by document id; returns the id that `undo` takes."""
    undo_id = new_id("und")
    packed = json.dumps(
        {name: base64.b64encode(update).decode() for name, update in inverses.items()}
    ).encode()
    async with services.db.begin() as db:
        await queries.forget_undos(db, times.now() - _KEPT)
        await queries.add_undo(
            db,
            id=undo_id,
            session_id=session_id,
            user_id=caller.user_id,
            updates=packed,
            created_at=times.now(),
        )
    return undo_id


async def undo(services: Services, caller: Caller, session_id: str, undo_id: str) -> int:
    """Take an edit back, once; returns the number of files. Edits that others made since then stay.

    Raises:
        NotFound: `undo_not_found`.
    """
    await allowed(services, caller, session_id, Action.EDIT)
    async with services.db.begin() as db:
        packed = await queries.take_undo(db, session_id, undo_id, caller.user_id)
    if packed is None:
        raise NotFound(
            "undo_not_found",
            "There is nothing to take back under this id: it was done, or is over an hour old.",
            next_step="Change the files by hand.",
        )
    inverses = json.loads(packed)
    for document_id, update in inverses.items():
        await documents.apply_update(
            services.log, document_key(session_id, document_id), caller.user_id, base64.b64decode(update)
        )
    return len(inverses)
