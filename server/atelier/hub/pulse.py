"""How late the event loop is, and when that is so much that newcomers should wait."""

from __future__ import annotations

import asyncio
import time
from collections import deque

_CALM_SECONDS = 0.1  # each beat wakes the process, also while nobody types
_ALERT_SECONDS = 0.02
_REMEMBERED_SECONDS = 2.0
_SUSPICIOUS_SECONDS = 0.02
_LATE_SECONDS = 0.06
_LATE_BEATS = 3


class Pulse:
    """Beats ten times a second, and faster after a late beat; a beat's delay is what anybody's keystroke would have waited."""

    def __init__(self) -> None:
        self._beats: deque[tuple[float, float]] = deque([(time.monotonic(), 0.0)])

    async def beat(self) -> None:
        """Beat until cancelled."""
        delay = 0.0
        while True:
            wait = _CALM_SECONDS if delay < _SUSPICIOUS_SECONDS else _ALERT_SECONDS
            due = time.monotonic() + wait
            await asyncio.sleep(wait)
            now = time.monotonic()
            delay = max(0.0, now - due)
            self._beats.append((now, delay))
            while self._beats[0][0] < now - _REMEMBERED_SECONDS:
                self._beats.popleft()

    def worst(self) -> float:
        """Return the longest delay of the last two seconds, in seconds."""
        return max(delay for _, delay in self._beats)

    def late(self) -> bool:
        """Say whether the last beats were so late, all of them, that one more guest would make everybody wait.

        One slow turn of the loop is no reason to turn anybody away.
        """
        last = [delay for _, delay in self._beats][-_LATE_BEATS:]
        return len(last) == _LATE_BEATS and min(last) > _LATE_SECONDS
