"""Yjs updates in Python: decoding, merging, differences. The only module that imports pycrdt, with `edits.py`.

Traps that shape this file: `Doc.get_update()` leaves out structs and deletions that wait for a missing update, so they
are added back as the residue; `merge_updates` is quadratic, so updates are folded 32 at a time; deleted content is
kept (`skip_gc`), since undo, history and attribution read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from pycrdt import Doc, Text, get_update, merge_updates

from atelier.documents.shape import DEEPEST, announces_too_much, is_keystroke, is_sane
from atelier.documents.state import decode, encode
from atelier.errors import Invalid
from atelier.log import Stored

logger = structlog.get_logger(__name__)
EMPTY_UPDATE = b"\x00\x00"
EMPTY_STATE = b"\x00"
TEXT = "content"
_FOLD = 32


def is_valid(update: bytes) -> bool:
    """Say whether bytes decode as a Yjs update, and safely so; costs a microsecond for a keystroke."""
    if is_keystroke(update):
        return True
    try:
        if is_sane(update):
            # A state vector can be had of an update whose rest does not decode; applying it reads all of it.
            Doc(skip_gc=True).apply_update(update)
            return True
    except ValueError:
        pass
    return False


def validate(update: bytes) -> None:
    """Check an update.

    Raises:
        Invalid: `poison_update`.
    """
    if not is_valid(update):
        raise poison()


def poison() -> Invalid:
    """Return the error of an update that does not decode."""
    return Invalid(
        "poison_update",
        f"These bytes are not a Yjs update (version 1) whose values nest at most {DEEPEST} levels.",
        next_step="Reload the page; your text is kept in the browser.",
    )


def check_state(state: bytes) -> None:
    """Check that bytes decode as a state vector.

    Raises:
        Invalid: `bad_state_vector`.
    """
    try:
        if announces_too_much(state, 2):
            raise ValueError
        get_update(EMPTY_UPDATE, state)
    except ValueError:
        raise Invalid(
            "bad_state_vector", "These bytes are not a Yjs state vector.", next_step="Reload the page."
        ) from None


def fold(updates: Sequence[bytes]) -> bytes:
    """Merge updates in order, as a tree of 32; the result holds everything, also what waits for a missing update."""
    if not updates:
        return EMPTY_UPDATE
    level = list(updates)
    while len(level) > 1:
        level = [
            merge_updates(*level[i : i + _FOLD]) if i + 1 < len(level) else level[i]
            for i in range(0, len(level), _FOLD)
        ]
    return level[0]


def merged(stored: Stored) -> bytes:
    """Return a whole document as one update that decodes.

    Updates that decode alone can merge into bytes that do not: when somebody's client claims other content under ids
    that are taken. Then they are applied one by one, in the order of the log, and one that does not fit is left out.
    """
    parts = [segment.update for segment in stored.snapshot.segments]
    parts += [entry.edit.update for entry in stored.tail]
    try:
        whole = fold(parts)
        if len(parts) > 1:
            Doc(skip_gc=True).apply_update(whole)
        return whole
    except ValueError:
        return _one_by_one(parts)


def _one_by_one(updates: Sequence[bytes]) -> bytes:
    doc: Doc[Any] = Doc(skip_gc=True)
    for number, update in enumerate(updates):
        try:
            doc.apply_update(update)
        except ValueError:
            logger.warning(
                "an update does not fit its document and is left out", number=number, bytes=len(update)
            )
    return bytes(doc.get_update())


def difference(update: bytes, state: bytes) -> bytes:
    """Return what of `update` a client at `state` lacks."""
    return get_update(update, state)


def state_of(update: bytes) -> bytes:
    """Return the state vector of a document that has applied `update` and nothing else, byte for byte as Yjs has it."""
    doc: Doc[Any] = Doc(skip_gc=True)
    doc.apply_update(update)
    return encode({client: clock for client, clock in decode(doc.get_state()).items() if clock})


def squashed(update: bytes) -> bytes:
    """Encode a document anew and check that decoding gives the same state and text.

    Raises:
        RuntimeError: what was encoded is not what was there; nothing must be trimmed then.
    """
    doc: Doc[Any] = Doc(skip_gc=True)
    doc.apply_update(update)
    state = bytes(doc.get_state())
    encoded = bytes(doc.get_update())
    # What waits for a missing update: structs, and deletions of structs that have not come yet.
    residue = get_update(update, state)
    if residue != EMPTY_UPDATE:
        encoded = merge_updates(encoded, residue)
    again: Doc[Any] = Doc(skip_gc=True)
    again.apply_update(encoded)
    if again.get_state() != state or _text(again) != _text(doc):
        raise RuntimeError("a compacted document is not what was there before")
    return encoded


def text_in(update: bytes) -> str:
    """Return the text of a document given as one update."""
    doc: Doc[Any] = Doc(skip_gc=True)
    doc.apply_update(update)
    return _text(doc)


def _text(doc: Doc[Any]) -> str:
    return str(doc.get(TEXT, type=Text))
