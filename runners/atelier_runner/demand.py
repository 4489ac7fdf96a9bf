"""How many sandboxes are to wait: as many as are taken while one is started, counted, not guessed.

Grows at once, since a crowd comes at once, and shrinks slowly, since it comes back. No clock of its own: whoever asks
says what time it is.
"""

from __future__ import annotations

from collections import deque

MOST_WAITING = 16
POOL_MEMORY_MB = 256
HALF_LIFE = 60.0
"""Seconds after which half of what was needed is still believed to be."""
FIRST_START = 0.1
LONGEST_START = 2.0
"""Seconds to start one, at first and at most: a machine that is overloaded is not helped by more that wait."""


class Demand:
    """Wanted is never below `floor` and never above `most`."""

    def __init__(self, floor: int, most: int, half_life: float = HALF_LIFE) -> None:
        self.floor = floor
        self.most = max(floor, most)
        self._half_life = half_life
        self._taken: deque[float] = deque()
        self._start = FIRST_START
        self._held = 0.0
        self._held_at = 0.0

    def took(self, now: float) -> None:
        """One was asked for."""
        self._taken.append(now)
        while self._taken[0] <= now - self._start:
            self._taken.popleft()
        self._held = max(self._decayed(now), float(len(self._taken)))
        self._held_at = now

    def started(self, seconds: float) -> None:
        """One took so long to start."""
        self._start += 0.2 * (min(seconds, LONGEST_START) - self._start)

    def wanted(self, now: float) -> int:
        """Return how many are to wait."""
        return max(self.floor, min(self.most, int(self._decayed(now) + 0.5)))

    def _decayed(self, now: float) -> float:
        return float(self._held * 0.5 ** ((now - self._held_at) / self._half_life))


class Budget:
    """What all pools of one carrier may hold together, in sandboxes and in bytes of memory that was measured."""

    def __init__(self, sandboxes: int, memory_bytes: int) -> None:
        self.sandboxes = sandboxes
        self.memory_bytes = memory_bytes
        self._held: dict[object, tuple[int, int]] = {}

    def hold(self, pool: object, count: int, each: int) -> None:
        """Note that a pool holds so many of so many bytes each."""
        self._held[pool] = (count, each)

    def let_go(self, pool: object) -> None:
        """Forget a pool."""
        self._held.pop(pool, None)

    def room(self, pool: object) -> int:
        """Return how many more this pool may hold; negative: how many too many all hold."""
        _, each = self._held.get(pool, (0, 0))
        count = sum(count for count, _ in self._held.values())
        memory = sum(count * each for count, each in self._held.values())
        by_memory = self.sandboxes if not each else (self.memory_bytes - memory) // each
        return min(self.sandboxes - count, by_memory)
