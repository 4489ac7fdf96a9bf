"""Who runs next: fair between people, bounded, with a position for everyone who waits."""

from __future__ import annotations

from collections import OrderedDict, deque

from atelier.errors import TooMany

_GUESS_SECONDS = 5.0  # how long a run takes, for a retry time; only the order of magnitude matters


class FairQueue:
    """Takes one run of each person in turn, however many somebody has queued."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._people: OrderedDict[str, deque[str]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._people.values()))

    def put(self, person: str, run_id: str) -> None:
        """Queue a run.

        Raises:
            TooMany: `queue_full`.
        """
        self.refuse_if_full()
        self._people.setdefault(person, deque()).append(run_id)

    def refuse_if_full(self) -> None:
        """Raise TooMany `queue_full` when no further run is taken."""
        if len(self) >= self._most:
            raise TooMany(
                "queue_full",
                f"{self._most} runs are waiting already.",
                retry_after=_GUESS_SECONDS,
                next_step="Try again in a moment.",
            )

    def take(self) -> str | None:
        """Return the next run; its person goes to the end of the line."""
        if not self._people:
            return None
        person, waiting = self._people.popitem(last=False)
        run_id = waiting.popleft()
        if waiting:
            self._people[person] = waiting
        return run_id

    def drop(self, run_id: str) -> bool:
        """Take a run out of the queue; says whether it was there."""
        for person, waiting in self._people.items():
            if run_id in waiting:
                waiting.remove(run_id)
                if not waiting:
                    del self._people[person]
                return True
        return False

    def position(self, run_id: str) -> int | None:
        """Return how many runs come before this one, or None if it does not wait."""
        order = {}
        for turn, waiting in enumerate(self._people.values()):
            for round_, waiting_id in enumerate(waiting):
                order[waiting_id] = (round_, turn)
        if run_id not in order:
            return None
        return sum(place < order[run_id] for place in order.values())
