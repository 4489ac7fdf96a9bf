"""Taking edits back, steps and spans, against plain models; schedules are random and replay by their seed."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pycrdt import Doc, Text, TransactionEvent

from atelier.documents import EMPTY_UPDATE, fold, merged, text_in
from atelier.history.bursts import Burst, Grouping
from atelier.history.diff import compare
from atelier.history.points import Choice, steps, taken_back
from atelier.history.spans import Spans
from atelier.log import NOTHING, Edit, Entry, Stored

PEOPLE = ("ada", "bob", "cyd")
SMILE = 0x1F600  # two UTF-16 units, four bytes


class Schedule:
    """People who type and delete, each in a document of their own, and hear of each other now and then.

    Every character is one of its kind, so that a text says exactly who wrote what of it.
    """

    def __init__(self, seed: int, edits: int = 60) -> None:
        self._random = random.Random(seed)
        self.entries: list[Entry] = []
        self.writers: dict[str, str] = {}
        self.deleters: dict[str, set[str]] = {}
        self._docs: dict[str, Doc[Text]] = {name: Doc(skip_gc=True) for name in PEOPLE}
        self._heard = dict.fromkeys(PEOPLE, 0)
        self._subscriptions = [self._listen(name) for name in PEOPLE]
        for _ in range(edits):
            name = self._random.choice(PEOPLE)
            if self._random.random() < 0.5:
                self._hear(name)
            self._edit(name)

    def _listen(self, name: str) -> object:
        def keep(event: TransactionEvent) -> None:
            if self._typing == name:
                at = 1_000 * len(self.entries)
                self.entries.append(Entry(len(self.entries) + 1, Edit(bytes(event.update), name, at)))

        self._typing = ""
        return self._docs[name].observe(keep)

    def _hear(self, name: str) -> None:
        for entry in self.entries[self._heard[name] :]:
            self._docs[name].apply_update(entry.edit.update)
        self._heard[name] = len(self.entries)

    def _edit(self, name: str) -> None:
        doc, draw = self._docs[name], self._random
        content = doc.get("content", type=Text)
        now = str(content)
        self._typing = name
        if now and draw.random() < 0.35:
            start = draw.randrange(len(now))
            gone = now[start : start + draw.randint(1, 4)]
            at = len(now[:start].encode())
            del content[at : at + len(gone.encode())]
            for character in gone:
                self.deleters.setdefault(character, set()).add(name)
        else:
            base = SMILE if draw.random() < 0.3 else 0x4E00
            new = "".join(chr(base + len(self.writers) + n) for n in range(draw.randint(1, 4)))
            self.writers.update(dict.fromkeys(new, name))
            content.insert(len(now[: draw.randint(0, len(now))].encode()), new)
        self._typing = ""

    def stored(self) -> Stored:
        return Stored(NOTHING, tuple(self.entries))


@pytest.mark.parametrize("seed", range(60))
def test_what_one_person_wrote_goes_and_what_only_they_deleted_comes_back(seed: int) -> None:
    schedule = Schedule(seed)
    now = merged(schedule.stored())
    change = taken_back(EMPTY_UPDATE, schedule.entries, Choice("ada", 0, 10**9), now)
    after = text_in(fold([now, change.update])) if change is not None else text_in(now)
    expected = {
        character
        for character, writer in schedule.writers.items()
        if writer != "ada" and schedule.deleters.get(character, set()) <= {"ada"}
    }
    assert set(after) == expected
    assert len(after) == len(expected)
    # What stays keeps its order.
    both = [character for character in text_in(now) if character in expected]
    assert [character for character in after if character in set(both)] == both
    if change is not None:
        assert text_in(fold([now, change.update, change.inverse])) == text_in(now)


@pytest.mark.parametrize("seed", range(60, 90))
def test_taking_everything_back_leaves_nothing(seed: int) -> None:
    schedule = Schedule(seed, edits=30)
    now = merged(schedule.stored())
    everything = Choice(None, 0, 10**9)
    change = taken_back(EMPTY_UPDATE, schedule.entries, everything, now)
    assert change is not None
    after = fold([now, change.update])
    assert text_in(after) == ""


@pytest.mark.parametrize("seed", range(90, 130))
def test_a_period_is_taken_back_and_what_was_written_around_it_stays(seed: int) -> None:
    schedule = Schedule(seed)
    draw = random.Random(seed)
    first = draw.randint(1, len(schedule.entries))
    last = draw.randint(first, len(schedule.entries))
    stored = schedule.stored()
    base = merged(Stored(NOTHING, stored.tail[: first - 1])) if first > 1 else EMPTY_UPDATE
    now = merged(stored)
    change = taken_back(base, schedule.entries[first - 1 :], Choice(None, first, last), now)
    after = text_in(fold([now, change.update])) if change is not None else text_in(now)
    before = text_in(base)
    late = text_in(fold([base, *(e.edit.update for e in schedule.entries[last:])]))
    for character in set(text_in(now)) - set(after):
        assert character not in before, "it was there before the period, so nobody wrote it then"
    for character in set(after) - set(text_in(now)):
        assert character in before or character in late, (
            "it came back, so something outside the period wrote it"
        )
    assert len(after) == len(set(after))


@pytest.mark.parametrize("seed", range(130, 170))
def test_steps_give_the_text_of_every_point_in_utf_16(seed: int) -> None:
    schedule = Schedule(seed)
    half = len(schedule.entries) // 2
    base = merged(Stored(NOTHING, tuple(schedule.entries[:half])))
    text, found = steps(base, schedule.entries[half:], most=10**6)
    shown = text.encode("utf-16-le")
    for step in found:
        for place, gone, comes in step.changes:
            shown = shown[: 2 * place] + comes.encode("utf-16-le") + shown[2 * (place + gone) :]
        point = text_in(merged(Stored(NOTHING, tuple(schedule.entries[: step.position]))))
        assert shown.decode("utf-16-le") == point


@pytest.mark.parametrize("seed", range(40))
def test_steps_give_the_text_also_of_what_came_out_of_order_twice_and_with_holes(seed: int) -> None:
    draw = random.Random(seed)
    doc: Doc[Any] = Doc()
    content = doc.get("content", type=Text)
    updates: list[bytes] = []
    subscription = doc.observe(lambda event: updates.append(bytes(event.update)))
    for n in range(60):
        content.insert(draw.randint(0, len(str(content).encode())), str(n % 10))
    doc.unobserve(subscription)
    sent = sorted(range(60), key=lambda n: n + draw.randint(0, 8))
    several = [fold([updates[n] for n in draw.sample(range(60), 5)]) for _ in range(20)]
    shuffled = [*(updates[n] for n in sent)]
    for update in several:
        shuffled.insert(draw.randrange(len(shuffled)), update)
    entries = [Entry(n + 1, Edit(update, "usr_a", n)) for n, update in enumerate(shuffled)]
    text, found = steps(EMPTY_UPDATE, entries, most=10**6)
    for step in found:
        for place, gone, comes in step.changes:
            text = text[:place] + comes + text[place + gone :]
        assert text == text_in(merged(Stored(NOTHING, tuple(entries[: step.position]))))
    assert text == str(content)


@pytest.mark.parametrize("seed", range(20))
def test_bursts_are_the_same_whether_taken_in_at_once_or_in_pieces(seed: int) -> None:
    schedule, draw = Schedule(seed), random.Random(seed)
    at = 0
    entries = []
    for entry in schedule.entries:
        at += draw.choice((100, 2_000, 40_000))
        entries.append(Entry(entry.position, Edit(entry.edit.update, entry.edit.author, at)))

    def grouped(pieces: list[list[Entry]]) -> list[Burst]:
        grouping = Grouping(EMPTY_UPDATE)
        found = [burst for piece in pieces for burst in list(grouping.take(piece))]
        assert grouping.open is not None
        return [*found, grouping.open]

    whole = grouped([entries])
    assert grouped([entries[i : i + 7] for i in range(0, len(entries), 7)]) == whole
    assert sum(burst.edits for burst in whole) == len(entries)
    assert [burst.first for burst in whole][1:] == [
        entries[[e.position for e in entries].index(burst.last) + 1].position for burst in whole[:-1]
    ]
    written = sum(share.inserted for burst in whole for share in burst.authors.values())
    assert written == sum(len(c.encode("utf-16-le")) // 2 for c in schedule.writers)


@pytest.mark.parametrize("seed", range(50))
def test_spans_are_sets(seed: int) -> None:
    draw = random.Random(seed)
    spans, model = [Spans(), Spans()], [set[tuple[int, int]](), set[tuple[int, int]]()]
    for _ in range(40):
        which, client, start = draw.randrange(2), draw.randrange(2), draw.randrange(60)
        end = start + draw.randrange(12)
        ids = {(client, clock) for clock in range(start, end)}
        new = spans[which].add((client, start, end))
        assert {(c, n) for c, s, e in new for n in range(s, e)} == ids - model[which]
        model[which] |= ids

    def ids_of(found: Spans) -> set[tuple[int, int]]:
        return {(c, n) for c, s, e in found for n in range(s, e)}

    assert [ids_of(found) for found in spans] == model
    assert [len(found) for found in spans] == [len(found) for found in model]
    assert ids_of(spans[0].without(spans[1])) == model[0] - model[1]
    assert {(c, n) for c, s, e in spans[0].common(list(spans[1])) for n in range(s, e)} == model[0] & model[1]


@pytest.mark.parametrize("seed", range(50))
def test_a_comparison_turns_the_old_text_into_the_new_one(seed: int) -> None:
    draw = random.Random(seed)
    old = [draw.choice("abcd") for _ in range(draw.randrange(60))]
    new = [line for line in old if draw.random() < 0.8]
    for _ in range(draw.randrange(6)):
        new.insert(draw.randint(0, len(new)), draw.choice("xyz"))
    found = compare("\n".join(old), "\n".join(new))
    assert not found.truncated
    made, at = [], 0
    before = "\n".join(old).split("\n")
    for hunk in found.hunks:
        made += before[at : hunk.old_line - 1]
        at = hunk.old_line - 1
        assert len(made) == hunk.new_line - 1
        for kind, text in hunk.lines:
            if kind != "added":
                assert before[at] == text
                at += 1
            if kind != "removed":
                made.append(text)
    assert "\n".join(made + before[at:]) == "\n".join(new)
    kinds = [kind for hunk in found.hunks for kind, _ in hunk.lines]
    assert (kinds.count("added"), kinds.count("removed")) == (found.added, found.removed)
