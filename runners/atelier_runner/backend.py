"""Starts runs over one carrier: what is asked for is checked, a sandbox is taken, and its events are kept until read."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from functools import partial

from atelier_runner.carrier import Carrier, Idle, Sandbox
from atelier_runner.doctor import examine
from atelier_runner.environments import Environments, Held, Preparing
from atelier_runner.errors import LanguageUnknown, RunUnknown, SandboxUnavailable
from atelier_runner.languages import Language
from atelier_runner.model import Capabilities, Event, Exited, Output, Reason, Spec, Window
from atelier_runner.outward import Outward
from atelier_runner.preloading import module_for
from atelier_runner.run import Run

MOST_RUNS = 64
"""Runs at once; a queue belongs to the caller."""
MOST_UNREAD = 256
"""Ended runs whose events nobody took; the oldest are forgotten."""


class Backend:
    """Starts runs and streams their events. Made by `open_local`, `open_docker` and `open_kubernetes`.

    `untrusted` refuses to run anything while a control is absent; `strict` starts a new interpreter for every program,
    where else a Python program goes on in one of its sandbox that is there already.
    """

    def __init__(
        self,
        carrier: Carrier,
        *,
        untrusted: bool,
        strict: bool = False,
        outward: Outward | None = None,
        environments: Environments | None = None,
    ) -> None:
        self.outward = outward or Outward()
        """The way out of programs that have a network."""
        self._carrier = carrier
        self._environments = environments
        self._untrusted = untrusted
        self._strict = strict
        self._runs: dict[str, Run | Preparing] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._examination: asyncio.Task[Capabilities] | None = None

    async def capabilities(self) -> Capabilities:
        """Say what can be enforced here, found by trying each control once; takes about a second the first time."""
        if self._examination is None:
            self._examination = asyncio.create_task(self._examine(), name="doctor")
        return await asyncio.shield(self._examination)

    async def _examine(self) -> Capabilities:
        languages = tuple(language.info for language in (await self.languages()).values())
        if self._carrier.hint:
            return Capabilities(False, self._carrier.hint, (), languages)
        controls, failure = await examine(self._attempt, self._carrier.means)
        return Capabilities(failure is None, failure or "", controls, languages)

    async def _attempt(self, spec: Spec) -> tuple[bytes, Exited]:
        """Run one of the doctor's probes to its end; returns its standard output and its result."""
        printed = bytearray()
        async for event in self.events(await self._execute(spec)):
            if isinstance(event, Output) and event.stream == "stdout":
                printed += event.data
            elif isinstance(event, Exited):
                return bytes(printed), event
        raise SandboxUnavailable("A probe's events ended without a result.")

    async def languages(self) -> dict[str, Language]:
        """Return the catalogue as found here."""
        return await self._carrier.languages()

    async def idle(self) -> Idle:
        """Say how many sandboxes wait, started, what memory they hold, and how many runs found one."""
        return await self._carrier.idle()

    def kept(self) -> tuple[int, int]:
        """Say how many environments of installed packages there are, and how many bytes they have."""
        return (0, 0) if self._environments is None else self._environments.kept

    async def warm(self) -> None:
        """Wait until as many sandboxes wait as are meant to."""
        await self._carrier.warm()

    async def start(self, spec: Spec) -> str:
        """Begin a run; returns its id.

        Raises:
            SandboxUnavailable: no sandbox can be started, or one control is missing in untrusted mode.
            LanguageUnknown: not in the catalogue, or its toolchain is missing.
            SpecInvalid: a path, entry, argument or limit is refused.
        """
        if self._untrusted:
            missing = [
                control.name for control in (await self.capabilities()).controls if control.state == "absent"
            ]
            if missing:
                raise SandboxUnavailable(
                    f"Untrusted programs are refused here: {', '.join(missing)} cannot be enforced.",
                    hint="See `atelier doctor` for what each control needs.",
                )
        return await self._execute(spec)

    async def _execute(self, spec: Spec) -> str:
        """Begin a run without asking for capabilities; the doctor's own probes come through here."""
        languages = await self.languages()
        language = languages.get(spec.language)
        if language is None or not language.info.version:
            ready = sorted(name for name, known in languages.items() if known.info.version)
            raise LanguageUnknown(
                f"{spec.language!r} cannot run here; there is: {', '.join(ready) or 'nothing'}.",
                hint="" if language is None else language.info.hint,
            )
        spec.check()
        if spec.cells is not None and not language.cells:
            raise LanguageUnknown(
                f"{language.info.title} has no interpreter that takes cells.", hint="Use Python."
            )
        if not spec.entry and not language.prompt:
            raise LanguageUnknown(
                f"{language.info.title} has no prompt of its own.", hint="Start Bash or Python."
            )
        if self._carrier.hint:
            raise SandboxUnavailable(
                "Programs cannot run here: there is no sandbox.", hint=self._carrier.hint
            )
        if len(self._tasks) >= MOST_RUNS:
            raise SandboxUnavailable(
                f"{MOST_RUNS} programs run at once already.", hint="Try again in a moment."
            )
        held: Held | None = None
        if spec.packages:
            if self._environments is None:
                raise SandboxUnavailable(
                    "Packages cannot be installed here: this runner's sandboxes have no folder in common.",
                    hint="Remove requirements.txt or package.json, or put the packages into the language's image.",
                )
            held = await self._environments.find(spec.packages)
            if held is None:
                return self._add(self._prepare(spec, language, self._environments), None, None)
        try:
            run, sandbox = await self._begin(language, spec, held)
        except BaseException:
            if held is not None:
                held.let_go()
            raise
        return self._add(run, sandbox, held)

    async def _begin(self, language: Language, spec: Spec, held: Held | None) -> tuple[Run, Sandbox]:
        staged = spec.build if spec.entry and language.build else None
        limits = spec.limits if staged is None else staged.widest(spec.limits)
        environments = {} if held is None else held.paths
        # What is installed for a program may be another numpy than the one that is here.
        preload = "" if self._strict or environments else module_for(spec, language.preload)
        sandbox = await self._carrier.take(language, limits, preload)
        run = Run(spec, language, sandbox, self.outward, environments=environments, fresh=self._strict)
        return run, sandbox

    def _prepare(self, spec: Spec, language: Language, environments: Environments) -> Preparing:
        """Return a run whose packages are still to be installed."""
        return Preparing(spec, partial(environments.prepare, spec.packages), partial(self._begin, language))

    def _add(self, run: Run | Preparing, sandbox: Sandbox | None, held: Held | None) -> str:
        name = secrets.token_hex(8)
        self._runs[name] = run
        self._tasks[name] = asyncio.create_task(self._drive(name, run, sandbox, held), name=f"run-{name}")
        return name

    async def _drive(
        self, name: str, run: Run | Preparing, sandbox: Sandbox | None, held: Held | None
    ) -> None:
        try:
            await run.drive()
        finally:
            closing = asyncio.create_task(_leave(sandbox, held), name=f"close-{name}")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            self._tasks.pop(name, None)
            for old in [key for key, known in self._runs.items() if known.ended][:-MOST_UNREAD]:
                del self._runs[old]

    async def events(self, run: str) -> AsyncIterator[Event]:
        """Yield the run's events from its first; ends after `Exited`. Leaving early cancels the run.

        Raises:
            RunUnknown: no run has this id, or its events were taken.
        """
        found = self._runs.get(run)
        if found is None or found.taken:
            raise RunUnknown(f"There is no run {run!r} whose events can be read.")
        found.taken = True
        try:
            async for event in found.events():
                yield event
        finally:
            found.stop(Reason.CANCELLED, files=False)
            self._runs.pop(run, None)

    async def write(self, run: str, data: bytes, *, close: bool = False) -> None:
        """Send bytes to stdin, and close it when asked; a program that has ended ignores both."""
        if (found := self._runs.get(run)) is not None and not found.ended:
            await found.write(data, close=close)

    async def bring(self, run: str, files: Mapping[str, bytes | None]) -> None:
        """Bring files of a run up to date while it runs; None takes one away.

        Raises:
            SpecInvalid: `path_invalid`, `files_too_large`.
        """
        if (found := self._runs.get(run)) is not None:
            await found.bring(files)

    async def look(self, run: str) -> None:
        """Let what a run's program has written since the last look come as events, and then `Looked`."""
        if (found := self._runs.get(run)) is not None:
            await found.look()

    async def cell(self, run: str, number: int, path: str, code: str) -> None:
        """Hand an interpreter its next cell, from 1; `path` is the file that it stands in, or empty. One that came before is ignored.

        Raises:
            SpecInvalid: `no_cells`, `cell_invalid`, `path_invalid`, `cells_full`.
        """
        if (found := self._runs.get(run)) is not None and not found.ended:
            await found.cell(number, path, code)

    async def interrupt(self, run: str, number: int) -> None:
        """Interrupt a cell, if it is the one that runs; the variables stay. Raises SpecInvalid `no_cells`."""
        if (found := self._runs.get(run)) is not None and not found.ended:
            await found.interrupt(number)

    async def resize(self, run: str, window: Window) -> None:
        """Change the size of a run's terminal. Raises SpecInvalid `window_invalid`."""
        if (found := self._runs.get(run)) is not None:
            await found.resize(window)

    async def signal(self, run: str, name: str) -> None:
        """Send a signal, "INT" for example, to the program's process group; one that has ended ignores it.

        Raises:
            SpecInvalid: `signal_unknown`.
        """
        if (found := self._runs.get(run)) is not None:
            await found.send_signal(name)

    async def cancel(self, run: str) -> None:
        """End the whole process tree; what it wrote comes back if that is wanted. A run that has ended is left as it is."""
        if (found := self._runs.get(run)) is not None:
            found.stop(Reason.CANCELLED)

    async def close(self) -> None:
        """End every run and leave nothing behind."""
        if self._examination is not None:
            self._examination.cancel()
            await asyncio.gather(self._examination, return_exceptions=True)
        for run in self._runs.values():
            run.stop(Reason.CANCELLED, files=False)
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await asyncio.gather(*self._closing, return_exceptions=True)
        if self._environments is not None:
            await self._environments.close()
        self.outward.close()


async def _leave(sandbox: Sandbox | None, held: Held | None) -> None:
    """Close a run's sandbox, and then what it used."""
    try:
        if sandbox is not None:
            await sandbox.close()
    finally:
        if held is not None:
            held.let_go()
