"""Points of a document: steps between two of them, and an update that takes some edits back. Pure.

pycrdt counts in UTF-8 bytes, browsers in UTF-16 units; the conversion for playback happens here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pycrdt import Doc, IdSet, StackItem, Text, TextEvent, TransactionEvent, UndoManager

from atelier.documents import EMPTY_UPDATE, TEXT, Change, State, apply, fold, ranges
from atelier.history.bursts import Ledger
from atelier.history.spans import Spans
from atelier.log import Entry

Part = tuple[int, int, str]
"""Where (after the changes before it), how many units go, what comes; in UTF-16 units."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one edit did to the text."""

    position: int
    at: int
    author: str
    changes: list[Part]


def steps(base: bytes, entries: Sequence[Entry], *, most: int) -> tuple[str, list[Step]]:
    """Return a document's text, and what each of the following edits did to it, until `most` characters came in."""
    doc: Doc[Any] = Doc(skip_gc=True)
    text = doc.get(TEXT, type=Text)
    apply(doc, base)
    before = str(text)
    found: list[Step] = []
    shown = _Units(before)
    deltas: list[list[dict[str, Any]]] = []

    def changed(event: TextEvent) -> None:
        deltas.append(event.delta)  # type: ignore[attr-defined]  # it is there; the stub lacks it

    subscription = text.observe(changed)
    size, late = 0, False
    expected = State()
    expected.add(ranges(base)[0])
    for entry in entries:
        deltas.clear()
        expected.add(ranges(entry.edit.update)[0])
        try:
            apply(doc, entry.edit.update)
        except ValueError:
            deltas.clear()  # it does not fit its document, and is left out there too
        changes = [change for delta in deltas for change in shown.apply(delta)]
        found.append(Step(entry.position, entry.edit.at, entry.edit.author, changes))
        late = late or expected.waits
        size += sum(len(new) for _, _, new in changes)
        if size > most:
            break
    text.unobserve(subscription)
    if shown.text != str(text).encode() or late:
        return before, _compared(base, entries[: len(found)])
    return before, found


class _Units:
    """A text in UTF-8 that deltas are applied to; says what they do in UTF-16 units."""

    def __init__(self, text: str) -> None:
        self.text = bytearray(text.encode())
        self._ascii = text.isascii()

    def apply(self, delta: list[dict[str, Any]]) -> list[Part]:
        changes: list[Part] = []
        at = 0
        gone = 0
        for part in delta:
            if "retain" in part:
                at += int(part["retain"])
            elif "delete" in part:
                end = at + int(part["delete"])
                changes.append((self._units(0, at), self._units(at, end), ""))
                del self.text[at:end]
                gone = len(changes)
            elif isinstance(part.get("insert"), str):
                new = part["insert"]
                self._ascii = self._ascii and new.isascii()
                if gone == len(changes) and changes and changes[-1][0] == self._units(0, at):
                    place, units, old = changes[-1]
                    changes[-1] = (place, units, old + new)  # a replacement is one change
                else:
                    changes.append((self._units(0, at), 0, new))
                data = new.encode()
                self.text[at:at] = data
                at += len(data)
        return changes

    def _units(self, start: int, end: int) -> int:
        if self._ascii:
            return min(end, len(self.text)) - start
        return units(self.text[start:end].decode(errors="replace"))


def units(text: str) -> int:
    """Return a text's length in UTF-16 units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def _compared(base: bytes, entries: Sequence[Entry]) -> list[Step]:
    """Do the same by comparing whole texts: slower, and right also for what is no plain text or came out of order.

    What comes ahead of a gap is not handed to a document: yrs does not always look at it again when the gap is filled,
    and sometimes shows it before. Merged, everything finds its place.
    """
    doc = _doc_of([base])
    updates, expected = [base], State()
    expected.add(ranges(base)[0])
    old, found = str(doc.get(TEXT, type=Text)), []
    for entry in entries:
        updates.append(entry.edit.update)
        waited = expected.waits
        expected.add(ranges(entry.edit.update)[0])
        try:
            if waited or expected.waits:
                doc = _doc_of(updates)
            else:
                apply(doc, entry.edit.update)
        except ValueError:
            updates.pop()
        new = str(doc.get(TEXT, type=Text))
        found.append(Step(entry.position, entry.edit.at, entry.edit.author, _middle(old, new)))
        old = new
    return found


def _doc_of(updates: list[bytes]) -> Doc[Any]:
    doc: Doc[Any] = Doc(skip_gc=True)
    apply(doc, fold(updates))
    return doc


def _middle(old: str, new: str) -> list[Part]:
    if old == new:
        return []
    shortest = min(len(old), len(new))
    head = _agreeing(shortest, lambda n: old[:n] == new[:n])
    tail = _agreeing(shortest - head, lambda n: n == 0 or old[-n:] == new[-n:])
    return [(units(old[:head]), units(old[head : len(old) - tail]), new[head : len(new) - tail])]


def _agreeing(most: int, agree: Callable[[int], bool]) -> int:
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if agree(middle):
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(frozen=True, slots=True)
class Choice:
    """Edits to take back: of one person, or of anybody (None); positions are included."""

    author: str | None
    first: int
    last: int

    def __contains__(self, entry: Entry) -> bool:
        return self.first <= entry.position <= self.last and self.author in (None, entry.edit.author)


def taken_back(base: bytes, entries: Sequence[Entry], choice: Choice, now: bytes) -> Change | None:
    """Return the change of `now` that takes the chosen entries back; None when nothing of them is left.

    What they wrote goes; what they deleted comes back where it was, unless somebody else deleted it too. Text of others
    stays, also in the middle of what goes.

    Args:
        base: The document before the first of the entries.
        entries: Every edit after that.
        choice: Which of them to take back.
        now: The document with all of them.
    """
    ledger = Ledger(base)
    written, deleted, kept_deleted = Spans(), Spans(), Spans()
    for entry in entries:
        effect = ledger.take(entry.edit.update)
        if entry in choice:
            written.add_all(effect.written)
            deleted.add_all(effect.deleted)
        else:
            kept_deleted.add_all(effect.again)
    # What was written and deleted by the same edits is neither.
    coming = deleted.without(kept_deleted).without(written)
    going = written.without(ledger.deleted)
    if not coming and not going:
        return None
    doc: Doc[Any] = Doc(skip_gc=True)
    text = doc.get(TEXT, type=Text)
    apply(doc, now)
    coming_ids, going_ids = IdSet.decode(coming.encode()), IdSet.decode(going.encode())
    item: StackItem[Any] = StackItem(doc, coming_ids, going_ids)  # type: ignore[arg-type]  # the stub is wrong
    undo = UndoManager(scopes=[text], undo_stack=[item])
    updates: list[bytes] = []

    def keep(event: TransactionEvent) -> None:
        updates.append(bytes(event.update))

    subscription = doc.observe(keep)
    undo.undo()
    undo.redo()
    doc.unobserve(subscription)
    if not updates or updates[0] == EMPTY_UPDATE:
        return None
    return Change(updates[0], updates[1] if len(updates) > 1 else EMPTY_UPDATE)
