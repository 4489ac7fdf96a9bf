"""Interpreters: one for each session that uses one, held by one process, sent cells and looked at through all of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import structlog
from prometheus_client import Gauge
from sqlalchemy import RowMapping

from atelier import times
from atelier.auth import Action, Caller, require
from atelier.errors import AtelierError, Conflict, Invalid, NotFound, TooMany
from atelier.events import publish
from atelier.ids import new_id
from atelier.interpreters import queries
from atelier.interpreters.held import LANGUAGE, Held, in_event
from atelier.interpreters.page import whole
from atelier.interpreters.schemas import Cell, CellEvent, CellList, Interpreter, NewCells
from atelier.runs import find_language
from atelier.services import Services
from atelier.tasks import TaskGroup

logger = structlog.get_logger(__name__)
KEPT = Gauge("atelier_interpreters_kept", "Interpreters that this process holds")
_HOLD_SECONDS = 5.0
_LOST_AFTER = 20.0
_RETRY_SECONDS = 30.0
_ENDING_SECONDS = 5.0
_LIST = 50  # cells that are listed; twice as many are kept
_LISTED = 1_000_000  # characters of what they printed
_TOPIC = "interpreters"
_STOPPED = "The server was stopped."
_WRONG = "Something went wrong here, not in the cell; the variables are gone."
_LOST = "The server that held the interpreter is gone; the variables too."


class Interpreters:
    """The interpreters that this process holds; an async context manager."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._held: dict[str, Held] = {}
        self._driving: set[asyncio.Task[None]] = set()
        self._tasks = TaskGroup("interpreters")
        self._own = new_id("prc")

    async def __aenter__(self) -> Self:
        if self._services.bus.alone:
            await self._end_left_behind(times.now() + 1)
        else:
            self._tasks.start(self._hear(), name="hear")
        self._tasks.start(self._look_after(), name="look after")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        closing = [held.close(_STOPPED) for held in self._held.values()]
        await asyncio.gather(*closing, return_exceptions=True)
        if self._driving:
            await asyncio.wait(self._driving, timeout=_ENDING_SECONDS)
        await self._tasks.cancel()

    # --- what people ask for

    async def send(self, caller: Caller, session_id: str, asked: NewCells) -> list[Cell]:
        """Queue cells for the session's interpreter, which is started where there is none.

        Raises:
            NotFound: `session_not_found`. Forbidden: `role_forbids`.
            Invalid: `language_unknown`, `cell_too_large`.
            TooMany: `too_many_cells`, `interpreters_full`.
            Unavailable: `sandbox_unavailable`.
        """
        limits = self._services.limits
        for cell in asked.cells:
            if len(cell.code.encode(errors="replace")) > limits.cell_bytes:
                raise Invalid(
                    "cell_too_large",
                    f"A cell has at most {limits.cell_bytes // 1024} KiB.",
                    next_step="Put most of it into a file, and import that.",
                )
        batch, now = new_id("bat"), times.now()
        rows = [
            {
                "id": new_id("cel"), "session_id": session_id, "user_id": caller.user_id, "batch": batch,
                "path": cell.path, "line": cell.line, "code": cell.code, "status": "queued", "created_at": now,
            }
            for cell in asked.cells
        ]  # fmt: skip
        capabilities = await self._services.sandbox.capabilities()
        async with self._services.db.begin() as db:
            await require(db, session_id, caller.user_id, Action.RUN)
            find_language(LANGUAGE, "", capabilities.languages)
            self._refuse_if_full(
                await queries.waiting(db, session_id) + len(rows),
                new=await queries.interpreter_of(db, session_id) is None,
            )
            await queries.add(db, session_id, now, rows)
            await queries.clear(db, session_id, keep=2 * _LIST)
            added = await queries.unfinished(db, session_id, batch)
        try:
            await publish(
                self._services, session_id, "cell.queued", {"cells": [in_event(row) for row in added]}
            )
        finally:
            await self._ensure(caller.user_id, session_id)
        return [Cell.model_validate(dict(row)) for row in added]

    def _refuse_if_full(self, waiting: int, *, new: bool) -> None:
        limits = self._services.limits
        if waiting > limits.queued_cells:
            raise TooMany(
                "too_many_cells",
                f"{waiting} cells would wait; {limits.queued_cells} may.",
                retry_after=_RETRY_SECONDS,
                next_step="Wait until some have run, or restart the interpreter.",
            )
        if new and len(self._held) >= limits.concurrent_interpreters:
            raise TooMany(
                "interpreters_full",
                f"{limits.concurrent_interpreters} interpreters are kept on this server.",
                retry_after=_RETRY_SECONDS,
                next_step="End one that nobody needs, or try again later.",
            )

    async def _ensure(self, user_id: str, session_id: str) -> None:
        """See to it that somebody holds the interpreter and looks at its queue."""
        if (held := self._held.get(session_id)) is not None:
            held.wake()
            return
        async with self._services.db.begin() as db:
            now = times.now()
            mine = await queries.claim(
                db, session_id=session_id, user_id=user_id, life=0, created_at=now, holder=self._own, held_at=now
            )  # fmt: skip
        if not mine:
            if (held := self._held.get(session_id)) is not None:
                held.wake()
            else:
                await self._ask(session_id, "wake")
            return
        held = self._held[session_id] = Held(self._services, session_id, self._own)
        KEPT.set(len(self._held))
        driving = self._tasks.start(self._drive(held, user_id), name=session_id)
        self._driving.add(driving)
        driving.add_done_callback(self._driving.discard)

    async def _drive(self, held: Held, user_id: str) -> None:
        try:
            await held.drive()
        finally:
            self._held.pop(held.session_id, None)
            KEPT.set(len(self._held))
            async with self._services.db.begin() as db:
                row = await queries.interpreter_of(db, held.session_id)
                unfinished = await queries.unfinished(db, held.session_id)
                if row is not None and not any(cell["status"] == "running" for cell in unfinished):
                    await queries.release(db, held.session_id, self._own)
            if row is not None and any(cell["status"] == "running" for cell in unfinished):
                await self._end_one(row, _WRONG)
                unfinished = []
        if unfinished:  # it came while the last one ended
            await self._ensure(user_id, held.session_id)

    async def of_session(self, session_id: str) -> CellList:
        """Return the newest cells with what they printed, as far as there is room, and the interpreter."""
        async with self._services.db.read() as db:
            rows = await queries.latest(db, session_id, _LIST)
            there = await queries.interpreter_of(db, session_id)
            room, items = _LISTED, []
            for row in rows:
                events = None
                if room > 0:
                    events = [_event(dict(event)) for event in await queries.events_of(db, row["id"])]
                    room -= sum(len(event.data.get("data", "")) + 100 for event in events)
                items.append(Cell.model_validate({**row, "events": events}))
        shown = None if there is None or not there["life"] else Interpreter.model_validate(dict(there))
        return CellList(items=items[::-1], interpreter=shown)

    async def events(self, session_id: str, cell_id: str) -> list[CellEvent]:
        """Return all that a cell printed and showed. Raises NotFound `cell_not_found`."""
        async with self._services.db.read() as db:
            _found(await queries.cell(db, session_id, cell_id))
            return [_event(dict(event)) for event in await queries.events_of(db, cell_id)]

    async def file(self, session_id: str, cell_id: str, number: int) -> Mapping[str, Any]:
        """Return a rich value. Raises NotFound `cell_file_not_found`."""
        async with self._services.db.read() as db:
            row = await queries.file_of(db, session_id, cell_id, number)
        if row is None:
            raise NotFound(
                "cell_file_not_found",
                "This is not kept, or not any more: newer cells needed the room.",
                next_step="Run the cell again.",
            )
        ending = row["media_type"].partition("/")[2].partition("+")[0]
        content = whole(row["content"]) if row["media_type"] == "text/html" else row["content"]
        return {**row, "path": f"cell-{number}.{ending}", "content": content}

    async def stop_cell(self, session_id: str, cell_id: str) -> None:
        """Interrupt a cell, or take it out of the queue; one that has ended stays as it is.

        Raises:
            NotFound: `cell_not_found`.
        """
        async with self._services.db.begin() as db:
            row = _found(await queries.cell(db, session_id, cell_id))
            taken = row["status"] == "queued" and await queries.end(
                db, cell_id, "queued", outcome="skipped", detail="It was stopped.", ended_at=times.now()
            )
            told = await queries.cell(db, session_id, cell_id)
        if taken and told is not None:
            await publish(self._services, session_id, "cell.ended", {"cell": in_event(told)})
        elif (held := self._held.get(session_id)) is not None:
            await held.stop_cell(cell_id)
        elif row["status"] != "ended":
            await self._ask(session_id, "stop", cell=cell_id)

    async def input(self, session_id: str, data: str) -> None:
        """Hand the cell that runs what somebody typed. Raises Conflict `no_cell_runs`."""
        if (held := self._held.get(session_id)) is not None:
            taken = await held.input(data)
        else:
            async with self._services.db.read() as db:
                rows = await queries.unfinished(db, session_id)
            taken = any(row["status"] == "running" for row in rows)
            if taken:
                await self._ask(session_id, "input", data=data)
        if not taken:
            raise Conflict(
                "no_cell_runs", "No cell runs that could read this.", next_step="Run a cell first."
            )

    async def end(self, caller: Caller, session_id: str) -> None:
        """End the interpreter; its variables are gone, and the next cell starts another."""
        why = f"{caller.display_name} restarted the interpreter."
        if (held := self._held.get(session_id)) is not None:
            await held.restart(why)
        else:
            await self._ask(session_id, "end", why=why)

    async def clear(self, session_id: str) -> None:
        """Forget the cells that have ended; the variables stay."""
        async with self._services.db.begin() as db:
            await queries.clear(db, session_id)
        await publish(self._services, session_id, "cell.cleared", {})

    # --- what goes on meanwhile

    async def _ask(self, session_id: str, do: str, **what: Any) -> None:
        """Ask the process that holds a session's interpreter."""
        if not self._services.bus.alone:
            message = json.dumps({"session": session_id, "do": do, **what}).encode()
            await self._services.bus.publish(_TOPIC, message)

    async def _hear(self) -> None:
        async with self._services.bus.subscribe(_TOPIC, bound=4096) as signals:
            async for signal in signals:
                asked = json.loads(signal or b"{}")
                held = self._held.get(asked.get("session", ""))
                if held is None:
                    continue
                try:
                    match asked:
                        case {"do": "wake"}:
                            held.wake()
                        case {"do": "stop", "cell": str(cell)}:
                            await held.stop_cell(cell)
                        case {"do": "input", "data": str(data)}:
                            await held.input(data)
                        case {"do": "end", "why": str(why)}:
                            await held.restart(why)
                except AtelierError as error:
                    logger.info("refused to another process", session=held.session_id, code=error.code)

    async def _look_after(self) -> None:
        """Say that this process is there; end what others left behind, and what belongs to a session that is gone."""
        while True:
            await asyncio.sleep(_HOLD_SECONDS)
            try:
                async with self._services.db.begin() as db:
                    await queries.hold(db, self._own, times.now())
                    gone = await queries.of_gone_sessions(db, self._own)
                    own = await queries.held_by(db, self._own)
                for row in own:
                    if row["session_id"] not in self._held:
                        await self._end_one(row, _WRONG)
                for session_id in gone:
                    if (held := self._held.get(session_id)) is not None:
                        await held.close("The session was deleted.")
                if not self._services.bus.alone:
                    await self._end_left_behind(times.now() - int(_LOST_AFTER * 1000))
            except AtelierError as error:
                logger.warning("interpreters are not looked after just now", code=error.code)

    async def _end_left_behind(self, held_before: int) -> None:
        """End what a process held that is gone: what ran is lost, and what waited does not run by itself."""
        async with self._services.db.read() as db:
            left = await queries.left_behind(db, held_before)
        for interpreter in left:
            await self._end_one(interpreter, _LOST)

    async def _end_one(self, interpreter: RowMapping, why: str) -> None:
        session_id = interpreter["session_id"]
        async with self._services.db.begin() as db:
            if not await queries.release(db, session_id, interpreter["holder"]):
                return
            cells = await queries.unfinished(db, session_id)
            for row in cells:
                outcome = "died" if row["status"] == "running" else "skipped"
                await queries.end(
                    db, row["id"], row["status"], outcome=outcome, detail=why, ended_at=times.now()
                )
            told = [await queries.cell(db, session_id, row["id"]) for row in cells]
        for cell in told:
            if cell is not None:
                await publish(self._services, session_id, "cell.ended", {"cell": in_event(cell)})
        data = {"life": interpreter["life"], "detail": why}
        await publish(self._services, session_id, "interpreter.ended", data)


def _found(row: Any) -> Any:
    if row is None:
        raise NotFound(
            "cell_not_found", "There is no such cell in this session.", next_step="Look at the list of cells."
        )
    return row


def _event(row: Mapping[str, Any]) -> CellEvent:
    return CellEvent(seq=row["seq"], type=row["type"], data=row["data"])
