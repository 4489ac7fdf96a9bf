"""Who runs next in one process: fair between people, by priority, bounded, with a position for everyone who waits."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence

from atelier.errors import TooMany
from atelier.sandbox.base import Turn

RETRY_SECONDS = 5.0
"""How long a run takes, for a retry time; only the order of magnitude matters."""
_FRONT = -1  # a priority before all that can be asked for


def queue_full(most: int) -> TooMany:
    """Return the refusal of a further run."""
    return TooMany(
        "queue_full",
        f"{most} runs are waiting already.",
        retry_after=RETRY_SECONDS,
        next_step="Try again in a moment.",
    )


class FairQueue:
    """Takes one run of each person in turn, however many somebody has queued; lower priorities after all others."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: dict[int, OrderedDict[str, deque[str]]] = {}

    def __len__(self) -> int:
        return sum(len(waiting) for people in self._lines.values() for waiting in people.values())

    def put(self, person: str, run_id: str, priority: int = 0) -> None:
        """Queue a run.

        Raises:
            TooMany: `queue_full`.
        """
        if len(self) >= self._most:
            raise queue_full(self._most)
        people = self._lines.setdefault(priority, OrderedDict())
        people.setdefault(person, deque()).append(run_id)

    def put_first(self, run_id: str) -> None:
        """Put a run in front of everybody, also when the queue is full."""
        line = self._lines.setdefault(_FRONT, OrderedDict())
        line.setdefault("", deque()).append(run_id)

    def take(self) -> str | None:
        """Return the next run; its person goes to the end of the line."""
        for priority in sorted(self._lines):
            people = self._lines[priority]
            if not people:
                continue
            person, waiting = people.popitem(last=False)
            run_id = waiting.popleft()
            if waiting:
                people[person] = waiting
            return run_id
        return None

    def drop(self, run_id: str) -> bool:
        """Take a run out of the queue; says whether it was there."""
        for people in self._lines.values():
            for person, waiting in people.items():
                if run_id in waiting:
                    waiting.remove(run_id)
                    if not waiting:
                        del people[person]
                    return True
        return False

    def positions(self) -> dict[str, int]:
        """Return how many runs come before each that waits."""
        order = [
            (priority, round_, turn, run_id)
            for priority, people in self._lines.items()
            for turn, waiting in enumerate(people.values())
            for round_, run_id in enumerate(waiting)
        ]
        return {run_id: place for place, (*_, run_id) in enumerate(sorted(order))}


class LocalTurns:
    """The turns of one process that has one sandbox to itself; see `Turns`."""

    def __init__(self, concurrent: int, queued: int) -> None:
        self._queue = FairQueue(queued)
        self._queued = queued
        self._free = concurrent
        self._changed = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    async def refuse_if_full(self) -> None:
        """Raise TooMany `queue_full` when no further run is taken."""
        if len(self._queue) >= self._queued:
            raise queue_full(self._queued)

    async def put(self, turn: Turn, *, again: bool = False) -> None:
        """Queue a run."""
        if again:
            self._queue.put_first(turn.run)
        else:
            self._queue.put(turn.person, turn.run, turn.priority)
        self._changed.set()

    async def take(self) -> Turn:
        """Wait for the next run that may begin."""
        while self._free <= 0 or (run := self._queue.take()) is None:
            self._changed.clear()
            await self._changed.wait()
        self._free -= 1
        return Turn(run)

    async def done(self, turn: Turn) -> None:
        """Free its place."""
        self._free += 1
        self._changed.set()

    async def drop(self, run: str) -> bool:
        """Take a run out of the queue; says whether it was there."""
        return self._queue.drop(run)

    async def positions(self, runs: Sequence[str]) -> Mapping[str, int]:
        """Return how many runs come before each of these that waits."""
        return self._queue.positions() if runs else {}
