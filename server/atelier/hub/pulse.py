"""How late the event loop is, and when that is so much that newcomers should wait."""

from __future__ import annotations

import asyncio
import time
from collections import deque

_BEAT_SECONDS = 0.02
_REMEMBERED = 100  # beats: two seconds
_LATE_SECONDS = 0.06
_LATE_BEATS = 3


class Pulse:
    """Beats fifty times a second; a beat's delay is what anybody's keystroke would have waited."""

    def __init__(self) -> None:
        self._delays: deque[float] = deque([0.0], maxlen=_REMEMBERED)

    async def beat(self) -> None:
        """Beat until cancelled."""
        while True:
            due = time.monotonic() + _BEAT_SECONDS
            await asyncio.sleep(_BEAT_SECONDS)
            self._delays.append(max(0.0, time.monotonic() - due))

    def worst(self) -> float:
        """Return the longest delay of the last two seconds, in seconds."""
        return max(self._delays)

    def late(self) -> bool:
        """Say whether the last beats were so late, all of them, that one more guest would make everybody wait.

        One slow turn of the loop is no reason to turn anybody away.
        """
        last = list(self._delays)[-_LATE_BEATS:]
        return len(last) == _LATE_BEATS and min(last) > _LATE_SECONDS
