"""Finds environments, and has each built once, however many runs wait for it.

A build belongs to those who wait for it: what it says is told to each from its beginning, and when the last of them has
gone it is ended and nothing of it stays.
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from atelier_runner.bubblewrap import ENVIRONMENTS
from atelier_runner.carrier import Carrier
from atelier_runner.environments.build import Say, build
from atelier_runner.environments.options import EnvironmentOptions
from atelier_runner.environments.store import Store
from atelier_runner.environments.tools import lay_out
from atelier_runner.errors import EnvironmentFailed, LanguageUnknown
from atelier_runner.languages import Language
from atelier_runner.model import MIB, Packages
from atelier_runner.outward import Outward

LANGUAGES = {"python": "python", "node": "javascript"}
"""In whose sandbox a tool's environments are built."""
FORMAT = 1
"""Changes when environments are laid out otherwise."""


@dataclass(frozen=True, slots=True)
class Held:
    """Environments that a run uses, by tool, by their names. Let go of them when it has ended."""

    store: Store
    names: Mapping[str, str]

    @property
    def paths(self) -> dict[str, str]:
        """Where each tool's environment is, inside."""
        return {tool: f"{ENVIRONMENTS}/{name}" for tool, name in self.names.items()}

    def let_go(self) -> None:
        """The run has ended. Call it once."""
        for name in self.names.values():
            self.store.let_go(name)


@dataclass(slots=True, eq=False)
class _Build:
    """One that is going on."""

    task: asyncio.Task[None]
    said: list[bytes] = field(default_factory=list)
    more: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0


class Environments:
    """The environments of one runner; `close` ends what is being built."""

    def __init__(
        self,
        store: Store,
        options: EnvironmentOptions,
        carrier: Carrier,
        outward: Outward,
    ) -> None:
        self._store = store
        self._options = options
        self._carrier = carrier
        self._outward = outward
        self._builds: dict[str, _Build] = {}
        self._turns = asyncio.Semaphore(options.at_once)
        self._laying = asyncio.Lock()
        self._after: set[asyncio.Task[None]] = set()

    @property
    def kept(self) -> tuple[int, int]:
        """How many there are, and their bytes."""
        return self._store.size

    async def find(self, wanted: Sequence[Packages]) -> Held | None:
        """Return what is wanted if all of it is there.

        Raises:
            LanguageUnknown: the language that the packages are for cannot run here.
        """
        names = {packages.tool: self._name(packages, await self._language(packages)) for packages in wanted}
        held: list[str] = []
        for name in names.values():
            if not self._store.hold(name):
                for other in held:
                    self._store.let_go(other)
                return None
            held.append(name)
        return Held(self._store, names)

    async def prepare(self, wanted: Sequence[Packages], say: Say) -> Held:
        """Return what is wanted, built where it is not there; `say` is told how that goes.

        Raises:
            EnvironmentFailed, SandboxUnavailable: as `build`; LanguageUnknown.
        """
        names: dict[str, str] = {}
        try:
            for packages in wanted:
                language = await self._language(packages)
                name = self._name(packages, language)
                while not self._store.hold(name):
                    await self._wait_for(name, packages, language, say)
                names[packages.tool] = name
        except BaseException:
            for name in names.values():
                self._store.let_go(name)
            raise
        return Held(self._store, names)

    async def _language(self, packages: Packages) -> Language:
        language = (await self._carrier.languages()).get(LANGUAGES[packages.tool])
        if language is None or not language.info.version:
            raise LanguageUnknown(
                f"Packages for {LANGUAGES[packages.tool]} are of no use here: it cannot run.",
                hint="" if language is None else language.info.hint,
            )
        return language

    def _name(self, packages: Packages, language: Language) -> str:
        return self._store.name(
            {
                "format": FORMAT,
                "tool": packages.tool,
                "wanted": sorted(set(packages.wanted)),
                "runtime": [language.info.version, language.command[0], platform.machine()],
                "index": self._options.index(packages.tool),
            }
        )

    async def _wait_for(self, name: str, packages: Packages, language: Language, say: Say) -> None:
        """Build an environment, or join those who wait for it already."""
        found = self._builds.get(name)
        if found is None or found.task.done():
            task = asyncio.create_task(self._build(name, packages, language), name=f"environment {name[:8]}")
            found = self._builds[name] = _Build(task)
            task.add_done_callback(lambda _: self._done(name, found))
        found.waiting += 1
        told = 0
        try:
            while True:
                while told < len(found.said):
                    told += 1
                    await say(found.said[told - 1])
                if found.task.done():
                    break
                found.more.clear()
                await found.more.wait()
            await asyncio.shield(found.task)
        finally:
            found.waiting -= 1
            if not found.waiting and not found.task.done():
                found.task.cancel()
                await asyncio.gather(found.task, return_exceptions=True)

    def _done(self, name: str, build: _Build) -> None:
        build.more.set()
        if self._builds.get(name) is build:
            del self._builds[name]

    async def _build(self, name: str, packages: Packages, language: Language) -> None:
        mine = self._builds[name]
        began = time.monotonic()

        async def say(data: bytes) -> None:
            mine.said.append(data)
            mine.more.set()

        count = len(packages.wanted)
        await say(f"Installing {count} {'package' if count == 1 else 'packages'}…\n".encode())
        if self._turns.locked():
            await say(b"Waiting for others that are being installed.\n")
        async with self._turns:
            try:
                size = await self._make(name, packages, language, say)
            except OSError as error:
                raise EnvironmentFailed(f"The environment could not be kept: {error.strerror}.") from error
        seconds = time.monotonic() - began
        await say(
            f"Installed in {seconds:.1f} s, {size / MIB:.1f} MiB; the next run finds it there.\n".encode()
        )
        self._later(self._store.sync, name)
        for gone in self._store.evict():
            self._later(self._store.discard, gone)
        self._store.let_go(name)

    async def _make(self, name: str, packages: Packages, language: Language, say: Say) -> int:
        """Build it and put it in place, held; returns its size."""
        async with self._laying:
            tool = await asyncio.to_thread(lay_out, self._store, packages.tool)
        staged = self._store.stage()
        try:
            size = await build(
                self._carrier, self._outward, language, packages, tool, self._options, staged, say
            )
            self._store.keep(name, staged, size)
        except BaseException:
            await asyncio.shield(self._later(self._store.discard, staged))
            raise
        self._store.hold(name)
        return size

    def _later(self, work: Callable[..., None], *args: object) -> asyncio.Task[None]:
        task = asyncio.create_task(asyncio.to_thread(work, *args), name="environment-after")
        self._after.add(task)
        task.add_done_callback(self._after.discard)
        return task

    async def close(self) -> None:
        """End what is being built, and wait for what must not be left half done."""
        tasks = [build.task for build in self._builds.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*self._after, return_exceptions=True)
