"""Starts one sandbox and holds its strings: process, control group, identity, stream to the agent.

Starting: bubblewrap is spawned, and while its child lays the sandbox out, that child is put under its control group and
limits; only then does it get the last file that it lays out, without which it goes no further, so nothing of the
sandbox ever runs outside them. All of that takes some 30 ms and happens in a few long-lived threads
(`--die-with-parent` is tied to the thread that spawned, so a passing one would not do), never on the path of a run.
What becomes another user is `setpriv`: Python itself would have to fork for it, which costs the more the larger this
process is. Ending: process 1 of the sandbox is killed through its pidfd, and the kernel kills the rest; threads of
their own wait for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from atelier_runner import bubblewrap, frames
from atelier_runner.cgroups import Group, Groups
from atelier_runner.errors import SandboxUnavailable
from atelier_runner.languages import SYSTEM_PATH, Tool
from atelier_runner.model import MIB, Limits
from atelier_runner.processes import tree_memory

START_SECONDS = 10.0
AT_ONCE = max(2, os.cpu_count() or 1)
"""Sandboxes that are being started; more only take the processors from each other."""
ENDING = 8
"""Threads that wait for the ends of sandboxes."""
# Outside, each sandbox runs as a user of its own who owns nothing (a range that systemd leaves unused).
FIRST_UID = 1_900_000_000
NOBODY = 65_534


@dataclass(frozen=True, slots=True)
class Setup:
    """What every sandbox of this process is started with."""

    bwrap: str
    tools: Mapping[str, Tool]
    shown: bubblewrap.Shown
    groups: Groups
    seccomp: bytes | None
    dedicated_uids: bool
    """Whether this process may become the users above: it is root with their range mapped."""
    spare_uid: int | None
    """The one user to fall back to, when there is no range; None stays as who we are."""
    setpriv: str | None = None
    """The program that becomes another user; None lets Python do it."""
    environments: str = ""
    """The folder of installed packages that every sandbox sees; empty: none."""


def identities() -> tuple[bool, int | None]:
    """Find out as whom sandboxes can run, by trying: (a user of its own for each, the fallback)."""
    if os.geteuid() != 0:
        return False, None
    for uid in (FIRST_UID, NOBODY):
        try:
            subprocess.run(
                ["/bin/true"], user=uid, group=uid, extra_groups=[], check=True, env={}, timeout=10
            )
        except (OSError, subprocess.SubprocessError):
            continue
        return uid == FIRST_UID, NOBODY
    return False, None


def find_setpriv() -> str | None:
    """Return util-linux' setpriv if it can make somebody else of this process; others of the name know less."""
    found = shutil.which("setpriv", path=SYSTEM_PATH)
    if found is None:
        return None
    try:
        line = _becoming(found, NOBODY)
        subprocess.run([*line, "/bin/true"], check=True, env={}, timeout=10, capture_output=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found


def _becoming(setpriv: str, uid: int) -> list[str]:
    return [setpriv, "--reuid", str(uid), "--regid", str(uid), "--clear-groups"]


class LocalSandbox:
    """One started sandbox whose agent is ready. Used for one run, then closed."""

    def __init__(
        self,
        born: _Born,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        end: Callable[[_Born], None],
        thread: ThreadPoolExecutor,
    ) -> None:
        self.disk_mb = born.disk_mb
        self.limits = (born.memory_bytes, born.processes)
        self.group = born.group
        self.pid = born.pid
        self.reader = reader
        self.writer = writer
        self.on_death: Callable[[], None] | None = None
        self._born = born
        self._end = end
        self._thread = thread
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(born.pidfd, self._died)
        self._watched = True
        self._dead = select.poll()
        self._dead.register(born.pidfd, select.POLLIN)

    @property
    def alive(self) -> bool:
        """Whether process 1 of the sandbox runs at this moment."""
        return not self._dead.poll(0)

    def _died(self) -> None:
        self._unwatch()
        if self.on_death is not None:
            self.on_death()

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._born.pidfd)

    @property
    def own_user(self) -> bool:
        """Whether RLIMIT_NPROC means this sandbox only: it has a user namespace, which counts for itself."""
        return True

    async def limit(self, limits: Limits) -> None:
        """Apply one run's limits and count from here on; one more process is the agent."""
        wanted = (limits.memory_mb * MIB, limits.processes + 1)
        if wanted != self.limits:
            self.group.limit(memory_bytes=wanted[0], processes=wanted[1])
            self.limits = wanted
        self.group.begin()

    def end_program(self) -> None:
        """Ask the agent to kill the program, so that it can still send the files; it may not get to it."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._born.pidfd, signal.SIGTERM)

    async def memory(self) -> int:
        """Return the bytes that all of it holds, bubblewrap too."""
        return await asyncio.to_thread(tree_memory, self._born.process.pid)

    async def measure(self) -> None:
        """Do nothing: the group stays, and can be read, until `close`."""

    def kill(self) -> None:
        """Kill everything inside, now."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._born.pidfd, signal.SIGKILL)

    async def close(self) -> None:
        """Kill everything inside and leave nothing behind."""
        self._unwatch()
        self.kill()
        self.writer.close()
        await self._loop.run_in_executor(self._thread, self._end, self._born)


class LocalLauncher:
    """Starts sandboxes, in threads of its own. An async context manager."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._threads = ThreadPoolExecutor(AT_ONCE, "atelier-spawn")
        self._enders = ThreadPoolExecutor(ENDING, "atelier-end")
        self._primers = ThreadPoolExecutor(1, "atelier-prime")
        self._lock = threading.Lock()
        self._uids: set[int] = set()
        self._count = 0
        self._dropping: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> LocalLauncher:
        return self

    async def __aexit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*self._dropping)
        await loop.run_in_executor(self._enders, self.setup.groups.close)
        for threads in (self._threads, self._enders, self._primers):
            threads.shutdown(wait=False)

    async def start(self, limits: Limits, preload: str = "") -> LocalSandbox:
        """Start a sandbox and wait until its agent is ready, with a module imported if so wanted; cold, so some 40 ms.

        Raises:
            SandboxUnavailable: bubblewrap could not; its own words are in the detail.
        """
        loop = asyncio.get_running_loop()
        spawning = loop.run_in_executor(self._threads, self._spawn, limits, preload)
        try:
            born = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            dropping = asyncio.create_task(self._drop(spawning), name="drop-sandbox")
            self._dropping.add(dropping)
            dropping.add_done_callback(self._dropping.discard)
            raise
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.open_unix_connection(sock=born.socket, limit=frames.CHUNK)
            async with asyncio.timeout(START_SECONDS):
                ready = await frames.read(reader)
            if ready is None or ready[0] != frames.READY:
                raise SandboxUnavailable(
                    f"The sandbox did not start: {_said(born.errors)}", hint=_hint(_said(born.errors))
                )
            return LocalSandbox(born, reader, writer, self._end, self._enders)
        except (TimeoutError, frames.BadFrame) as error:
            await self._discard(born, writer)
            raise SandboxUnavailable(f"The sandbox's agent did not answer: {_said(born.errors)}") from error
        except BaseException:
            await self._discard(born, writer)
            raise

    async def _drop(self, spawning: asyncio.Future[_Born]) -> None:
        """Throw away a sandbox that nobody waits for any more, once it is there."""
        with contextlib.suppress(SandboxUnavailable):
            await self._discard(await spawning, None)

    async def _discard(self, born: _Born, writer: asyncio.StreamWriter | None) -> None:
        if writer is not None:
            writer.close()
        else:
            born.socket.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(born.pidfd, signal.SIGKILL)
        await asyncio.get_running_loop().run_in_executor(self._enders, self._end, born)

    def _take(self) -> tuple[str, int | None]:
        """Return a new sandbox's name and the user that it runs as outside."""
        with self._lock:
            self._count += 1
            name = f"s{self._count}"
            if not self.setup.dedicated_uids:
                return name, self.setup.spare_uid
            uid = next(
                uid for uid in range(FIRST_UID, FIRST_UID + len(self._uids) + 1) if uid not in self._uids
            )
            self._uids.add(uid)
            return name, uid

    def _give_back(self, uid: int | None) -> None:
        with self._lock:
            self._uids.discard(uid or 0)

    def _spawn(self, limits: Limits, preload: str) -> _Born:
        """Start bubblewrap, put its child under limits, let it go. Runs in a thread."""
        self._primers.submit(self.setup.groups.prime)
        name, uid = self._take()
        group = self.setup.groups.make(name)
        memory_bytes, processes = limits.memory_mb * MIB, limits.processes + 1
        ours, theirs = socket.socketpair()
        info, info_write = os.pipe2(os.O_CLOEXEC)
        waits, release = os.pipe2(os.O_CLOEXEC)
        errors, errors_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        process: subprocess.Popen[bytes] | None = None
        try:
            process = self._popen(limits.disk_mb, preload, uid, theirs, info_write, waits, errors_write)
            os.close(info_write)
            info_write = -1
            group.limit(memory_bytes=memory_bytes, processes=processes)
            pid = _child(info)
            if pid is None:
                process.wait(START_SECONDS)
                text = _said(errors)
                raise SandboxUnavailable(f"bubblewrap could not make a sandbox: {text}", hint=_hint(text))
            pidfd = os.pidfd_open(pid)
            group.attach(pid)
            return _Born(
                process, pid, pidfd, group, ours, errors, uid, limits.disk_mb, memory_bytes, processes
            )
        except BaseException as error:
            if process is not None:
                # Its child may not yet be bound to it, but is in its process group.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            group.remove()
            self._give_back(uid)
            ours.close()
            os.close(errors)
            if isinstance(error, OSError | subprocess.SubprocessError):
                raise SandboxUnavailable(f"The sandbox could not be started: {error}") from error
            raise
        finally:
            theirs.close()
            for handle in (info, info_write, waits, errors_write, release):
                if handle >= 0:
                    os.close(handle)

    def _popen(
        self,
        disk_mb: int,
        preload: str,
        uid: int | None,
        stream: socket.socket,
        info: int,
        waits: int,
        errors: int,
    ) -> subprocess.Popen[bytes]:
        seccomp = None if self.setup.seccomp is None else _memory_file(self.setup.seccomp)
        try:
            handles = bubblewrap.Handles(info, waits, seccomp)
            line = bubblewrap.command(
                self.setup.bwrap, self.setup.tools["python3"].inside, self.setup.tools.values(), self.setup.shown,
                disk_mb=disk_mb, handles=handles, environments=self.setup.environments,
            )  # fmt: skip
            if preload:
                line.append(preload)
            user: dict[str, Any] = {}
            if uid is not None and self.setup.setpriv is not None:
                line = [*_becoming(self.setup.setpriv, uid), *line]
            elif uid is not None:
                user = {"user": uid, "group": uid, "extra_groups": []}
            nothing: dict[str, str] = {}
            return subprocess.Popen(
                line, stdin=stream.fileno(), stdout=stream.fileno(), stderr=errors, env=nothing, cwd="/",
                pass_fds=handles.all(), process_group=0, **user,
            )  # fmt: skip
        finally:
            if seccomp is not None:
                os.close(seccomp)

    def _end(self, born: _Born) -> None:
        """Wait for the end of a killed sandbox and remove what it had. Runs in a thread."""
        born.group.kill()
        try:
            born.process.wait(5)
        except subprocess.TimeoutExpired:
            born.process.kill()
            born.process.wait()
        os.close(born.pidfd)
        os.close(born.errors)
        # A group can be removed once the last of its processes has been reaped, a moment after process 1.
        until = time.monotonic() + 2
        while not born.group.remove() and time.monotonic() < until:
            time.sleep(0.002)
        self._give_back(born.uid)


@dataclass(frozen=True, slots=True)
class Preloading:
    """The same launcher, for sandboxes that have a module imported before anybody asks for them."""

    launcher: LocalLauncher
    module: str

    async def start(self, limits: Limits) -> LocalSandbox:
        """Start one. See `LocalLauncher.start`."""
        return await self.launcher.start(limits, self.module)


@dataclass(slots=True)
class _Born:
    """What `_spawn` made."""

    process: subprocess.Popen[bytes]
    pid: int
    pidfd: int
    group: Group
    socket: socket.socket
    errors: int
    uid: int | None
    disk_mb: int
    memory_bytes: int
    processes: int


def _memory_file(content: bytes) -> int:
    """Return an anonymous file with this content, at its start."""
    handle = os.memfd_create("atelier", os.MFD_CLOEXEC)
    os.write(handle, content)
    os.lseek(handle, 0, os.SEEK_SET)
    return handle


def _child(info: int) -> int | None:
    """Read the pid that bubblewrap reports; None when it ended without one."""
    text = b""
    while select.select([info], [], [], START_SECONDS)[0] and (part := os.read(info, 4096)):
        text += part
        if text.rstrip().endswith(b"}"):
            return int(json.loads(text)["child-pid"])
    return None


def _said(errors: int) -> str:
    """Return what bubblewrap or the agent wrote to their standard error."""
    try:
        return os.read(errors, 4096).decode(errors="replace").strip() or "it said nothing"
    except OSError:
        return "it said nothing"


def _hint(text: str) -> str:
    if "ermission" in text or "not permitted" in text or "namespace" in text:
        return (
            "The kernel refuses user namespaces to this process. Allow them (sysctl kernel.apparmor_restrict_unprivileged_userns=0 "
            "or kernel.unprivileged_userns_clone=1), or give the container that runs Atelier the right to make them."
        )
    return ""
