"""Publishing: stored and numbered first, then signalled, so that whoever missed the signal reads the number."""

from __future__ import annotations

import json
from typing import Any

from atelier import times
from atelier.events import queries
from atelier.services import Services

KEPT = 1_000
_MOST_TOLD = 32 * 1024  # bytes of an event that is told with its number; of a larger one, that there is one
_FORGET_EVERY = 100


def topic(session_id: str) -> str:
    """The bus topic of a session's events: a transient one as JSON, another as `NUMBER JSON`, or nothing for "look"."""
    return f"events:{session_id}"


async def publish(services: Services, session_id: str, type_: str, data: dict[str, Any]) -> int:
    """Store an event under the session's next number and tell everyone; returns the number (0: no such session)."""
    now = times.now()
    async with services.db.begin() as db:
        seq = await queries.next_number(db, session_id, now)
        if seq is None:
            return 0
        await queries.add(db, session_id=session_id, seq=seq, type=type_, data=data, at=now)
        if seq % _FORGET_EVERY == 0:
            await queries.forget(db, session_id, seq - KEPT)
    told = b"%d %s" % (seq, as_told({"seq": seq, "type": type_, "at": now, "data": data}).encode())
    await services.bus.publish(topic(session_id), told if len(told) <= _MOST_TOLD else b"")
    return seq


async def publish_transient(services: Services, session_id: str, type_: str, data: dict[str, Any]) -> None:
    """Tell whoever is connected now; neither stored nor numbered."""
    message = {"type": type_, "at": times.now(), "data": data}
    await services.bus.publish(topic(session_id), as_told(message).encode())


def as_told(message: dict[str, Any]) -> str:
    """Return an event as it goes to browsers."""
    return json.dumps(message, separators=(",", ":"))


async def forget_old(services: Services, session_id: str) -> None:
    """Keep the newest events only."""
    async with services.db.begin() as db:
        await queries.forget(db, session_id, await queries.last_number(db, session_id) - KEPT)
