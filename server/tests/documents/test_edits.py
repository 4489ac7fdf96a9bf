"""Edits that the server makes as a collaborator: any Unicode, concurrent with anybody, and taken back alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Doc, Text

from atelier.documents import (
    EMPTY_UPDATE,
    apply_update,
    change_map,
    change_text,
    compact_if_long,
    fold,
    map_of,
    merged_spans,
    set_text,
    size_of,
    spans_between,
    text_of,
    whole,
)
from atelier.documents.crdt import text_in
from atelier.documents.edits import change_text as change
from atelier.errors import Invalid, TooLarge
from atelier.log import Edit, Log, open_log

KEY = "ses_a:doc_b"
AWKWARD = st.sampled_from(
    [
        "😀",
        "👩‍👩‍👧",
        "e\u0301",
        "\u0301",
        "🇺🇦",
        "漢",
        "\u2028",
        "\x0b",
        "\0",
        "\ufeff",
        "é",
        "\n",
        "a",
        "b",
        " ",
    ]
)
TEXTS = st.lists(
    AWKWARD | st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=30
).map("".join)


@pytest_asyncio.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    """An empty log."""
    async with open_log(f"sqlite:///{tmp_path}/log.db") as opened:
        yield opened


def made(text: str) -> bytes:
    """A document with this text, as one update."""
    found = change(EMPTY_UPDATE, lambda _: [(0, 0, text)])
    assert found is not None
    return found.update


@given(TEXTS, TEXTS)
def test_the_spans_between_two_texts_make_one_the_other(old: str, new: str) -> None:
    spans = spans_between(old, new)
    text = old
    for start, end, put in sorted(spans, reverse=True):
        text = text[:start] + put + text[end:]
    assert text == new
    assert spans == [] or old != new


@given(TEXTS, TEXTS)
def test_a_text_becomes_exactly_another_and_its_inverse_brings_it_back(old: str, new: str) -> None:
    before = made(old)
    done = change(before, lambda text: spans_between(text, new))
    if done is None:
        assert old == new
        return
    assert text_in(fold([before, done.update])) == new
    assert text_in(fold([before, done.update, done.inverse])) == old


@given(TEXTS, TEXTS, TEXTS)
@settings(max_examples=60)
def test_concurrent_edits_converge_in_any_order(base: str, one: str, two: str) -> None:
    start = made(base)
    edits = [change(start, lambda text, new=new: spans_between(text, new)) for new in (one, two)]  # type: ignore[misc]
    updates = [edit.update for edit in edits if edit is not None]
    assert text_in(fold([start, *updates])) == text_in(fold([start, *reversed(updates)]))
    assert text_in(fold([*updates, start])) == text_in(fold([start, *updates]))


@given(TEXTS, st.text("xyz", min_size=1, max_size=5))
@settings(max_examples=60)
def test_an_inverse_takes_back_its_own_edit_and_nobody_else_s(base: str, theirs: str) -> None:
    start = made(base)
    own = change(start, lambda text: [(0, 0, "OWN")])
    assert own is not None
    between = fold([start, own.update])
    other = change(between, lambda text: [(len(text), len(text), theirs)])
    assert other is not None
    assert text_in(fold([between, other.update, own.inverse])) == base + theirs


@given(TEXTS.filter(lambda text: len(text) > 2), st.data())
@settings(max_examples=60)
def test_a_small_change_is_a_small_edit_and_keeps_what_others_write_meanwhile(text: str, data: Any) -> None:
    at = data.draw(st.integers(0, len(text)))
    start = made(text)
    done = change(start, lambda old: spans_between(old, text[:at] + "NEW" + text[at:]))
    other = change(start, lambda old: [(0, 0, "other ")])
    assert done is not None
    assert other is not None
    both = text_in(fold([start, done.update, other.update]))
    assert "NEW" in both
    assert "other " in both or at == 0
    assert len(both) == len(text) + 9


@pytest.mark.parametrize("ends", ["\r\n", "\r", "\n"])
async def test_line_ends_become_line_feeds(log: Log, ends: str) -> None:
    await set_text(log, KEY, "usr_a", ends.join(["a", "b", ""]))
    assert await text_of(log, KEY) == "a\nb\n"
    assert await set_text(log, KEY, "usr_a", ends.join(["a", "b", ""])) is None


async def test_a_text_of_many_lines_is_set_in_one_edit(log: Log) -> None:
    lines = [f"line {n} 😀" for n in range(6_000)]
    await set_text(log, KEY, "usr_a", "\n".join(lines))
    lines[3_000] = "another"
    done = await set_text(log, KEY, "usr_b", "\n".join(lines))
    assert done is not None
    assert len(done.update) < 200
    assert await text_of(log, KEY) == "\n".join(lines)


async def test_two_who_set_a_text_at_once_both_get_in(log: Log) -> None:
    await set_text(log, KEY, "usr_a", "one\ntwo\nthree\n")
    await asyncio.gather(
        set_text(log, KEY, "usr_a", "ONE\ntwo\nthree\n"), set_text(log, KEY, "usr_b", "one\ntwo\nTHREE\n")
    )
    assert await text_of(log, KEY) == "ONE\ntwo\nTHREE\n"
    assert [entry.edit.author for entry in (await log.read(KEY)).tail][:1] == ["usr_a"]


async def test_nothing_to_change_appends_nothing(log: Log) -> None:
    assert await change_text(log, KEY, "usr_a", lambda _: []) is None
    assert await change_map(log, KEY, "usr_a", "files", lambda _: {}) is None
    assert (await log.read(KEY)).tail == ()


async def test_map_entries_are_made_changed_and_taken_away_and_back(log: Log) -> None:
    made_ = await change_map(
        log, KEY, "usr_a", "files", lambda _: {"f": {"path": "a 😀", "size": 3, "blob": True}}
    )
    assert made_ is not None
    assert await map_of(log, KEY, "files") == {"f": {"path": "a 😀", "size": 3, "blob": True}}
    moved = await change_map(log, KEY, "usr_a", "files", lambda _: {"f": {"path": "b", "size": None}})
    assert moved is not None
    assert await map_of(log, KEY, "files") == {"f": {"path": "b", "blob": True}}
    await apply_update(log, KEY, "usr_a", moved.inverse)
    assert await map_of(log, KEY, "files") == {"f": {"path": "a 😀", "size": 3, "blob": True}}
    gone = await change_map(log, KEY, "usr_a", "files", lambda _: {"f": None, "never was": None})
    assert gone is not None
    assert await map_of(log, KEY, "files") == {}
    await apply_update(log, KEY, "usr_a", gone.inverse)
    assert (await map_of(log, KEY, "files"))["f"]["path"] == "a 😀"


async def test_two_fields_of_one_entry_changed_at_once_are_both_kept(log: Log) -> None:
    await change_map(log, KEY, "usr_a", "files", lambda _: {"f": {"path": "a", "kind": "text"}})
    await asyncio.gather(
        change_map(log, KEY, "usr_a", "files", lambda _: {"f": {"path": "b"}}),
        change_map(log, KEY, "usr_b", "files", lambda _: {"f": {"trashed": True}, "g": {"path": "g"}}),
    )
    assert await map_of(log, KEY, "files") == {
        "f": {"path": "b", "kind": "text", "trashed": True}, "g": {"path": "g"},
    }  # fmt: skip


async def test_a_poison_update_never_enters_the_log(log: Log) -> None:
    for poison in (b"", b"\x05poison", b"\x01", bytes(3)[:1], made("x")[:-1]):
        with pytest.raises(Invalid) as refused:
            await apply_update(log, KEY, "usr_a", poison)
        assert refused.value.code == "poison_update"
    assert (await log.read(KEY)).tail == ()


async def test_a_long_tail_is_compacted_and_reads_the_same(log: Log) -> None:
    doc: Doc[Any] = Doc()
    text = doc.get("content", type=Text)
    updates: list[bytes] = []
    doc.observe(lambda event: updates.append(bytes(event.update)))
    for n in range(500):
        text.insert(0, f"{n}é ")
        if n % 7 == 0:
            del text[0:1]
    await log.append(KEY, [Edit(update, "usr_a", 1) for update in updates])
    before = str(text)
    with pytest.raises(TooLarge) as refused:
        await compact_if_long(log, KEY, most_bytes=10)
    assert refused.value.code == "document_too_large"
    assert not await compact_if_long(log, KEY, most_bytes=10**6)
    stored = await log.read(KEY)
    assert stored.tail == ()
    assert 0 < size_of(stored) < sum(map(len, updates))
    assert await text_of(log, KEY) == before
    assert (await whole(log, KEY))[1] == stored.snapshot.position


def spliced(text: str, spans: list[tuple[int, int, str]]) -> str:
    assert all(a[1] <= b[0] for a, b in pairwise(spans)), "in order, and none over another"
    for start, end, new in reversed(spans):
        text = text[:start] + new + text[end:]
    return text


@pytest.mark.parametrize(
    ("base", "wrote", "now", "expected"),
    [
        ("a = 1\nb = 2\n", "a = 1\nb = 3\n", "# new\na = 1\nb = 2\n", "# new\na = 1\nb = 3\n"),
        ("count = 1\n", "count = 2\n", "  count = 1 # a\n", "  count = 2 # a\n"),
        ("log\n", "log\nrow\n", "log\ntyped", "log\nrow\ntyped"),
        ("one\ntwo\nthree\n", "", "one\ntwo and more\nthree\n", " and more"),
        ("one\ntwo\n", "one\n2\n", "one\n", "one\n2"),
        ("same", "other", "other", "other"),
        ("", "made", "typed", "madetyped"),
    ],
)
def test_what_was_written_is_merged_with_what_was_typed(
    base: str, wrote: str, now: str, expected: str
) -> None:
    assert spliced(now, merged_spans(base, wrote, now)) == expected


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS, TEXTS)
def test_a_merge_is_exact_alone_and_loses_nothing_that_was_typed(base: str, wrote: str, now: str) -> None:
    assert spliced(base, merged_spans(base, wrote, base)) == wrote
    assert merged_spans(base, base, now) == []
    assert spliced(now, merged_spans(now, now + wrote, now)) == now + wrote
    # What somebody typed in between, in characters that are nowhere else, is all there, in its order.
    typed = "".join(f"{character}\u2603" for character in base) + "\u2603"
    merged = spliced(typed, merged_spans(base, wrote, typed))
    assert merged.count("\u2603") == len(base) + 1
    assert spliced(typed.replace("\u2603", ""), merged_spans(base, wrote, base)) == wrote
