"""The seam between a run and what carries it: a carrier gives sandboxes in which the agent is ready.

Everything that is the same for all carriers (events, limits, reasons, the pool) is above this seam: `backend`, `run`,
`pool`. A carrier starts the agent somewhere (`local`: under bubblewrap; `docker_carrier`: in a container;
`kubernetes_carrier`: in a pod), holds the strings to it, and says by what means it holds each limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from atelier_runner.cgroups import Usage
from atelier_runner.languages import Language
from atelier_runner.model import Limits, Reason


class Meter(Protocol):
    """What a sandbox has used since its run began; None where nothing counts it."""

    def cpu_seconds(self) -> float | None: ...

    def usage(self) -> Usage: ...


@dataclass(frozen=True, slots=True)
class Fate:
    """Why a sandbox ended by itself, where its carrier is told."""

    reason: Reason
    detail: str = ""
    """In words; empty: what is always said of this reason."""


@dataclass(frozen=True, slots=True)
class Idle:
    """What waits, and what was asked for."""

    sandboxes: int
    memory_bytes: int
    """What they hold together; a page that several share counts in part for each (PSS)."""
    wanted: int
    """How many are meant to wait."""
    warm: int
    """How many runs found one waiting, since the start."""
    cold: int


class Sandbox(Protocol):
    """One started sandbox whose agent is ready. Used for one run, then closed."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    on_death: Callable[[], None] | None
    """Called when it ends by itself."""

    @property
    def group(self) -> Meter: ...

    @property
    def pid(self) -> int:
        """Its process 1 as this machine sees it; asked for only where `group` does not count. 0: it is elsewhere, and
        the agent is asked to count."""
        ...

    @property
    def own_user(self) -> bool:
        """Whether its processes are counted apart from those of other sandboxes, so that RLIMIT_NPROC means them only."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it waits at this moment."""
        ...

    async def limit(self, limits: Limits) -> None:
        """Apply one run's limits and count from here on.

        Raises:
            OSError: the memory limit is below what the waiting sandbox uses already.
        """
        ...

    async def memory(self) -> int:
        """Return the bytes that it holds while it waits; 0 where this machine cannot see it."""
        ...

    async def measure(self) -> Fate | None:
        """Take the final figures of `group`, while they can be had; say why it ended where that is known."""
        ...

    def end_program(self) -> None:
        """Ask the agent to kill the program, so that it can still send the files; it may not get to it."""
        ...

    def kill(self) -> None:
        """Kill everything inside, now."""
        ...

    async def close(self) -> None:
        """Kill everything inside and leave nothing behind."""
        ...


def together(pools: Iterable[Idle]) -> Idle:
    """Add up what several pools say."""
    found = list(pools)
    return Idle(
        sum(one.sandboxes for one in found),
        sum(one.memory_bytes for one in found),
        sum(one.wanted for one in found),
        sum(one.warm for one in found),
        sum(one.cold for one in found),
    )


class Launcher(Protocol):
    """Starts sandboxes of one kind."""

    async def start(self, limits: Limits) -> Sandbox:
        """Start a sandbox, prepared for these limits, and wait until its agent is ready.

        Raises:
            SandboxUnavailable: it cannot be started; the detail says why.
        """
        ...


@dataclass(frozen=True, slots=True)
class Means:
    """By what a carrier holds each control. The doctor tries whether it holds; these are its words."""

    identity: str
    calls: str
    memory: str
    processes: str
    cpu: str
    partial: Mapping[str, str] = field(default_factory=dict)
    """Control to what is weaker about it here."""
    shared: frozenset[str] = frozenset()
    """Namespaces that a sandbox may share with this machine and still count as isolated, in part."""
    hidden: tuple[str, ...] = ()
    """Paths that only this machine has, so that a sandbox must not show them."""
    reach: tuple[str, int] | None = None
    """What a sandbox of this carrier would reach if nothing kept it from the network; the doctor tries it."""


class Carrier(Protocol):
    """Where sandboxes come from."""

    hint: str
    """How to make it work where no sandbox can be started at all; else empty."""

    async def languages(self) -> dict[str, Language]:
        """Return the whole catalogue; what cannot run has no version."""
        ...

    async def take(self, language: Language, limits: Limits, preload: str = "") -> Sandbox:
        """Return a sandbox for a program of this language that nobody else has or had; the caller closes it. `limits` are
        the widest of its stages.

        Where one waits that has `preload` (a module of `language.preload`) imported already, it is that one.

        Raises:
            SandboxUnavailable: none was waiting and none can be started.
        """
        ...

    async def idle(self) -> Idle:
        """Say what waits, started."""
        ...

    async def warm(self) -> None:
        """Wait until as many sandboxes wait as are meant to."""
        ...

    def means(self) -> Means:
        """Say by what each limit is held; asked once a sandbox has run."""
        ...
