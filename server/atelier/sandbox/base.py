"""The sandbox: runs one untrusted program and streams what it prints. A client of the runner service.

It does not promise permissions or history: those are the `runs` feature's. Events of one run are numbered
from 1; the last one is `exited`, exactly once, whatever happens. Where a spec has `collect`, the files that the program
made, changed or deleted come as `Changed` after all output and before `exited`: whole, each path once, checked like
those that are given, within the bounds that were asked for. They are held in memory, so they should be taken at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Reason(StrEnum):
    """Why a run ended."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    WALL_TIME = "wall_time"
    CPU_TIME = "cpu_time"
    MEMORY = "memory"
    OUTPUT = "output"
    DISK = "disk"
    CANCELLED = "cancelled"
    ENVIRONMENT = "environment"
    """Its packages could not be installed, so it never began."""
    LOST = "lost"


class Outcome(StrEnum):
    """How a cell ended."""

    DONE = "done"
    ERROR = "error"
    INTERRUPTED = "interrupted"
    WALL_TIME = "wall_time"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class RunLimits:
    wall_seconds: float
    cpu_seconds: float
    memory_mb: int
    processes: int
    disk_mb: int
    output_bytes: int


@dataclass(frozen=True, slots=True)
class Window:
    """A terminal's size, in characters."""

    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class BuildLimits:
    """Bounds on compiling, where they are others than the program's; disk and output have the program's."""

    wall_seconds: float
    cpu_seconds: float
    memory_mb: int
    processes: int


@dataclass(frozen=True, slots=True)
class Collect:
    """How much of what a program writes comes back; what is beyond it is left out, and that is said."""

    files: int
    file_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class CellLimits:
    """Bounds on one cell of an interpreter; a cell over its time or output is interrupted and the variables stay."""

    wall_seconds: float
    output_bytes: int
    value_bytes: int
    """Values and figures together."""


@dataclass(frozen=True, slots=True)
class Packages:
    """Packages of an index that a program needs."""

    tool: str
    """python or node."""
    wanted: tuple[str, ...]
    """For python requirements ("numpy>=2"), for node "name@range"."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One execution. `files` are laid out beneath the working folder; `entry` is one of them.

    With `terminal` the program's streams are one pseudo-terminal (stream `terminal`), and the entry may be empty: the
    language's own prompt starts, for Bash a shell. With `cells` there is no entry: the program is an interpreter that
    stays, and is sent cells; `Exited` is its end, and what has no `CellEnded` by then ended with it.
    """

    language: str
    entry: str
    files: Mapping[str, bytes]
    limits: RunLimits
    args: Sequence[str] = ()
    stdin: bytes | None = None
    """Bytes given at once and closed, or None: stdin stays open for `write`."""
    env: Mapping[str, str] = field(default_factory=dict)
    terminal: Window | None = None
    collect: Collect | None = None
    """None: what the program writes goes with it."""
    build: BuildLimits | None = None
    """None: `limits` hold for compiling and running together."""
    packages: tuple[Packages, ...] = ()
    """Installed before it begins, unless they are from a run before; what is said meanwhile is the stream `install`, in a
    terminal part of what it shows. When it fails the run ends as `environment`; a terminal says so and begins without."""
    cells: CellLimits | None = None
    network: bool = False
    """Whether the program reaches public addresses, through the runner's proxy; else it reaches nothing."""


@dataclass(frozen=True, slots=True)
class Started:
    seq: int
    version: str
    """The runtime, in words: "Python 3.11.2"."""


@dataclass(frozen=True, slots=True)
class Output:
    seq: int
    stream: str
    """stdout, stderr or terminal; install before `Started`."""
    data: bytes
    cell: int = 0
    """Whose output it is, in an interpreter; it may come after the cell's end, from what that left running."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A file as it is at the end, or at the moment of a `look`."""

    seq: int
    path: str
    data: bytes | None
    """None: it was given and is gone."""


@dataclass(frozen=True, slots=True)
class Looked:
    """A `look` is over: whatever had changed has come."""

    seq: int


@dataclass(frozen=True, slots=True)
class CellBegan:
    """A cell runs now."""

    seq: int
    cell: int


@dataclass(frozen=True, slots=True)
class CellValue:
    """The value of a cell's last expression, or what it displayed, in one form."""

    seq: int
    cell: int
    role: str
    """value or display."""
    media_type: str
    data: bytes
    instead: bool = False
    """A plain text for whoever cannot show the richer form, which comes next."""


@dataclass(frozen=True, slots=True)
class CellError:
    name: str
    message: str
    text: str
    """The traceback, which names cells and lines."""
    place: tuple[int, int] | None
    """The innermost line of a cell that it went through: (cell, line)."""


@dataclass(frozen=True, slots=True)
class CellEnded:
    """A cell has ended, and what it printed itself has come."""

    seq: int
    cell: int
    outcome: Outcome
    wall_seconds: float
    error: CellError | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    path: str
    code: str
    """link, hard_link, special, name, unreadable, too_large, too_many, too_much, too_deep."""


@dataclass(frozen=True, slots=True)
class Collected:
    """How far the files came."""

    complete: bool
    """False: it was given up in between; what came before is whole."""
    left_out: tuple[LeftOut, ...] = ()
    """The first of them."""
    count: int = 0
    """How many were left out."""


@dataclass(frozen=True, slots=True)
class Exited:
    seq: int
    reason: Reason
    code: int | None
    signal: str | None
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    detail: str = ""
    collected: Collected | None = None
    """None: nothing was asked for, or nothing could be collected: out of memory, not compiled, lost, or killed before it could be."""


Event = Started | Output | Changed | Looked | CellBegan | CellValue | CellEnded | Exited


@dataclass(frozen=True, slots=True)
class Control:
    """One thing that a sandbox must do, and whether it does it here."""

    name: str
    state: str
    """enforced, partial or absent."""
    detail: str


@dataclass(frozen=True, slots=True)
class Language:
    name: str
    title: str
    extensions: tuple[str, ...]
    version: str
    """Empty when its toolchain is missing; then `hint` says how to get it."""
    hint: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    available: bool
    """Whether programs can run at all; when not, `hint` names the missing tool and how to get it."""
    hint: str
    controls: tuple[Control, ...]
    languages: tuple[Language, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A runner that has claimed a run: this process of it may begin it, and no other."""

    address: str
    instance: str
    claim: str


@dataclass(frozen=True, slots=True)
class Turn:
    """A run that waits to be begun, or may be begun now."""

    run: str
    """The caller's name of it."""
    person: str = ""
    priority: int = 0
    """0 before 1; at most 3."""
    language: str = ""
    place: Place | None = None
    """Where it may be begun, for `Sandbox.start`; None where there is only one."""


class Turns(Protocol):
    """Who runs next. Errors: TooMany `queue_full`; Unavailable `queue_unavailable`, nothing was queued.

    A run that was put is taken by the same process, once. What a process that ended had queued is forgotten.
    """

    @property
    def waiting(self) -> int:
        """How many wait, as far as is known without asking."""
        ...

    async def refuse_if_full(self) -> None:
        """Raise when no further run is taken."""
        ...

    async def put(self, turn: Turn, *, again: bool = False) -> None:
        """Queue a run; one that had its turn and could not begin stands in front, `again`."""
        ...

    async def take(self) -> Turn:
        """Wait for the next run that may begin."""
        ...

    async def done(self, turn: Turn) -> None:
        """Say that a run which had its turn has ended, or could not begin."""
        ...

    async def drop(self, run: str) -> bool:
        """Take a run out of the queue; says whether it was there."""
        ...

    async def positions(self, runs: Sequence[str]) -> Mapping[str, int]:
        """Return how many runs come before each of these that waits."""
        ...


class Sandbox(Protocol):
    """Errors: Unavailable `sandbox_unavailable` (with the hint), Invalid `language_unknown`, NotFound `run_not_found`;
    from `start`, Unavailable `runner_gone`: it has not begun there, and may be begun elsewhere."""

    @property
    def turns(self) -> Turns:
        """The queue of those who wait for it."""
        ...

    async def capabilities(self) -> Capabilities: ...

    async def start(self, spec: RunSpec, place: Place | None = None) -> str:
        """Begin a run, at the place of its turn; returns its id in this sandbox."""
        ...

    def events(self, run: str) -> AsyncIterator[Event]:
        """Yield the run's events from its first; ends after `Exited`. May be called once per run."""
        ...

    async def write(self, run: str, data: bytes, *, close: bool = False) -> None:
        """Send bytes to stdin, and close it when asked; a program that has ended ignores both."""
        ...

    async def bring(self, run: str, files: Mapping[str, bytes | None]) -> None:
        """Bring files of the working folder up to date while it runs; None takes one away. Input written later finds them.

        Raises:
            Invalid: `path_invalid`, `files_too_large`.
        """
        ...

    async def look(self, run: str) -> None:
        """Let what has been written since the last look come as `Changed` events, and then one `Looked`.

        Nothing comes for a run without `collect`, and none for one that has ended.
        """
        ...

    async def cell(self, run: str, number: int, path: str, code: str) -> None:
        """Hand an interpreter its next cell, numbered from 1; they run in order, one at a time. One that came before is ignored.

        `path` is the file that it stands in, or empty: its folder is where it imports from.

        Raises:
            Invalid: `cell_invalid`, `path_invalid`, `cells_full`.
        """
        ...

    async def interrupt(self, run: str, cell: int) -> None:
        """Interrupt a cell, if it is the one that runs; the variables stay."""
        ...

    async def resize(self, run: str, window: Window) -> None:
        """Change the size of a run's terminal. Raises Invalid `window_invalid`."""
        ...

    async def signal(self, run: str, name: str) -> None:
        """Send a signal, "INT" for example, to the program; one that has ended ignores it. Raises Invalid `signal_unknown`."""
        ...

    async def cancel(self, run: str) -> None:
        """End the whole process tree; its `Exited` has the reason `cancelled` unless it had ended before."""
        ...
