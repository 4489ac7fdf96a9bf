"""A terminal in the process that holds it: its program, its screen, and the session's files kept up to date in it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any

import structlog

from atelier.auth import Caller, has_egress
from atelier.errors import AtelierError, Forbidden, Invalid, NotFound, Unavailable
from atelier.files import Changes, write_back
from atelier.packages import packages_of
from atelier.runs import build_limits
from atelier.sandbox import (
    Changed,
    Collect,
    Exited,
    Looked,
    Output,
    Packages,
    Reason,
    RunLimits,
    RunSpec,
    Window,
)
from atelier.services import Services
from atelier.terminals import relay
from atelier.terminals.screen import Screen, Typist

logger = structlog.get_logger(__name__)
_BEHIND_SECONDS = 1.0  # how long the program waits for viewers who show nothing
_ELSEWHERE_SECONDS = 15.0  # after which another process that has said nothing looks no more
_FAR = 1 << 50  # bytes: output is bounded by what is kept of it, not counted
_SUBMITS = frozenset(b"\r\n")
_FILES = 200  # that come back at once
_FILES_BYTES = 32 * 1024 * 1024
_LOOK_SECONDS = 1.0  # after something was typed or shown, until what was written meanwhile is fetched
_LOOK_ANYWAY_SECONDS = 15.0
_LOOKED_SECONDS = 2.0  # a flood of output may hold an answer up


class Held:
    """`start` it, then `drive` it to its end."""

    def __init__(
        self, services: Services, session_id: str, terminal_id: str, window: Window, opener: Typist
    ) -> None:
        self.session_id, self.id = session_id, terminal_id
        self.screen = Screen(window)
        self._services = services
        self._changes = Changes(services, session_id)
        self._order = asyncio.Lock()
        """Of what is typed."""
        self._looking = asyncio.Lock()
        self._exchange = asyncio.Lock()
        """Files go one way at a time."""
        self._sandbox_id = ""
        self._why = ""
        self._used = time.monotonic()
        self._author = _caller(opener)
        """Who entered the last line, or opened it: what is written from then on is theirs."""
        self._writes_back = opener.may_edit
        self._written: dict[str, bytes | None] = {}
        self._active = asyncio.Event()
        self._looked = asyncio.Event()

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
            collect = Collect(_FILES, limits.blob_bytes, _FILES_BYTES)
            packages, refusal = await self._packages(language, files)
            async with self._services.db.begin() as db:
                network = await has_egress(db, self.session_id, allowed=self._services.program_egress)
            spec = RunSpec(
                language, entry, files, bounds, args,
                terminal=self.screen.window, collect=collect, build=build_limits(limits), packages=packages, network=network,
            )  # fmt: skip
            self._sandbox_id = await self._services.sandbox.start(spec)
            if refusal:
                await self._say(refusal)
        except BaseException:
            self._changes.__exit__()
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
                        self._written[event.path] = event.data
                    case Looked():
                        await self._write_back()
                        self._looked.set()
                    case Exited():
                        await self._write_back()
                        detail = self._why or event.detail
                        return {"reason": event.reason.value, "code": event.code, "detail": detail}
        except AtelierError as error:
            return {"reason": Reason.LOST.value, "code": None, "detail": error.detail}
        finally:
            looking.cancel()
            self._changes.__exit__()
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
            if not typist.may_edit and self._writes_back:
                await self._look()  # what editors have written is theirs still
                await self._keep_to_itself(f"{typist.name} may run but not edit")
            if not _SUBMITS.isdisjoint(data):
                await self._bring_files()
                self._author = _caller(typist)
            await self._services.sandbox.write(self._sandbox_id, data)
            self._active.set()

    async def _bring_files(self) -> None:
        """Give the program what has changed in the session, once what it has written itself is there."""
        if not self._changes.waiting:
            return
        await self._look()
        try:
            async with self._exchange:
                if changed := await self._changes.take():
                    await self._services.sandbox.bring(self._sandbox_id, changed)
        except AtelierError as error:
            logger.warning("files did not reach a terminal", terminal=self.id, code=error.code)
            await self._say(f"The session's files are not up to date here: {error.detail}")

    # --- what the program writes comes back

    async def _look_regularly(self) -> None:
        """Fetch what was written, soon after something happened and now and then."""
        while self._writes_back:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._active.wait(), _LOOK_ANYWAY_SECONDS)
            await asyncio.sleep(_LOOK_SECONDS)
            self._active.clear()
            await self._look()

    async def _look(self) -> None:
        """Fetch what was written, and wait until it is in the session."""
        if not self._writes_back or self.screen.ended is not None:
            return
        async with self._looking:
            self._looked.clear()
            try:
                await self._services.sandbox.look(self._sandbox_id)
                await asyncio.wait_for(self._looked.wait(), _LOOKED_SECONDS)
            except TimeoutError:
                pass  # it comes later
            except AtelierError as error:
                logger.warning("a terminal's files were not looked at", terminal=self.id, code=error.code)

    async def _write_back(self) -> None:
        """Put what was written into the session as edits of the person who entered the last line."""
        files, self._written = self._written, {}
        if not files or not self._writes_back:
            return
        try:
            async with self._exchange:
                given = self._changes.given
                done = await write_back(self._services, self._author, self.session_id, given, files)
                await self._changes.wrote(files, done.places)
        except (Forbidden, NotFound):
            await self._keep_to_itself(f"{self._author.display_name} may not edit any more")
        except Unavailable as error:
            logger.warning("files of a terminal wait", terminal=self.id, code=error.code)
            self._written = {**files, **self._written}  # tried again at the next look
        except AtelierError as error:
            logger.warning("files of a terminal did not come back", terminal=self.id, code=error.code)
            await self._say(f"{len(files)} files could not be put into the session: {error.detail}")
        else:
            for item in done.left_out:
                await self._say(f"{item.path} is not in the session: {item.reason}")

    async def _keep_to_itself(self, why: str) -> None:
        """From here on nothing that this terminal writes reaches the session: somebody without the right to edit types."""
        self._writes_back = False
        await self._say(f"What is written from here on stays in this terminal: {why}")

    async def resize(self, window: Window) -> None:
        """Give the terminal the size that somebody's window has."""
        if window != self.screen.window:
            await self._services.sandbox.resize(self._sandbox_id, window)
            self.screen.window = window
            await self.tell()

    async def end(self, why: str = "") -> None:
        """End the program."""
        self._why = why
        await self._look()
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
