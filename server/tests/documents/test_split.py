"""Documents in parts: applied one after the other they are the document, none stands beside what a later one brings,
and what a returning client has is not sent again."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pycrdt import Doc, Map, Text

from atelier.documents import EMPTY_UPDATE, State, difference, fold, ranges, split, text_in
from atelier.documents.shape import is_keystroke
from atelier.documents.state import decode

LETTERS = "abc é😀\n漢"


def story(seed: int, steps: int = 300, writers: int = 3) -> list[bytes]:
    """Updates of people who type, paste and delete, and hear of each other now and then."""
    draw = random.Random(seed)
    docs: list[Doc[Any]] = [Doc() for _ in range(writers)]
    sent: list[bytes] = []
    own: list[list[bytes]] = [[] for _ in docs]
    subscriptions = [
        doc.observe(lambda event, n=n: own[n].append(bytes(event.update))) for n, doc in enumerate(docs)
    ]
    heard = [0] * writers
    for _ in range(steps):
        n = draw.randrange(writers)
        if draw.random() < 0.3:
            for update in sent[heard[n] :]:
                docs[n].apply_update(update)
            heard[n] = len(sent)
        own[n].clear()
        text = docs[n].get("content", type=Text)
        now = str(text)
        place = draw.randint(0, len(now)) if draw.random() < 0.4 else len(now)
        at = len(now[:place].encode())
        if draw.random() < 0.2 and place < len(now):
            del text[at : at + len(now[place].encode())]
        elif draw.random() < 0.05:
            docs[n].get("files", type=Map)[draw.choice("xyz")] = {"path": "a" * draw.randint(0, 60)}
        else:
            text.insert(at, "".join(draw.choice(LETTERS) for _ in range(draw.choice((1, 1, 1, 40)))))
        sent += own[n]
    assert len(subscriptions) == writers
    return sent


def clocks(state: bytes) -> dict[int, int]:
    """Read a state vector, whatever its order; a client of whom only what comes later is known has nothing yet."""
    return {client: clock for client, clock in decode(state).items() if clock}


def whole(updates: list[bytes]) -> Doc[Any]:
    doc: Doc[Any] = Doc(skip_gc=True)
    for update in updates:
        doc.apply_update(update)
    return doc


@pytest.mark.parametrize("most", [60, 400, 3_000])
@pytest.mark.parametrize("seed", range(12))
def test_the_parts_are_the_document_and_each_can_be_applied_when_it_comes(seed: int, most: int) -> None:
    updates = story(seed)
    expected = whole(updates)
    parts = split(fold(updates), most)
    assert len(parts) > 1
    doc: Doc[Any] = Doc(skip_gc=True)
    known = State()
    for part in parts:
        doc.apply_update(part.update)
        known.add(ranges(part.update)[0])
        # Nothing waits for a later part: what Yjs has is what came.
        assert clocks(bytes(doc.get_state())) == clocks(known.encode())
    assert clocks(bytes(doc.get_state())) == clocks(bytes(expected.get_state()))
    assert str(doc.get("content", type=Text)) == str(expected.get("content", type=Text))
    assert doc.get("files", type=Map).to_py() == expected.get("files", type=Map).to_py()


@pytest.mark.parametrize("seed", range(12, 24))
def test_a_returning_client_gets_what_it_lacks_and_no_part_that_it_has(seed: int) -> None:
    updates = story(seed)
    draw = random.Random(seed)
    had = whole(updates[: draw.randrange(len(updates))])
    state = bytes(had.get_state())
    parts = split(fold(updates), 400)
    skipped = 0
    for part in parts:
        if State(state).covers(part.ends):
            skipped += 1
            assert not [found for found in ranges(difference(part.update, state))[0] if found[1] < found[2]]
            continue
        had.apply_update(difference(part.update, state))
    assert str(had.get("content", type=Text)) == str(whole(updates).get("content", type=Text))
    assert clocks(bytes(had.get_state())) == clocks(bytes(whole(updates).get_state()))
    assert skipped < len(parts)


def test_a_string_that_is_longer_than_a_part_is_cut_between_characters() -> None:
    doc: Doc[Any] = Doc()
    text = doc.get("content", type=Text)
    text += "é😀ab漢" * 3_000
    update = bytes(doc.get_update())
    parts = split(update, 1_000)
    assert max(len(part.update) for part in parts) < 1_200
    again = whole([part.update for part in parts])
    assert str(again.get("content", type=Text)) == str(text)
    assert again.get_state() == doc.get_state()
    # Any of them alone decodes, too.
    for part in parts:
        Doc().apply_update(part.update)


@pytest.mark.parametrize("seed", range(24, 34))
def test_a_state_kept_up_to_date_is_what_yjs_says_in_whatever_order_updates_come(seed: int) -> None:
    updates = story(seed)
    expected = bytes(whole(updates).get_state())
    state = State()
    for update in updates:
        state.add(ranges(update)[0])
    assert clocks(state.encode()) == clocks(expected)
    shuffled = random.Random(seed).sample(updates, len(updates))
    state = State()
    for number, update in enumerate(shuffled):
        state.add(ranges(update)[0])
        if number % 40 == 0:
            # Ours counts what is there without a gap; Yjs waits for what it stands beside, too.
            ours = clocks(state.encode())
            theirs = clocks(bytes(whole(shuffled[: number + 1]).get_state()))
            assert all(ours.get(client, 0) >= clock for client, clock in theirs.items())
    assert clocks(state.encode()) == clocks(expected)


@pytest.mark.parametrize("seed", range(34, 40))
def test_what_is_taken_for_a_keystroke_decodes(seed: int) -> None:
    updates = story(seed)
    assert sum(map(is_keystroke, updates)) > len(updates) // 3
    draw = random.Random(seed)
    for update in updates:
        if is_keystroke(update):
            Doc().apply_update(update)
        broken = bytearray(update)
        broken[draw.randrange(len(broken))] ^= 1 << draw.randrange(8)
        if is_keystroke(bytes(broken)):  # what passes must never be refused by Yjs
            Doc().apply_update(bytes(broken))


def test_nothing_has_no_parts_that_say_something() -> None:
    assert [part.update for part in split(EMPTY_UPDATE)] == [EMPTY_UPDATE]
    assert text_in(EMPTY_UPDATE) == ""
