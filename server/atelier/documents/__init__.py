"""Documents: what is in them, and edits that the server makes as a collaborator."""

from atelier.documents.crdt import (
    EMPTY_STATE,
    EMPTY_UPDATE,
    check_state,
    difference,
    fold,
    merged,
    state_of,
    validate,
)
from atelier.documents.edits import Change, Patch, Span, spans_between
from atelier.documents.service import (
    apply_update,
    change_map,
    change_text,
    compact_if_long,
    map_of,
    set_text,
    text_of,
    whole,
)

__all__ = [
    "EMPTY_STATE",
    "EMPTY_UPDATE",
    "Change",
    "Patch",
    "Span",
    "apply_update",
    "change_map",
    "change_text",
    "check_state",
    "compact_if_long",
    "difference",
    "fold",
    "map_of",
    "merged",
    "set_text",
    "spans_between",
    "state_of",
    "text_of",
    "validate",
    "whole",
]
