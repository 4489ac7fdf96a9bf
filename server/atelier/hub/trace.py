"""Where an edit's time goes: about one a second is followed from its socket to its acknowledgement, the others are not.

Each stage is a histogram in /metrics. An edit that took long is also written to the log, with its stages.
"""

from __future__ import annotations

import time

import structlog
from prometheus_client import Histogram

from atelier.log import Edit

logger = structlog.get_logger(__name__)
STAGES = Histogram(
    "atelier_hub_stage_seconds",
    "Of about one edit a second: written (from the socket until the log has it), relayed (until it is with every"
    " reader's socket), synced (until its author is told that it survives a power cut)",
    ["stage"],
    buckets=(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
)
_EVERY_SECONDS = 1.0
_GIVE_UP_SECONDS = 60.0
_SLOW_SECONDS = 0.5


class Tracer:
    """Follows one edit at a time, of whichever document."""

    def __init__(self) -> None:
        self.followed: Edit | None = None
        self._document = ""
        self._marks: list[float] = []
        self._next = 0.0

    def submitted(self, document: str, edit: Edit, now: float) -> None:
        """Follow this edit, unless it is not time for one."""
        if now < self._next:
            return
        # One that never came to its end (its log was closed) does not stay.
        self._next = now + _EVERY_SECONDS
        if self.followed is None or now - self._marks[0] > _GIVE_UP_SECONDS:
            self.followed, self._document, self._marks = edit, document, [now]

    def mark(self) -> None:
        """The edit that is followed has come through a stage."""
        self._marks.append(time.monotonic())

    def settled(self, *, failed: bool) -> None:
        """It has been acknowledged, or refused."""
        self.mark()
        edit, marks = self.followed, self._marks
        self.followed = None
        if edit is None or failed or len(marks) != 4:
            return
        took = {
            stage: after - before
            for stage, before, after in zip(("written", "relayed", "synced"), marks, marks[1:], strict=False)
        }
        for stage, seconds in took.items():
            STAGES.labels(stage).observe(seconds)
        if marks[-1] - marks[0] > _SLOW_SECONDS:
            milliseconds = {stage: round(seconds * 1000, 1) for stage, seconds in took.items()}
            logger.warning(
                "an edit was slow", document=self._document, bytes=len(edit.update), milliseconds=milliseconds
            )


tracer = Tracer()
