"""Yjs updates in Python: decoding, merging, differences. The only module that imports pycrdt, with `edits.py`.

Traps that shape this file: `Doc.get_update()` leaves out structs and deletions that wait for a missing update, so they
are added back as the residue; `merge_updates` is quadratic, so updates are folded 32 at a time; deleted content is
kept (`skip_gc`) wherever history reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from pycrdt import Doc, Text, get_update, merge_updates

from atelier.documents.shape import DEEPEST, announces_too_much, check, is_keystroke, is_sane
from atelier.documents.state import decode, encode
from atelier.errors import Invalid
from atelier.log import Stored

logger = structlog.get_logger(__name__)
EMPTY_UPDATE = b"\x00\x00"
EMPTY_STATE = b"\x00"
TEXT = "content"
_FOLD = 32


def apply(doc: Doc[Any], update: bytes) -> None:
    """Apply an update.

    Raises:
        ValueError: it does not decode, or does not fit the document. After a panic of the library, which is no
            Exception, the document is of no more use.
    """
    with _guarded():
        doc.apply_update(update)


@contextmanager
def _guarded() -> Iterator[None]:
    try:
        yield
    except ValueError:
        raise
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    except Exception:
        raise
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise Panicked(str(error)) from error


class Panicked(ValueError):
    """The library below gave up in the middle of its work."""


def is_valid(update: bytes) -> bool:
    """Say whether Yjs and we can decode what somebody sent; costs a microsecond for a keystroke.

    Stricter than `decodes`: yrs takes ids and numbers that no JavaScript number can hold, on which every browser that is
    sent them throws.
    """
    if is_keystroke(update):
        return True
    try:
        check(update)
    except (IndexError, ValueError, RecursionError):
        return False
    return decodes(update)


def decodes(update: bytes) -> bool:
    """Say whether bytes decode as a Yjs update, and safely so."""
    try:
        if is_sane(update):
            # A state vector can be had of an update whose rest does not decode; applying it reads all of it.
            apply(Doc(skip_gc=True), update)
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
    with _guarded():
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
            apply(Doc(skip_gc=True), whole)
        return whole
    except ValueError:
        return _one_by_one(parts)


def _one_by_one(updates: Sequence[bytes]) -> bytes:
    doc: Doc[Any] = Doc(skip_gc=True)
    taken: list[bytes] = []
    for number, update in enumerate(updates):
        try:
            apply(doc, update)
            taken.append(update)
        except ValueError as error:
            logger.warning(
                "an update does not fit its document and is left out", number=number, bytes=len(update)
            )
            if isinstance(error, Panicked):
                doc = Doc(skip_gc=True)
                for before in taken:
                    apply(doc, before)
    return bytes(doc.get_update())


def difference(update: bytes, state: bytes) -> bytes:
    """Return what of `update` a client at `state` lacks."""
    with _guarded():
        return get_update(update, state)


def state_of(update: bytes) -> bytes:
    """Return the state vector of a document that has applied `update` and nothing else, byte for byte as Yjs has it."""
    doc: Doc[Any] = Doc(skip_gc=True)
    apply(doc, update)
    return encode({client: clock for client, clock in decode(doc.get_state()).items() if clock})


def squashed(update: bytes, *, whole_history: bool = True) -> bytes:
    """Encode a document anew, with the content that was deleted or without, and check what decoding it gives.

    Raises:
        RuntimeError: what was encoded is not what was there; nothing must be trimmed then.
    """
    doc: Doc[Any] = Doc(skip_gc=whole_history)
    apply(doc, update)
    state = bytes(doc.get_state())
    encoded = bytes(doc.get_update())
    # What waits for a missing update: structs, and deletions of structs that have not come yet.
    residue = get_update(update, state)
    if residue != EMPTY_UPDATE:
        encoded = merge_updates(encoded, residue)
    again: Doc[Any] = Doc(skip_gc=True)
    apply(again, encoded)
    if again.get_state() != state or _text(again) != _text(doc):
        raise RuntimeError("a compacted document is not what was there before")
    return encoded


def text_in(update: bytes) -> str:
    """Return the text of a document given as one update."""
    doc: Doc[Any] = Doc(skip_gc=True)
    apply(doc, update)
    return _text(doc)


def _text(doc: Doc[Any]) -> str:
    return str(doc.get(TEXT, type=Text))
