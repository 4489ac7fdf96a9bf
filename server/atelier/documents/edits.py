"""Edits that the server makes itself, as a collaborator: a whole new text, spans of a text, entries of a map.

pycrdt counts in UTF-8 bytes, Yjs in UTF-16 units, people in characters; the conversion happens here and nowhere else.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

from pycrdt import Doc, Map, Text, TransactionEvent, UndoManager

from atelier.documents.crdt import TEXT, apply

_MOST_LINES = 4_000  # beyond this, a line diff costs more than sending the changed middle
_MOST_COMPARED = (
    1_000_000  # pairs of characters in all; beyond it a changed part counts as changed as a whole
)
_SIMPLE = (str, int, float, bool, NoneType)
Span = tuple[int, int, str]
"""Start and end (in characters of the old text) and what comes there instead."""
Patch = Mapping[str, Mapping[str, Any] | None]
"""Entries of a map to change: fields to set (None removes a field)."""


@dataclass(frozen=True, slots=True)
class Change:
    """A Yjs update and the one that takes it back, both relative to the document it was made on."""

    update: bytes
    inverse: bytes


def change_text(whole: bytes, spans_of: Callable[[str], Sequence[Span]]) -> Change | None:
    """Change a document's text by the spans that `spans_of` chooses; None when there are none."""
    doc: Doc[Any] = Doc(skip_gc=True)
    text = doc.get(TEXT, type=Text)
    apply(doc, whole)
    old = str(text)
    spans = sorted(spans_of(old))
    if not spans:
        return None

    def edit() -> None:
        for start, end, new in reversed(spans):
            first = len(old[:start].encode())
            last = first + len(old[start:end].encode())
            if last > first:
                del text[first:last]
            if new:
                text.insert(first, new)

    return _record(doc, text, edit)


def change_map(
    whole: bytes, name: str, decide: Callable[[dict[str, dict[str, Any]]], Patch]
) -> Change | None:
    """Change the entries of a root map by the patch that `decide` makes from its present content."""
    doc: Doc[Any] = Doc(skip_gc=True)
    root = doc.get(name, type=Map)
    apply(doc, whole)
    patch = decide(plain(root))
    if not patch:
        return None

    def edit() -> None:
        for key, fields in patch.items():
            if fields is None:
                root.pop(key, None)
            elif key in root and isinstance(root[key], Map):
                node = root[key]
                for field, value in fields.items():
                    if value is None:
                        node.pop(field, None)
                    else:
                        node[field] = _wire(value)
            else:
                root[key] = Map({field: _wire(value) for field, value in fields.items() if value is not None})

    return _record(doc, root, edit)


def read_map(whole: bytes, name: str) -> dict[str, dict[str, Any]]:
    """Return the entries of a root map that are maps themselves; anything else in it is not ours."""
    doc: Doc[Any] = Doc(skip_gc=True)
    root = doc.get(name, type=Map)
    apply(doc, whole)
    return plain(root)


def plain(root: Map[Any]) -> dict[str, dict[str, Any]]:
    """Turn a map of maps of simple values into dictionaries; whole numbers come back as int."""
    # Entry by entry: `to_py` recurses into whatever somebody has nested in there.
    found = {}
    with root.doc.transaction():
        for key, node in root.items():
            if isinstance(node, Map):
                fields = node.items()
                found[key] = {field: _plain(value) for field, value in fields if isinstance(value, _SIMPLE)}
    return found


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def spans_between(old: str, new: str) -> list[Span]:
    """Return a small set of spans that turn `old` into `new`: line by line, then the middle of each changed part."""
    if old == new:
        return []
    first, last = old.splitlines(keepends=True), new.splitlines(keepends=True)
    if max(len(first), len(last)) > _MOST_LINES:
        return [_trimmed(0, old, new)]
    starts = [0]
    for line in first:
        starts.append(starts[-1] + len(line))
    spans = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, first, last, autojunk=False).get_opcodes():
        if tag != "equal":
            spans.append(_trimmed(starts[a], old[starts[a] : starts[b]], "".join(last[c:d])))
    return spans


def merged_spans(base: str, wrote: str, now: str) -> list[Span]:
    """Return the spans that make of `now` what was made of `base` when it became `wrote`.

    What `now` has and `base` had not is never deleted, as when both had typed at the same time. Where both inserted at
    one place, what `wrote` has comes first.
    """
    if wrote == now:
        return []
    kept = _kept(base, now)
    spans: list[Span] = []
    for start, end, new in spans_between(base, wrote):
        gone = [
            (at + max(start, first) - first, at + min(end, last) - first)
            for first, last, at in kept
            if max(start, first) < min(end, last)
        ]
        place = _place(kept, start)
        if gone and gone[0][0] == place:
            place, to = gone.pop(0)
            spans.append((place, to, new))
        elif new:
            spans.append((place, place, new))
        spans.extend((first, last, "") for first, last in gone)
    return spans


def _kept(base: str, now: str) -> list[tuple[int, int, int]]:
    """Return which parts of `base` are in `now`: start, end, and where it begins there."""
    kept: list[tuple[int, int, int]] = []
    at = shift = 0
    left = _MOST_COMPARED
    for start, end, new in spans_between(base, now):
        kept.append((at, start, at + shift))
        old = base[start:end]
        if 0 < len(old) * len(new) <= left:
            left -= len(old) * len(new)
            matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
            for first, other, size in matcher.get_matching_blocks():
                kept.append((start + first, start + first + size, start + shift + other))
        at = end
        shift += len(new) - len(old)
    kept.append((at, len(base), at + shift))
    return [part for part in kept if part[0] < part[1]]


def _place(kept: Sequence[tuple[int, int, int]], start: int) -> int:
    """Return where a place of `base` is now: right after what stood before it."""
    place = 0
    for first, last, at in kept:
        if first >= start:
            break
        place = at + min(start, last) - first
    return place


def _trimmed(offset: int, old: str, new: str) -> Span:
    shortest = min(len(old), len(new))
    head = 0
    while head < shortest and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < shortest - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    return offset + head, offset + len(old) - tail, new[head : len(new) - tail]


def _record(doc: Doc[Any], scope: Text | Map[Any], edit: Callable[[], None]) -> Change:
    """Run `edit` in one transaction and then take it back, keeping the update of each."""
    updates: list[bytes] = []

    def keep(event: TransactionEvent) -> None:
        updates.append(bytes(event.update))

    undo = UndoManager(scopes=[scope], capture_timeout_millis=0)
    subscription = doc.observe(keep)
    with doc.transaction():
        edit()
    update = b"\x00\x00" if not updates else updates[0]
    updates.clear()
    undo.undo()
    doc.unobserve(subscription)
    return Change(update, updates[0] if updates else b"\x00\x00")


def _wire(value: Any) -> Any:
    # An int would arrive in JavaScript as a BigInt; a float that is whole arrives as a number.
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
