"""A terminal in the process that holds it: its program, its screen, and the session's files kept up to date in it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any

import structlog

from atelier.auth import Caller, has_egress
from atelier.errors import AtelierError, Invalid
from atelier.packages import packages_of
from atelier.runs import Exchange, build_limits
from atelier.sandbox import Changed, Exited, Looked, Output, Packages, Reason, RunLimits, RunSpec, Window
from atelier.services import Services
from atelier.terminals import relay
from atelier.terminals.screen import Screen, Typist

logger = structlog.get_logger(__name__)
_BEHIND_SECONDS = 1.0  # how long the program waits for viewers who show nothing
_ELSEWHERE_SECONDS = 15.0  # after which another process that has said nothing looks no more
_FAR = 1 << 50  # bytes: output is bounded by what is kept of it, not counted
_SUBMITS = frozenset(b"\r\n")
_LOOK_SECONDS = 1.0  # after something was typed or shown, until what was written meanwhile is fetched
_LOOK_ANYWAY_SECONDS = 15.0


class Held:
    """`start` it, then `drive` it to its end."""

    def __init__(
        self, services: Services, session_id: str, terminal_id: str, window: Window, opener: Typist
    ) -> None:
        self.session_id, self.id = session_id, terminal_id
        self.screen = Screen(window)
        self._services = services
        self._exchange = Exchange(
            services, session_id, _caller(opener), may_edit=opener.may_edit, say=self._say
        )
        self._order = asyncio.Lock()
        """Of what is typed."""
        self._sandbox_id = ""
        self._why = ""
        self._used = time.monotonic()
        self._active = asyncio.Event()

    async def start(self, language: str, entry: str, args: list[str]) -> None:
        """Start the program with the session's files. Raises what the sandbox does."""
        limits = self._services.limits
        bounds = RunLimits(
            wall_seconds=limits.terminal_wall_seconds,
            cpu_seconds=limits.terminal_cpu_seconds,
            memory_mb=limits.run_memory_mb,
            processes=limits.run_processes,
            disk_mb=limits.run_disk_mb,
            output_bytes=_FAR,
        )
        self._exchange.__enter__()
        try:
            files = await self._exchange.first()
            packages, refusal = await self._packages(language, files)
            async with self._services.db.read() as db:
                network = await has_egress(db, self.session_id, allowed=self._services.program_egress)
            spec = RunSpec(
                language, entry, files, bounds, args,
                terminal=self.screen.window, collect=self._exchange.collect, build=build_limits(limits),
                packages=packages, network=network,
            )  # fmt: skip
            self._sandbox_id = await self._services.sandbox.start(spec)
            if refusal:
                await self._say(refusal)
        except BaseException:
            self._exchange.__exit__()
            raise

    async def _packages(self, language: str, files: Mapping[str, bytes]) -> tuple[tuple[Packages, ...], str]:
        """Return what is to be installed, or why nothing is: a terminal opens all the same, to mend the file in it."""
        try:
            return await packages_of(self._services, language, files), ""
        except Invalid as error:
            return (), f"No packages are installed. {error.detail} {error.next_step}"

    async def drive(self) -> dict[str, Any]:
        """Show what the program prints, and take what it writes, until it ends; returns how."""
        looking = asyncio.create_task(self._look_regularly(), name=f"look {self.id}")
        try:
            async for event in self._services.sandbox.events(self._sandbox_id):
                match event:
                    case Output():
                        self._active.set()
                        await self._show(event.data)
                        await self.screen.paced(_BEHIND_SECONDS)
                    case Changed():
                        self._exchange.changed(event)
                    case Looked():
                        await self._exchange.looked()
                    case Exited():
                        await self._exchange.looked()
                        detail = self._why or event.detail
                        return {"reason": event.reason.value, "code": event.code, "detail": detail}
        except AtelierError as error:
            return {"reason": Reason.LOST.value, "code": None, "detail": error.detail}
        finally:
            looking.cancel()
            self._exchange.__exit__()
        return {"reason": Reason.LOST.value, "code": None, "detail": ""}

    async def _show(self, data: bytes) -> None:
        place = self.screen.tape.end
        self.screen.show(data)
        if self._elsewhere():
            await relay.send_output(self._services.bus, self.id, place, data)

    async def _say(self, words: str) -> None:
        """Show words of ours among the program's; a name in them may hold anything."""
        words = "".join(letter if letter.isprintable() else "?" for letter in words)
        await self._show(f"\r\n\x1b[2m[{words}]\x1b[0m\r\n".encode())

    async def finish(self, result: dict[str, Any]) -> None:
        """Say to everyone that it has ended."""
        self.screen.end(result)
        if not self._services.bus.alone:
            await self.tell()

    async def type(self, data: bytes, typist: Typist) -> None:
        """Hand keys to the program; what a line begins finds the files as they are in the editor at that moment."""
        async with self._order:
            await self._exchange.admit(self._sandbox_id, typist.name, may_edit=typist.may_edit)
            if not _SUBMITS.isdisjoint(data):
                await self._exchange.bring(self._sandbox_id)
                self._exchange.author = _caller(typist)
            await self._services.sandbox.write(self._sandbox_id, data)
            self._active.set()

    # --- what the program writes comes back

    async def _look_regularly(self) -> None:
        """Fetch what was written, soon after something happened and now and then."""
        while self._exchange.writes_back:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._active.wait(), _LOOK_ANYWAY_SECONDS)
            await asyncio.sleep(_LOOK_SECONDS)
            self._active.clear()
            await self._exchange.look(self._sandbox_id)

    async def resize(self, window: Window) -> None:
        """Give the terminal the size that somebody's window has."""
        if window != self.screen.window:
            await self._services.sandbox.resize(self._sandbox_id, window)
            self.screen.window = window
            await self.tell()

    async def end(self, why: str = "") -> None:
        """End the program."""
        self._why = why
        await self._exchange.look(self._sandbox_id)
        await self._services.sandbox.cancel(self._sandbox_id)

    # --- who looks at it, here and through other processes

    async def tell(self) -> None:
        """Tell everyone the size, who is there, and whether it has ended."""
        self.screen.wake()
        if self._elsewhere():
            await relay.send_state(self._services.bus, self.id, self.screen)

    async def looked_at(self, process: str, people: dict[str, str], place: int) -> None:
        """Take note that another process has viewers; give it what it lacks from a place on."""
        self.screen.elsewhere[process] = (time.monotonic(), people)
        await self.tell()
        tape = self.screen.tape
        for start in range(max(place, tape.start), tape.end, relay.PIECE):
            await relay.send_output(self._services.bus, self.id, start, tape.since(start, relay.PIECE))

    def _elsewhere(self) -> bool:
        gone = time.monotonic() - _ELSEWHERE_SECONDS
        known = self.screen.elsewhere
        for process in [process for process, (at, _) in known.items() if at < gone]:
            del known[process]
        return bool(known)

    def unused_seconds(self) -> float:
        """Return for how long nobody has looked at it."""
        if self.screen.viewers or self._elsewhere():
            self._used = time.monotonic()
        return time.monotonic() - self._used


def _caller(typist: Typist) -> Caller:
    return Caller(typist.user_id, typist.name, "", is_admin=False)
