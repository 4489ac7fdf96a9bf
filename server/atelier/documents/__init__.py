"""Documents: what is in them, and edits that the server makes as a collaborator."""

from atelier.documents.compact import apart, compact_if_long, end_workers, is_long, size_of, waits
from atelier.documents.crdt import (
    EMPTY_STATE,
    EMPTY_UPDATE,
    TEXT,
    apply,
    check_state,
    decodes,
    difference,
    fold,
    is_valid,
    merged,
    poison,
    squashed,
    state_of,
    text_in,
    validate,
)
from atelier.documents.edits import Change, Patch, Span, merged_spans, read_map, spans_between
from atelier.documents.lib0 import sized, uint
from atelier.documents.past import NOBODY, let_go
from atelier.documents.recover import examine, rebuilt
from atelier.documents.service import (
    apply_update,
    change_map,
    change_text,
    map_of,
    map_update,
    set_text,
    text_of,
    whole,
)
from atelier.documents.shape import Range, ranges
from atelier.documents.split import PART_BYTES, split
from atelier.documents.state import State
from atelier.documents.waiting import compact_regularly, compact_waiting

__all__ = [
    "EMPTY_STATE",
    "EMPTY_UPDATE",
    "NOBODY",
    "PART_BYTES",
    "TEXT",
    "Change",
    "Patch",
    "Range",
    "Span",
    "State",
    "apart",
    "apply",
    "apply_update",
    "change_map",
    "change_text",
    "check_state",
    "compact_if_long",
    "compact_regularly",
    "compact_waiting",
    "decodes",
    "difference",
    "end_workers",
    "examine",
    "fold",
    "is_long",
    "is_valid",
    "let_go",
    "map_of",
    "map_update",
    "merged",
    "merged_spans",
    "poison",
    "ranges",
    "read_map",
    "rebuilt",
    "set_text",
    "size_of",
    "sized",
    "spans_between",
    "split",
    "squashed",
    "state_of",
    "text_in",
    "text_of",
    "uint",
    "validate",
    "waits",
    "whole",
]
