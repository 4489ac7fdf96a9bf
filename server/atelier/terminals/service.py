"""Terminals: opened, looked at, ended; each held by one process and seen through all of them."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

import structlog
from prometheus_client import Gauge
from sqlalchemy import RowMapping

from atelier import files, times
from atelier.auth import Action, Caller, allows, require
from atelier.errors import AtelierError, Conflict, NotFound, TooMany
from atelier.events import publish
from atelier.ids import new_id
from atelier.runs import find_entry, find_language
from atelier.sandbox import Reason, Window
from atelier.services import Services
from atelier.tasks import TaskGroup
from atelier.terminals import queries, relay
from atelier.terminals.held import Held
from atelier.terminals.mirror import Mirror
from atelier.terminals.schemas import NewTerminal, Terminal
from atelier.terminals.screen import Typist

logger = structlog.get_logger(__name__)
OPEN = Gauge("atelier_terminals_open", "Terminals that this process holds")
_HOLD_SECONDS = 5.0
_LOST_AFTER = 20.0
_RETRY_SECONDS = 30.0
_ENDING_SECONDS = 5.0


class Terminals:
    """The terminals that this process holds, and copies of others that are looked at here; an async context manager."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._held: dict[str, Held] = {}
        self._driving: set[asyncio.Task[None]] = set()
        self._opening = 0
        self._mirrors: dict[str, Mirror] = {}
        self._tasks = TaskGroup("terminals")
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
        ending = [held.end("The server was stopped.") for held in self._held.values()]
        await asyncio.gather(*ending, return_exceptions=True)
        if self._driving:
            await asyncio.wait(self._driving, timeout=_ENDING_SECONDS)
        await self._tasks.cancel()

    # --- what people ask for

    async def open(self, caller: Caller, session_id: str, asked: NewTerminal) -> Terminal:
        """Open a terminal: a shell, a language's prompt, or one of the session's programs.

        Raises:
            NotFound: `session_not_found`, `entry_not_found`.
            Forbidden: `role_forbids`.
            Invalid: `language_unknown`, `files_too_large`.
            Conflict: `too_many_terminals`.
            TooMany: `terminals_full`.
            Unavailable: `sandbox_unavailable`.
        """
        async with self._services.db.begin() as db:
            role = await require(db, session_id, caller.user_id, Action.RUN)
            there = await queries.count(db, session_id)
        limits = self._services.limits
        if there >= limits.terminals_per_session:
            raise Conflict(
                "too_many_terminals",
                f"A session has at most {limits.terminals_per_session} terminals.",
                next_step="Close one that nobody needs.",
            )
        if len(self._held) + self._opening >= limits.concurrent_terminals:
            raise TooMany(
                "terminals_full",
                f"{limits.concurrent_terminals} terminals are open on this machine.",
                retry_after=_RETRY_SECONDS,
                next_step="Close one, or try again later.",
            )
        language, title = await self._language(session_id, asked)
        opener = Typist(caller.user_id, caller.display_name, allows(role, Action.EDIT))
        held = Held(self._services, session_id, new_id("trm"), Window(asked.columns, asked.rows), opener)
        self._opening += 1
        try:
            await held.start(language, asked.entry or "", asked.args)
            self._held[held.id] = held
        finally:
            self._opening -= 1
        try:
            async with self._services.db.begin() as db:
                await queries.add(
                    db, id=held.id, session_id=session_id, user_id=caller.user_id, title=title, language=language,
                    entry=asked.entry, created_at=times.now(), holder=self._own, held_at=times.now(),
                )  # fmt: skip
            terminal = await self.get(session_id, held.id)
            data = {"terminal": terminal.model_dump(mode="json")}
            await publish(self._services, session_id, "terminal.opened", data)
        except BaseException:
            await held.end()
            raise
        finally:
            driving = self._tasks.start(self._drive(held), name=held.id)  # to its end, near if that failed
            self._driving.add(driving)
            driving.add_done_callback(self._driving.discard)
        OPEN.set(len(self._held))
        return terminal

    async def _language(self, session_id: str, asked: NewTerminal) -> tuple[str, str]:
        """Return the language and what the terminal is called."""
        known = (await self._services.sandbox.capabilities()).languages
        if asked.entry is None:
            name = find_language(asked.language or "bash", "", known)
            titles = {language.name: language.title for language in known}
            return name, "Shell" if name == "bash" else titles[name]
        paths = [
            node.path
            for node in (await files.read_tree(self._services, session_id)).nodes
            if node.kind != "folder"
        ]
        entry = find_entry(asked.entry, [], paths)
        return find_language(asked.language, entry, known), entry

    async def get(self, session_id: str, terminal_id: str) -> Terminal:
        """Return an open terminal. Raises NotFound `terminal_not_found`."""
        async with self._services.db.read() as db:
            row = await queries.one(db, session_id, terminal_id)
        if row is None:
            raise NotFound(
                "terminal_not_found",
                "There is no such terminal; it may have ended.",
                next_step="Open a new one.",
            )
        return Terminal.model_validate(dict(row))

    async def of_session(self, session_id: str) -> list[Terminal]:
        """Return a session's open terminals, oldest first."""
        async with self._services.db.read() as db:
            return [Terminal.model_validate(dict(row)) for row in await queries.of_session(db, session_id)]

    async def end(self, session_id: str, terminal_id: str) -> None:
        """End a terminal and all that runs in it. Raises NotFound `terminal_not_found`."""
        await self.get(session_id, terminal_id)
        if (held := self._held.get(terminal_id)) is not None:
            await held.end()
        else:
            await relay.ask(self._services.bus, terminal_id, "end")

    async def look(self, session_id: str, terminal_id: str) -> Held | Mirror:
        """Return what a viewer here sees and types into. Raises NotFound `terminal_not_found`."""
        await self.get(session_id, terminal_id)
        if (held := self._held.get(terminal_id)) is not None:
            return held
        mirror = self._mirrors.get(terminal_id)
        if mirror is None:
            mirror = self._mirrors[terminal_id] = Mirror(self._services, self._own, terminal_id)
            self._tasks.start(self._follow(terminal_id, mirror), name=f"mirror {terminal_id}")
        return mirror

    # --- what goes on meanwhile

    async def _drive(self, held: Held) -> None:
        result: dict[str, Any] = _lost("Something went wrong here, not in the terminal.")
        try:
            result = await held.drive()
        finally:
            self._held.pop(held.id, None)
            OPEN.set(len(self._held))
            await held.finish(result)
            await self._ended(held.session_id, held.id, result)

    async def _ended(self, session_id: str, terminal_id: str, result: dict[str, Any]) -> None:
        async with self._services.db.begin() as db:
            there = await queries.remove(db, terminal_id)
        if there:
            await publish(self._services, session_id, "terminal.ended", {"id": terminal_id, **result})

    async def _follow(self, terminal_id: str, mirror: Mirror) -> None:
        try:
            await mirror.follow()
        finally:
            self._mirrors.pop(terminal_id, None)
            if mirror.screen.ended is None:
                mirror.screen.end(_lost("This server was stopped."))

    async def _hear(self) -> None:
        """Do what viewers at other processes ask of the terminals held here."""
        async with self._services.bus.subscribe(relay.ASK, bound=4096) as signals:
            async for signal in signals:
                asked = relay.asked(signal) if signal else {}
                held = self._held.get(asked.get("terminal", ""))
                if held is None:
                    continue
                try:
                    match asked:
                        case {"do": "type", "data": bytes(data), "typist": dict(typist)}:
                            await held.type(data, Typist(**typist))
                        case {"do": "resize", "columns": int(columns), "rows": int(rows)}:
                            await held.resize(Window(columns, rows))
                        case {
                            "do": "watch",
                            "process": str(process),
                            "people": dict(people),
                            "place": int(place),
                        }:
                            await held.looked_at(process, people, place)
                        case {"do": "end"}:
                            await held.end()
                except AtelierError as error:
                    logger.info("refused to another process", terminal=held.id, code=error.code)

    async def _look_after(self) -> None:
        """Say that this process is there, end what others left behind, and what nobody has looked at for long."""
        while True:
            await asyncio.sleep(_HOLD_SECONDS)
            most = self._services.limits.terminal_idle_seconds
            for held in list(self._held.values()):
                if held.unused_seconds() > most:
                    await held.end(f"Nobody looked at it for {most // 60} minutes.")
            if not self._services.bus.alone:
                try:
                    async with self._services.db.begin() as db:
                        await queries.hold(db, self._own, times.now())
                    await self._end_left_behind(times.now() - int(_LOST_AFTER * 1000))
                except AtelierError as error:
                    logger.warning("terminals are not looked after just now", code=error.code)

    async def _end_left_behind(self, held_before: int) -> None:
        async with self._services.db.read() as db:
            left: list[RowMapping] = await queries.left_behind(db, held_before)
        for row in left:
            await self._ended(row["session_id"], row["id"], _lost("The server that held it is gone."))


def _lost(detail: str) -> dict[str, Any]:
    return {"reason": Reason.LOST.value, "code": None, "detail": detail}
