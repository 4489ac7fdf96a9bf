"""The runner's shapes: what is asked for, what comes back, what this machine can enforce."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum

from atelier_runner.errors import SpecInvalid

MIB = 1024 * 1024
PATH_BYTES = 1024
COMPONENT_BYTES = 255
MOST_COLUMNS = 1000
MOST_HOSTS = 64
HOST = re.compile(r"(?:[a-z0-9_.-]{1,253}|[0-9a-f:]{2,45}):[0-9]{1,5}")
# What tools leave behind and nobody wants to have in their files: names of files and folders, or `*` and an ending.
IGNORED = (
    "__pycache__", "*.pyc", "node_modules", ".git", ".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".ipynb_checkpoints",
)  # fmt: skip
CELL_BYTES = 128 * 1024
"""Of a cell's code."""
MOST_CELLS = 64
"""Cells that may wait for their turn."""
SIGNALS = ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "KILL", "STOP", "CONT")
"""What may be sent to a program."""


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
class Limits:
    """Bounds on one run, all its processes together."""

    wall_seconds: float = 60.0
    cpu_seconds: float = 20.0
    memory_mb: int = 512
    """MiB; files that the program writes count too, since they live in memory."""
    processes: int = 64
    """Processes and threads."""
    disk_mb: int = 64
    """MiB in the working folder, and as much in /tmp."""
    output_bytes: int = MIB
    """Both streams together."""

    def check(self) -> None:
        """Raise SpecInvalid `limit_invalid` unless every bound is a finite number above zero."""
        for spec in fields(self):
            value = getattr(self, spec.name)
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not math.isfinite(value)
                or value <= 0
            ):
                raise SpecInvalid("limit_invalid", f"{spec.name} must be a number above zero, not {value!r}")


@dataclass(frozen=True, slots=True)
class BuildLimits:
    """Bounds on compiling, where they are others than the program's; disk and output have the program's."""

    wall_seconds: float = 60.0
    cpu_seconds: float = 60.0
    memory_mb: int = 1024
    processes: int = 128

    def of(self, limits: Limits) -> Limits:
        """Return all bounds on the compile stage of a run that has these."""
        return replace(limits, **asdict(self))

    def widest(self, limits: Limits) -> Limits:
        """Return what both stages of a run that has these fit in."""
        return replace(
            limits, **{name: max(value, getattr(limits, name)) for name, value in asdict(self).items()}
        )


@dataclass(frozen=True, slots=True)
class Window:
    """A terminal's size, in characters."""

    columns: int
    rows: int

    def check(self) -> None:
        """Raise SpecInvalid `window_invalid` for a size that no terminal has."""
        if not (1 <= self.columns <= MOST_COLUMNS and 1 <= self.rows <= MOST_COLUMNS):
            raise SpecInvalid(
                "window_invalid",
                f"A terminal has 1 to {MOST_COLUMNS} columns and rows, not {self.columns} by {self.rows}.",
            )


@dataclass(frozen=True, slots=True)
class Collect:
    """Which of the files that a program wrote come back; the others are left out, and that is said."""

    files: int = 200
    """New and changed files."""
    file_bytes: int = 25 * MIB
    total_bytes: int = 32 * MIB
    """All of them together; the host holds as much at once."""
    entries: int = 10_000
    """Files and folders that are looked at."""
    seconds: float = 10.0
    """Until what has not come by then is given up."""
    ignored: tuple[str, ...] = IGNORED


MOST_PACKAGES = 200
WANTED_CHARACTERS = 300
# A name, perhaps extras, versions and a marker: nothing that could be an option, a path or an address.
_PYTHON = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:[\s\[(<>=!~;][A-Za-z0-9 ._\-\[\],<>=!~*+;()'\"]*)?"
)
_NODE = re.compile(
    r"(?:@[a-z0-9~-][a-z0-9._~-]*/)?[A-Za-z0-9~-][A-Za-z0-9._~-]*@[A-Za-z0-9 .*+^~<>=|-]*", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Packages:
    """What an environment holds: the packages that are asked for; what these need themselves comes with them."""

    tool: str
    """python (installed by uv) or node (by npm)."""
    wanted: tuple[str, ...]
    """For python requirements ("numpy>=2", PEP 508 without addresses), for node "name@range"."""

    def check(self) -> None:
        """Raise SpecInvalid `packages_invalid` for what is not a package of an index."""
        shape = {"python": _PYTHON, "node": _NODE}.get(self.tool)
        if shape is None:
            raise SpecInvalid("packages_invalid", f"{self.tool[:20]!r} installs nothing; python and node do.")
        if not 1 <= len(self.wanted) <= MOST_PACKAGES:
            raise SpecInvalid("packages_invalid", f"An environment has 1 to {MOST_PACKAGES} packages.")
        for text in self.wanted:
            if len(text) > WANTED_CHARACTERS or "\n" in text or not shape.fullmatch(text):
                raise SpecInvalid("packages_invalid", f"{text[:80]!r} is not a package of an index.")


@dataclass(frozen=True, slots=True)
class Network:
    """What a program may reach, through the runner's proxy and nothing else."""

    hosts: tuple[str, ...] | None = None
    """`name:port` each, in lower case, exactly these; None: any public address, at the ports that the runner allows."""
    private: bool = False
    """Whether the named hosts may have private addresses: only the runner itself says so, never a caller from outside."""

    def check(self) -> None:
        """Raise SpecInvalid `host_invalid` for what is no host with its port."""
        if self.hosts is None:
            if self.private:
                raise SpecInvalid("host_invalid", "Private addresses may be reached by name alone.")
            return
        if len(self.hosts) > MOST_HOSTS:
            raise SpecInvalid("host_invalid", f"At most {MOST_HOSTS} hosts can be named.")
        for host in self.hosts:
            if not HOST.fullmatch(host) or not 0 < int(host.rpartition(":")[2]) < 65536:
                raise SpecInvalid("host_invalid", f"{host[:80]!r} is not a host as name:port.")


@dataclass(frozen=True, slots=True)
class CellLimits:
    """Bounds on one cell of an interpreter; `Limits` are those on its whole life."""

    wall_seconds: float = 600.0
    """Then it is interrupted; an interpreter that does not follow is ended."""
    output_bytes: int = MIB
    """The first are kept; then it is interrupted too."""
    value_bytes: int = 16 * MIB
    """Values and figures together; further ones are left out."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One execution. `files` are laid out beneath the working folder; `entry` is one of them.

    With `terminal` the program's streams are one pseudo-terminal; its events have the stream `terminal`. The entry may
    then be empty: the language's own prompt starts, for Bash a shell. With `cells` there is no entry: the program is an
    interpreter, which stays, and is sent cells to run in order.
    """

    language: str
    entry: str
    files: Mapping[str, bytes]
    limits: Limits = field(default_factory=Limits)
    """Of the program; of compiling it too, both together, unless `build` is given."""
    args: Sequence[str] = ()
    stdin: bytes | None = None
    """Given at once, then closed; None keeps stdin open for `write`."""
    env: Mapping[str, str] = field(default_factory=dict)
    terminal: Window | None = None
    collect: Collect | None = None
    """None: what the program writes goes with it."""
    build: BuildLimits | None = None
    network: Network | None = None
    """None: it reaches nothing."""
    packages: tuple[Packages, ...] = ()
    """What must be installed before it begins, at most once for each tool; nothing where they are there already."""
    cells: CellLimits | None = None

    def check(self) -> None:
        """Raise SpecInvalid for a path, an entry, an argument or a limit that cannot be honoured."""
        self.limits.check()
        if self.build is not None:
            self.build.of(self.limits).check()
        if self.terminal is not None:
            self.terminal.check()
        if self.network is not None:
            self.network.check()
        for packages in self.packages:
            packages.check()
        if len({packages.tool for packages in self.packages}) < len(self.packages):
            raise SpecInvalid("packages_invalid", "Packages of one tool are one environment.")
        check_files(self.files, self.limits)
        if self.cells is not None:
            Limits(self.cells.wall_seconds, output_bytes=self.cells.output_bytes).check()
            if self.entry or self.terminal is not None or self.stdin is not None:
                raise SpecInvalid(
                    "cells_invalid", "An interpreter has no entry, no terminal, and input for each cell."
                )
        if self.entry not in self.files and (self.entry or (self.terminal is None and self.cells is None)):
            raise SpecInvalid("entry_not_found", f"The entry {self.entry!r} is not among the files.")
        texts = [*self.args, *self.env, *self.env.values()]
        if any("\0" in text for text in texts) or any(not name or "=" in name for name in self.env):
            raise SpecInvalid(
                "argument_invalid", "An argument or variable holds a NUL character, or a name is empty."
            )
        if sum(len(text.encode()) for text in texts) > 64 * 1024:
            raise SpecInvalid("argument_invalid", "Arguments and variables may have 64 KiB together.")


def check_files(files: Mapping[str, bytes], limits: Limits) -> None:
    """Raise SpecInvalid `path_invalid` or `files_too_large` for what cannot lie in the working folder."""
    for path in files:
        check_path(path)
    size = sum(map(len, files.values()))
    if size > limits.disk_mb * MIB:
        raise SpecInvalid(
            "files_too_large",
            f"The files have {size / MIB:.1f} MiB; the working folder of a run holds {limits.disk_mb} MiB.",
            hint="Remove large files from the session, or raise the run's disk limit.",
        )


def check_cell(path: str, code: str) -> None:
    """Raise SpecInvalid `cell_invalid` or `path_invalid` for a cell that cannot be run."""
    if path:
        check_path(path)
    try:
        size = len(code.encode())
    except UnicodeEncodeError:
        raise SpecInvalid("cell_invalid", "The cell is not valid Unicode.") from None
    if size > CELL_BYTES:
        raise SpecInvalid(
            "cell_invalid", f"A cell has at most {CELL_BYTES // 1024} KiB, not {size / 1024:.0f}.",
            hint="Put most of it into a file, and import that.",
        )  # fmt: skip


def check_path(path: str) -> None:
    """Raise SpecInvalid `path_invalid` unless `path` is relative, plain, and stays beneath its folder."""
    parts = path.split("/")
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        raise SpecInvalid("path_invalid", f"{path!r} is not valid Unicode.") from None
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise SpecInvalid("path_invalid", f"{path!r} is not a plain relative path.")
    if max(sizes) > COMPONENT_BYTES or sum(sizes) + len(sizes) - 1 > PATH_BYTES:
        raise SpecInvalid(
            "path_invalid",
            f"{path[:40]!r}… is longer than {PATH_BYTES} bytes, or a part than {COMPONENT_BYTES}.",
        )


@dataclass(frozen=True, slots=True)
class Started:
    seq: int
    version: str
    """The runtime, in words: "Python 3.11.2"."""


@dataclass(frozen=True, slots=True)
class Output:
    seq: int
    stream: str
    """stdout, stderr or terminal; install for what is said while packages are installed, before `Started`."""
    data: bytes
    cell: int = 0
    """Whose output it is, in an interpreter; it may come after the cell's end, from what that left running."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A file that the program made, changed or deleted, as it is at the end, or at the moment of a `look`."""

    seq: int
    path: str
    data: bytes | None
    """None: it was laid out and is gone."""


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
    """Something that does not come back."""

    path: str
    code: str
    """link, hard_link, special (a FIFO, a socket, a device), name (not UTF-8, or too long), unreadable, too_large,
    too_many, too_much (all together), too_deep."""


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
    """None: nothing was asked for, or the sandbox was gone before its files could be looked at."""


CellEvent = CellBegan | CellValue | CellEnded
Event = Started | Output | Changed | Looked | CellBegan | CellValue | CellEnded | Exited


@dataclass(frozen=True, slots=True)
class Control:
    """One thing that a sandbox must do, and whether it does it here."""

    name: str
    state: str
    """enforced, partial or absent."""
    detail: str


@dataclass(frozen=True, slots=True)
class LanguageInfo:
    name: str
    title: str
    extensions: tuple[str, ...]
    version: str
    """Empty when its toolchain is missing; then `hint` says how to get it."""
    hint: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    available: bool
    hint: str
    controls: tuple[Control, ...]
    languages: tuple[LanguageInfo, ...]
