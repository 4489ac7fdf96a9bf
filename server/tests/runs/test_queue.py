"""The queue: fair between people, bounded, honest about positions."""

from __future__ import annotations

import pytest

from atelier.errors import TooMany
from atelier.runs.queue import FairQueue


def test_people_take_turns_however_many_somebody_has_queued() -> None:
    queue = FairQueue(20)
    for n in range(4):
        queue.put("ada", f"a{n}")
    queue.put("bob", "b0")
    queue.put("bob", "b1")
    assert [queue.position(x) for x in ("a0", "b0", "a1", "b1", "a2")] == [0, 1, 2, 3, 4]
    assert [queue.take() for _ in range(7)] == ["a0", "b0", "a1", "b1", "a2", "a3", None]


def test_a_full_queue_refuses_with_a_time() -> None:
    queue = FairQueue(1)
    queue.put("ada", "a0")
    with pytest.raises(TooMany) as refused:
        queue.put("bob", "b0")
    assert refused.value.code == "queue_full"
    assert refused.value.retry_after > 0


def test_what_is_dropped_no_longer_waits() -> None:
    queue = FairQueue(5)
    queue.put("ada", "a0")
    assert queue.drop("a0")
    assert not queue.drop("a0")
    assert (len(queue), queue.position("a0"), queue.take()) == (0, None, None)
