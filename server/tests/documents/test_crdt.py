"""Updates merged, squashed and compared: nothing that anybody wrote gets lost on the way, in whatever order it came."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Doc, Text, merge_updates

from atelier.documents import (
    EMPTY_STATE,
    EMPTY_UPDATE,
    check_state,
    difference,
    fold,
    merged,
    state_of,
    validate,
)
from atelier.documents.crdt import squashed, text_in
from atelier.errors import Invalid
from atelier.log import NOTHING, Edit, Entry, Segment, Snapshot, Stored


@dataclass
class Writer:
    """Somebody who writes; `updates` is what they sent."""

    doc: Doc[Any]
    text: Text
    updates: list[bytes]

    def hear(self, update: bytes) -> None:
        """Take in what somebody else sent."""
        sent = len(self.updates)
        self.doc.apply_update(update)
        del self.updates[sent:]


def writer(client: int | None = None) -> Writer:
    doc: Doc[Any] = Doc() if client is None else Doc(client_id=client)
    made = Writer(doc, doc.get("content", type=Text), [])
    doc.observe(lambda event: made.updates.append(bytes(event.update)))
    return made


def typed(*texts: str) -> Writer:
    ada = writer()
    for text in texts:
        ada.text += text
    return ada


def story(seed: int, steps: int = 40) -> list[bytes]:
    """What two people sent who heard of each other now and then."""
    dice = random.Random(seed)
    people = [writer(1_000), writer(2_000)]
    heard = [0, 0]
    for _ in range(steps):
        who = dice.randrange(2)
        ada, bob = people[who], people[1 - who]
        if dice.random() < 0.3:
            for update in bob.updates[heard[who] :]:
                ada.hear(update)
            heard[who] = len(bob.updates)
        if dice.random() < 0.3 and len(str(ada.text)) > 2:
            del ada.text[0:1]
        else:
            ada.text.insert(0, dice.choice("abc"))
    return [update for person in people for update in person.updates]


@given(st.integers(0, 10**6), st.integers(0, 90))
@settings(max_examples=40)
def test_folding_by_thirty_two_is_the_same_as_merging_at_once(seed: int, steps: int) -> None:
    updates = story(seed, steps)
    folded = fold(updates)
    if not updates:
        assert folded == EMPTY_UPDATE
        return
    flat = merge_updates(*updates) if len(updates) > 1 else updates[0]
    assert text_in(folded) == text_in(flat)
    assert state_of(folded) == state_of(flat)
    assert difference(folded, state_of(flat)) == difference(flat, state_of(folded))


@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_the_order_of_arrival_and_repeats_change_nothing(seed: int, dice: random.Random) -> None:
    updates = story(seed)
    shuffled = [*updates, *updates[:5]]
    dice.shuffle(shuffled)
    assert text_in(fold(shuffled)) == text_in(fold(updates))


@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_a_snapshot_made_while_updates_are_missing_loses_nothing_once_they_come(
    seed: int, dice: random.Random
) -> None:
    updates = story(seed, 25)
    late = set(dice.sample(range(len(updates)), k=len(updates) // 3))
    there = [update for n, update in enumerate(updates) if n not in late]
    snapshot = squashed(fold(there))
    again = squashed(snapshot)
    whole = fold([again, *(updates[n] for n in late)])
    assert text_in(whole) == text_in(fold(updates))
    assert state_of(whole) == state_of(fold(updates))


def test_structs_that_wait_for_a_missing_update_survive_a_snapshot() -> None:
    ada = typed("abc", "d", "ef")
    first, missing, last = ada.updates
    snapshot = squashed(fold([first, last]))
    assert text_in(snapshot) == "abc"
    assert text_in(fold([snapshot, missing])) == "abcdef"


def test_a_deletion_that_comes_before_what_it_deletes_survives_a_snapshot() -> None:
    ada, bob = typed("hello"), writer()
    bob.hear(ada.updates[0])
    del bob.text[0:5]
    snapshot = squashed(bob.updates[0])
    assert text_in(fold([snapshot, *ada.updates])) == ""


def test_a_snapshot_is_squashed() -> None:
    ada = typed(*"x" * 2_000)
    del ada.text[5:1_000]
    snapshot = squashed(fold(ada.updates))
    assert len(snapshot) < 2_200
    assert state_of(snapshot) == state_of(fold(ada.updates))


def test_deleted_text_is_kept_for_undo_and_history() -> None:
    ada = typed("secret")
    del ada.text[0:6]
    assert b"secret" in squashed(fold(ada.updates))


def test_a_difference_is_what_somebody_lacks_also_what_still_waits() -> None:
    ada = typed("one ", "two ", "three")
    bob = writer()
    bob.hear(ada.updates[0])
    whole = fold(ada.updates)
    bob.hear(difference(whole, bytes(bob.doc.get_state())))
    assert str(bob.text) == "one two three"
    assert difference(whole, state_of(whole)) == EMPTY_UPDATE
    gap = fold([ada.updates[0], ada.updates[2]])
    carol = writer()
    carol.hear(difference(gap, EMPTY_STATE))
    carol.hear(ada.updates[1])
    assert str(carol.text) == "one two three"


def test_what_is_stored_is_snapshot_and_tail_together() -> None:
    ada = typed("a", "b", "c")
    entries = tuple(Entry(n, Edit(update, "usr_a", 0)) for n, update in enumerate(ada.updates, 1))
    assert text_in(merged(Stored(NOTHING, entries))) == "abc"
    assert text_in(merged(Stored(Snapshot(1, b"", (Segment(ada.updates[0], b""),)), entries[1:]))) == "abc"
    assert merged(Stored(NOTHING, ())) == EMPTY_UPDATE


@pytest.mark.parametrize(("check", "code"), [(validate, "poison_update"), (check_state, "bad_state_vector")])
@given(data=st.binary(max_size=120))
def test_no_bytes_do_more_than_pass_or_be_refused(
    check: Callable[[bytes], None], code: str, data: bytes
) -> None:
    try:
        check(data)
    except Invalid as error:
        assert error.code == code


@given(st.integers(0, 10**6), st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_passes_the_check_can_be_merged_and_read(seed: int, data: Any) -> None:
    good = story(seed, 6)
    update = bytearray(fold(good))
    for _ in range(data.draw(st.integers(1, 3))):
        update[data.draw(st.integers(0, 10**6)) % len(update)] = data.draw(st.integers(0, 255))
    try:
        validate(bytes(update))
    except Invalid:
        return
    whole = merged(
        Stored(NOTHING, tuple(Entry(n, Edit(u, "usr_a", 0)) for n, u in enumerate([*good, bytes(update)], 1)))
    )
    difference(whole, state_of(whole))
    text_in(whole)
