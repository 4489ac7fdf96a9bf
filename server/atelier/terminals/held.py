"""A terminal in the process that holds it: its program, its screen, and the session's files kept up to date in it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import structlog

from atelier.errors import AtelierError
from atelier.files import Changes
from atelier.sandbox import Exited, Output, Reason, RunLimits, RunSpec, Window
from atelier.services import Services
from atelier.terminals import relay
from atelier.terminals.screen import Screen

logger = structlog.get_logger(__name__)
_BEHIND_SECONDS = 1.0  # how long the program waits for viewers who show nothing
_ELSEWHERE_SECONDS = 15.0  # after which another process that has said nothing looks no more
_FAR = 1 << 53  # bytes: output is bounded by what is kept of it, not counted
_SUBMITS = frozenset(b"\r\n")


class Held:
    """`start` it, then `drive` it to its end."""

    def __init__(self, services: Services, session_id: str, terminal_id: str, window: Window) -> None:
        self.session_id, self.id = session_id, terminal_id
        self.screen = Screen(window)
        self._services = services
        self._changes = Changes(services, session_id)
        self._order = asyncio.Lock()
        self._sandbox_id = ""
        self._why = ""
        self._used = time.monotonic()

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
        self._changes.__enter__()
        try:
            files = {path: data for path, data in (await self._changes.take()).items() if data is not None}
            spec = RunSpec(language, entry, files, bounds, args, terminal=self.screen.window)
            self._sandbox_id = await self._services.sandbox.start(spec)
        except BaseException:
            self._changes.__exit__()
            raise

    async def drive(self) -> dict[str, Any]:
        """Show what the program prints until it ends; returns how."""
        try:
            async for event in self._services.sandbox.events(self._sandbox_id):
                if isinstance(event, Output):
                    place = self.screen.tape.end
                    self.screen.show(event.data)
                    if self._elsewhere():
                        await relay.send_output(self._services.bus, self.id, place, event.data)
                    await self.screen.paced(_BEHIND_SECONDS)
                elif isinstance(event, Exited):
                    return {
                        "reason": event.reason.value,
                        "code": event.code,
                        "detail": self._why or event.detail,
                    }
        except AtelierError as error:
            return {"reason": Reason.LOST.value, "code": None, "detail": error.detail}
        finally:
            self._changes.__exit__()
        return {"reason": Reason.LOST.value, "code": None, "detail": ""}

    async def finish(self, result: dict[str, Any]) -> None:
        """Say to everyone that it has ended."""
        self.screen.end(result)
        if not self._services.bus.alone:
            await self.tell()

    async def type(self, data: bytes) -> None:
        """Hand keys to the program; what a line begins finds the files as they are in the editor at that moment."""
        async with self._order:
            if not _SUBMITS.isdisjoint(data):
                await self._bring_files()
            await self._services.sandbox.write(self._sandbox_id, data)

    async def _bring_files(self) -> None:
        try:
            if changed := await self._changes.take():
                await self._services.sandbox.place(self._sandbox_id, changed)
        except AtelierError as error:
            logger.warning("files did not reach a terminal", terminal=self.id, code=error.code)
            self.screen.show(
                f"\r\n[The session's files are not up to date here: {error.detail}]\r\n".encode()
            )

    async def resize(self, window: Window) -> None:
        """Give the terminal the size that somebody's window has."""
        if window != self.screen.window:
            await self._services.sandbox.resize(self._sandbox_id, window)
            self.screen.window = window
            await self.tell()

    async def end(self, why: str = "") -> None:
        """End the program."""
        self._why = why
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
