"""The interpreter of a session in the process that holds it: takes cells from the table, in order, and runs them.

Theory of operation. The table is the queue: any process adds to it and wakes the holder, which also looks by itself
every few seconds, so that nothing waits for a signal that was lost. One cell runs at a time; before it the session's
files are brought up to date, and after it what it wrote is taken back. One life is one run in the sandbox: when it
ends (`exit()`, memory, a limit, Restart), the cell that ran ends with its reason, and the next cell begins another
life, which knows nothing of the variables before. A cell that was begun is never run again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import asdict
from typing import Any

import structlog
from sqlalchemy import RowMapping

from atelier import times
from atelier.auth import Action, Caller, Role, allows, has_egress, role_in
from atelier.errors import AtelierError
from atelier.events import publish
from atelier.interpreters import queries
from atelier.interpreters.recorder import CellRecorder
from atelier.interpreters.schemas import Cell, Interpreter
from atelier.packages import packages_of
from atelier.runs import Exchange
from atelier.sandbox import (
    CellEnded,
    CellLimits,
    CellValue,
    Changed,
    Exited,
    Looked,
    Outcome,
    Output,
    Reason,
    RunLimits,
    RunSpec,
)
from atelier.services import Services

logger = structlog.get_logger(__name__)
_LOOK_SECONDS = 3.0
_RECORDERS = 32  # cells whose late output is still heard
_FAR = 1 << 50  # bytes: output is bounded by cell
_SHOWN = 2_000  # characters of the code in an event
LANGUAGE = "python"


class Held:
    """`drive` it until nobody needs it any more."""

    def __init__(self, services: Services, session_id: str, holder: str) -> None:
        self.session_id = session_id
        self._services, self._holder = services, holder
        self._wake = asyncio.Event()
        self._used = time.monotonic()
        self._life: _Life | None = None
        self._closing = False
        self._why = ""
        self.running: str | None = None
        """The id of the cell that runs."""

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    async def drive(self) -> None:
        """Run cells until it has been idle for long, its life has ended and nothing waits, or it is to close."""
        limits = self._services.limits
        try:
            while not self._closing:
                self._wake.clear()
                if (found := await self._next()) is not None:
                    await self._run(*found)
                    self._used = time.monotonic()
                elif self._life is None or self._life.ended.is_set():
                    return
                elif time.monotonic() - self._used > limits.interpreter_idle_seconds:
                    minutes = limits.interpreter_idle_seconds // 60
                    await self.restart(f"Nobody has sent it a cell for {minutes} minutes.")
                else:
                    await self._wait()
        finally:
            await self._end_life()

    async def _wait(self) -> None:
        """Wait for a cell or for the end of the life, and look by oneself now and then."""
        assert self._life is not None
        waits = [asyncio.create_task(self._wake.wait()), asyncio.create_task(self._life.ended.wait())]
        try:
            await asyncio.wait(waits, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _next(self) -> tuple[RowMapping, Role | None] | None:
        """Return the cell whose turn it is, with what whoever sent it may do by now."""
        try:
            async with self._services.db.read() as db:
                cell = await queries.next_queued(db, self.session_id)
                role = None if cell is None else await role_in(db, self.session_id, cell["user_id"] or "")
                return None if cell is None else (cell, role)
        except AtelierError as error:
            logger.warning("the cells of a session cannot be read just now", code=error.code)
            await asyncio.sleep(1)
            return None

    # --- one cell

    async def _run(self, cell: RowMapping, role: Role | None) -> None:
        """Run a cell to its end, whatever that is."""
        if role is None or not allows(role, Action.RUN):
            await self._finish(
                cell, "queued", "skipped", "Whoever sent it may not run programs here any more."
            )
            return
        author = Caller(cell["user_id"], cell["user_name"] or "Somebody", "", is_admin=False)
        may_edit = allows(role, Action.EDIT)
        recorder = CellRecorder(self._services, self.session_id, cell["id"])
        try:
            if self._life is None or self._life.ended.is_set():
                await self._end_life()
                await self._begin_life(author, may_edit, recorder)
            life = self._life
            assert life is not None
            life.recorders[life.count + 1] = life.last = recorder
            await life.exchange.admit(life.run, author.display_name, may_edit=may_edit)
            life.exchange.author = author
            await life.exchange.bring(life.run)
        except AtelierError as error:
            detail = f"{error.detail} {error.next_step}".strip()
            await self._finish(cell, "queued", "skipped", detail)
            await self._skip_batch(cell["batch"], "The one before it did not run.")
            return
        async with self._services.db.begin() as db:
            number = life.count + 1
            begun = await queries.begin(
                db, cell["id"], life=life.number, number=number, started_at=times.now()
            )
        if not begun:
            return
        life.count, self.running = number, cell["id"]
        while len(life.recorders) > _RECORDERS:
            del life.recorders[next(iter(life.recorders))]
        telling = asyncio.create_task(self._tell("cell.started", cell["id"]), name=f"tell {cell['id']}")
        done = await life.cell(number, cell["path"] or "", cell["code"])
        with contextlib.suppress(AtelierError):
            await telling  # it need not wait for this, but what comes next comes after it
        self.running = None
        with contextlib.suppress(AtelierError):
            await recorder.settle()
        await self._conclude(cell, done)
        if isinstance(done, CellEnded):
            await life.exchange.look(life.run)

    async def _conclude(self, cell: RowMapping, done: CellEnded | Exited | str) -> None:
        """Write down how a cell ended, and let those go that were sent with it if it failed."""
        more: dict[str, Any] = {}
        if isinstance(done, CellEnded):
            outcome, detail = done.outcome.value, self._words(done.outcome)
            error = None if done.error is None else asdict(done.error)
            more = {"wall_seconds": done.wall_seconds, "error": error}
        elif self._why:
            outcome, detail = "stopped", self._why
        else:
            outcome, detail = "died", ending(done)
        await self._finish(cell, "running", outcome, detail, **more)
        if outcome != Outcome.DONE:
            await self._skip_batch(
                cell["batch"], f"The cell before it ended otherwise ({outcome.replace('_', ' ')})."
            )

    def _words(self, outcome: Outcome) -> str:
        limits = self._services.limits
        texts = {
            Outcome.WALL_TIME: f"It ran longer than {limits.cell_wall_seconds} s and was interrupted; the variables are kept.",
            Outcome.OUTPUT: f"It printed more than {limits.cell_output_bytes // 1024} KiB and was interrupted; the first are kept, and the variables.",
        }
        return texts.get(outcome, "")

    async def _finish(self, cell: RowMapping, status: str, outcome: str, detail: str, **more: Any) -> None:
        async with self._services.db.begin() as db:
            ended = await queries.end(
                db, cell["id"], status, outcome=outcome, detail=detail[:400], ended_at=times.now(), **more
            )
        if ended:
            await self._tell("cell.ended", cell["id"])

    async def _skip_batch(self, batch: str, why: str) -> None:
        async with self._services.db.read() as db:
            left = await queries.unfinished(db, self.session_id, batch)
        for row in left:
            await self._finish(row, "queued", "skipped", why)

    async def _tell(self, type_: str, cell_id: str) -> None:
        async with self._services.db.read() as db:
            row = await queries.cell(db, self.session_id, cell_id)
        if row is not None:
            await publish(self._services, self.session_id, type_, {"cell": in_event(row)})

    # --- one life

    async def _begin_life(self, author: Caller, may_edit: bool, first: CellRecorder) -> None:
        """Start an interpreter with the session's files; `first` tells of the cell it is for. Raises what the sandbox does."""
        async with self._services.db.read() as db:
            number = await queries.last_life(db, self.session_id) + 1
        life = _Life(self._services, self.session_id, number, author, may_edit)
        life.last = first
        await life.start()
        self._life, self._why = life, ""
        async with self._services.db.begin() as db:
            await queries.begin_life(db, self.session_id, self._holder, number)
            row = await queries.interpreter_of(db, self.session_id)
        if row is not None:
            shown = Interpreter.model_validate(dict(row)).model_dump(mode="json")
            await publish(self._services, self.session_id, "interpreter.started", {"interpreter": shown})

    async def _end_life(self) -> None:
        """See the present life to its end and say how it was."""
        life, self._life = self._life, None
        if life is None:
            return
        await life.stop()
        detail = self._why or ending(life.exited)
        data = {"life": life.number, "detail": detail}
        await publish(self._services, self.session_id, "interpreter.ended", data)

    # --- what people ask for

    async def stop_cell(self, cell_id: str) -> None:
        """Interrupt a cell that runs; its batch ends with it."""
        life = self._life
        if life is not None and self.running == cell_id:
            await self._services.sandbox.interrupt(life.run, life.count)

    async def input(self, data: str) -> bool:
        """Hand the cell that runs what somebody typed; False: none does."""
        life = self._life
        if life is None or self.running is None or life.last is None:
            return False
        await self._services.sandbox.write(life.run, data.encode(errors="replace"))
        await life.last.say("stdin", {"data": data})
        return True

    async def restart(self, why: str) -> None:
        """End the life: what runs ends with it, what waits does not run, and the next cell begins another."""
        async with self._services.db.read() as db:
            left = await queries.unfinished(db, self.session_id)
        for row in left:
            await self._finish(row, "queued", "skipped", why)
        self._why = why
        if self._life is not None:
            await self._life.cancel()

    async def close(self, why: str) -> None:
        """End it for good."""
        self._closing = True
        self._wake.set()
        await self.restart(why)


class _Life:
    """One run of the interpreter in the sandbox."""

    def __init__(
        self, services: Services, session_id: str, number: int, author: Caller, may_edit: bool
    ) -> None:
        self.number = number
        self.run = ""
        self.count = 0
        self.recorders: dict[int, CellRecorder] = {}
        self.last: CellRecorder | None = None
        self.ended = asyncio.Event()
        self.exited: Exited | str = ""
        self._session_id = session_id
        self.exchange = Exchange(services, session_id, author, may_edit=may_edit, say=self._say)
        self._services = services
        self._done: asyncio.Future[CellEnded | Exited | str] | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it, with the session's files."""
        limits = self._services.limits
        bounds = RunLimits(
            wall_seconds=limits.interpreter_wall_seconds,
            cpu_seconds=limits.interpreter_cpu_seconds,
            memory_mb=limits.interpreter_memory_mb,
            processes=limits.run_processes,
            disk_mb=limits.run_disk_mb,
            output_bytes=_FAR,
        )
        cells = CellLimits(limits.cell_wall_seconds, limits.cell_output_bytes, limits.cell_shown_bytes)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.exchange)
            files = await self.exchange.first()
            packages = await packages_of(self._services, LANGUAGE, files)
            async with self._services.db.read() as db:
                network = await has_egress(db, self._session_id, allowed=self._services.program_egress)
            spec = RunSpec(
                LANGUAGE, "", files, bounds,
                collect=self.exchange.collect, cells=cells, packages=packages, network=network,
            )  # fmt: skip
            self.run = await self._services.sandbox.start(spec)
            stack.pop_all()
        self._reading = asyncio.create_task(self._read(), name=f"interpreter {self.run}")

    async def _say(self, words: str) -> None:
        if self.last is not None:
            await self.last.say("note", {"data": words})

    async def cell(self, number: int, path: str, code: str) -> CellEnded | Exited | str:
        """Run a cell; returns its end, or the interpreter's."""
        if self.ended.is_set():
            return self.exited
        self._done = asyncio.get_running_loop().create_future()
        try:
            await self._services.sandbox.cell(self.run, number, path, code)
        except AtelierError as error:  # an interpreter of whose cells one is missing takes no other
            await self.cancel()
            return error.detail
        return await self._done

    async def _read(self) -> None:
        try:
            async for event in self._services.sandbox.events(self.run):
                match event:
                    case Output():
                        # What is said while packages are installed belongs to no cell but the first.
                        recorder = self.recorders.get(event.cell) if event.cell else self.last
                        if recorder is not None:
                            recorder.output(event.stream, event.data)
                    case CellValue():
                        await self._value(event)
                    case CellEnded():
                        self._settle(event)
                    case Changed():
                        self.exchange.changed(event)
                    case Looked():
                        await self.exchange.looked()
                    case Exited():
                        self.exited = event
                        await self.exchange.looked()
        except AtelierError as error:
            self.exited = error.detail
        finally:
            self.exchange.__exit__()
            self.ended.set()
            self._settle(self.exited)

    async def _value(self, event: CellValue) -> None:
        if (recorder := self.recorders.get(event.cell)) is None:
            return
        try:
            await recorder.value(event.role, event.media_type, event.data, instead=event.instead)
        except AtelierError as error:
            logger.warning("a cell's value is not kept", code=error.code)

    def _settle(self, done: CellEnded | Exited | str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(done)

    async def cancel(self) -> None:
        """Ask for its end."""
        with contextlib.suppress(AtelierError):
            await self._services.sandbox.cancel(self.run)

    async def stop(self) -> None:
        """End it, and wait for that."""
        if not self.ended.is_set():
            await self.cancel()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)
        for recorder in self.recorders.values():
            with contextlib.suppress(AtelierError):
                await recorder.settle()


def ending(exited: Exited | str) -> str:
    """Say in words how an interpreter ended, and what that means."""
    if isinstance(exited, str):
        return f"The interpreter is lost; its variables are gone. {exited}".strip()
    if exited.reason is Reason.EXITED:
        how = f"It called exit ({exited.code})."
    elif exited.reason is Reason.SIGNALLED:
        how = f"It was ended by {exited.signal}."
    else:
        how = exited.detail
    return f"The interpreter has ended; its variables are gone. {how}"


def in_event(row: RowMapping) -> dict[str, Any]:
    """Return a cell as events tell it: of its code only the beginning."""
    shown = Cell.model_validate({**row, "code": row["code"][:_SHOWN]}).model_dump(mode="json")
    shown.pop("events")
    return shown
