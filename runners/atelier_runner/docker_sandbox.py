"""Starts one container whose process 1 is the agent, and holds its strings.

Starting: the container is made, attached to and started, which costs some 200 ms, so a pool does it. The image has
nothing of ours but a Python: process 1 is a line that reads the agent from its standard input, lays it down and becomes it, so
that agent and runner are always of one version. The attached connection carries frames inwards as they are; outwards
the engine puts a header before each piece, which says whether it was standard output (frames) or standard error.

Ending: the connection is shut. The agent meets the end of its input, ends, and the kernel kills the rest with it: a few
milliseconds, where asking the engine takes a third of a second. The engine is asked too, behind it, to remove the
container, which also ends an agent that would not listen. A runner that is killed leaves no program running, since
its connections end with it; what remains of its containers is removed by the next start (`sweep`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from atelier_runner import frames
from atelier_runner.agent import AGENT, FOLDER, LIBRARY
from atelier_runner.bubblewrap import ENVIRONMENT, ENVIRONMENTS, HOST_NAME, SHM_BYTES, UID, WORK
from atelier_runner.docker_engine import Engine, EngineRefused
from atelier_runner.docker_meter import GroupMeter, KillWatch, StatsMeter, group_of
from atelier_runner.docker_stream import Line, connect
from atelier_runner.errors import SandboxUnavailable
from atelier_runner.model import MIB, Limits
from atelier_runner.processes import tree_memory
from atelier_runner.seccomp_profile import profile

T = TypeVar("T")
START_SECONDS = 20.0
STATS_SECONDS = 0.2
AGENT_BYTES = MIB
KILL_SECONDS = 0.1
"""How long after a program's end the engine may take to say that the kernel killed it for memory."""
RUNNER_LABEL = "atelier.runner"
CPU_SHARES = 256
"""A quarter of what any other container weighs, so that many busy programs do not push services aside."""
# Nothing here is a program's business: the engine's own list, and the machine's devices as a whole.
MASKED = ("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
          "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys")  # fmt: skip
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What every container of this runner is made with."""

    runner: str
    """Names this process on its containers; see `identity`."""
    runtime: str | None
    """The engine's word for what runs a container ("runsc"); None takes its default."""
    agent: bytes
    """What `agent.inside` returns, marshalled: of what reads that, any interpreter has all loaded already."""
    read_groups: bool
    """Whether to look for a container's control group on this machine."""
    environments: str = ""
    """The folder of installed packages, as the engine finds it; empty: none."""


def table(image: str, limits: Limits, recipe: Recipe) -> dict[str, Any]:
    """Return the engine's table of one container."""
    size = f"size={limits.disk_mb * MIB}"
    mounts = []
    if (
        recipe.environments
    ):  # nobody gains anything by a set-user-ID file (no-new-privileges), or reaches a device
        mounts.append(
            {"Type": "bind", "Source": recipe.environments, "Target": ENVIRONMENTS, "ReadOnly": True}
        )
    count = len(recipe.agent)
    boot = (
        f"import marshal,os,sys\ns=b''\nwhile len(s)<{count}:\n p=os.read(0,{count}-len(s))\n p or os._exit(0)\n s+=p\n"
        f"s=marshal.loads(s)\nos.mkdir({LIBRARY!r})\nfor p in s:\n with open(p,'wb') as f: f.write(s[p])\n"
        f"sys.path[0]={FOLDER!r}\nexec(compile(s[{AGENT!r}],{AGENT!r},'exec'))"
    )
    return {
        "Image": image,
        "Cmd": ["python3", "-c", boot],
        "Entrypoint": [],
        "Env": [f"{name}={value}" for name, value in ENVIRONMENT.items()],
        "User": f"{UID}:{UID}",
        "WorkingDir": WORK,
        "Hostname": HOST_NAME,
        "Labels": {RUNNER_LABEL: recipe.runner},
        "OpenStdin": True, "StdinOnce": True, "AttachStdin": True, "AttachStdout": True, "AttachStderr": True,
        "Healthcheck": {"Test": ["NONE"]},
        "NetworkDisabled": True,
        "HostConfig": {
            "NetworkMode": "none",
            "Dns": ["127.0.0.1"],
            "ReadonlyRootfs": True,
            "Tmpfs": {
                WORK: f"rw,exec,nosuid,nodev,mode=0755,uid={UID},gid={UID},{size}",
                "/tmp": f"rw,exec,nosuid,nodev,mode=1777,{size}",
                FOLDER: f"rw,noexec,nosuid,nodev,mode=0755,uid={UID},gid={UID},size={AGENT_BYTES}",
            },
            "Mounts": mounts,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges", f"seccomp={json.dumps(profile())}"],
            "MaskedPaths": list(MASKED), "ReadonlyPaths": list(READ_ONLY),
            "Memory": limits.memory_mb * MIB, "MemorySwap": limits.memory_mb * MIB,
            "PidsLimit": limits.processes + 1,
            "CpuShares": CPU_SHARES,
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
            "ShmSize": SHM_BYTES,
            "IpcMode": "private", "CgroupnsMode": "private", "Init": False,
            "LogConfig": {"Type": "none"},
            **({} if recipe.runtime is None else {"Runtime": recipe.runtime}),
        },
    }  # fmt: skip


class DockerSandbox:
    """One container whose agent is ready. Used for one run, then closed."""

    own_user = False
    """All containers are user 1000 of one user namespace: RLIMIT_NPROC would count them together."""

    def __init__(
        self, launcher: DockerLauncher, born: _Born, line: Line, meter: GroupMeter | StatsMeter
    ) -> None:
        self._launcher = launcher
        self._born = born
        self._line = line
        self.disk_mb = born.limits.disk_mb
        self.reader = line.reader
        self.writer = line.writer
        self.group = meter
        self.pid = born.pid
        self.on_death: Callable[[], None] | None = None
        self._sampling: asyncio.Task[None] | None = None
        self._killed = False
        self._watching = asyncio.create_task(self._watch(), name="container-watch")

    @property
    def id(self) -> str:
        """The engine's name of the container."""
        return self._born.container

    @property
    def alive(self) -> bool:
        """Whether it waits: a waiting agent says nothing, so anything to read is its end."""
        if self._line.protocol.ended.is_set():
            return False
        look = select.poll()
        look.register(self._born.connection, select.POLLIN)
        return not look.poll(0)

    async def _watch(self) -> None:
        await self._line.protocol.ended.wait()
        if self.on_death is not None:
            self.on_death()

    async def limit(self, limits: Limits) -> None:
        """Apply one run's limits, where they are others than it was made with, and count from here on."""
        wanted = (limits.memory_mb * MIB, limits.processes + 1)
        made = self._born.limits
        if wanted != (made.memory_mb * MIB, made.processes + 1) and not self.group.limit(*wanted):
            await self._launcher.ask(self._limit, *wanted)
        if isinstance(self.group, StatsMeter):
            self._launcher.kills.tell(self.id, self.group.killed)
            await self.group.measure()
            self._sampling = asyncio.create_task(self._sample(self.group), name="container-sample")
        self.group.begin()

    def _limit(self, memory_bytes: int, processes: int) -> None:
        try:
            self._launcher.engine.limit(self.id, memory_bytes=memory_bytes, processes=processes)
        except EngineRefused as error:
            if "busy" in str(error):  # the kernel's word for a limit below what is used already
                raise OSError(str(error)) from error
            raise frames.BadFrame(f"the engine did not set its limits: {error}") from error

    async def _sample(self, meter: StatsMeter) -> None:
        while True:
            await meter.measure()
            await asyncio.sleep(STATS_SECONDS)

    async def memory(self) -> int:
        """Return what its processes hold, where they are this machine's."""
        return await asyncio.to_thread(tree_memory, self.pid) if self.pid else 0

    async def measure(self) -> None:
        """Take the final figures: the container's group goes away with it."""
        if self._killed:
            return
        if self._line.protocol.ended.is_set():  # by itself: perhaps the kernel chose the agent
            with contextlib.suppress(EngineRefused):
                if (await self._launcher.ask(self._launcher.engine.ended, self.id)).oom_killed:
                    self.group.killed()
            return
        await self.group.measure()
        if isinstance(self.group, StatsMeter):
            await asyncio.sleep(KILL_SECONDS)

    def end_program(self) -> None:
        """Ask the agent to kill the program."""
        if self._born.pidfd is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._born.pidfd, signal.SIGTERM)

    def kill(self) -> None:
        """Shut the connection: process 1 ends at the end of its input, and everything inside with it."""
        if isinstance(self.group, GroupMeter):
            self.group.usage()
        self._killed = True
        with contextlib.suppress(OSError):
            self._born.connection.shutdown(socket.SHUT_RDWR)
        if self._born.pidfd is not None:  # it is a process of this machine: the kernel does not ask the agent
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._born.pidfd, signal.SIGKILL)

    async def close(self) -> None:
        """Kill everything inside and leave no container behind."""
        tasks = [task for task in (self._watching, self._sampling) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._launcher.kills.forget(self.id)
        self.kill()
        self.writer.close()
        await self._launcher.ask(self._launcher.discard, self._born)


@dataclass(frozen=True, slots=True)
class _Born:
    """What `_spawn` made."""

    container: str
    connection: socket.socket
    pid: int
    pidfd: int | None
    limits: Limits
    meter: GroupMeter | None


class DockerLauncher:
    """Starts containers of one image."""

    def __init__(
        self, engine: Engine, image: str, recipe: Recipe, threads: ThreadPoolExecutor, kills: KillWatch
    ) -> None:
        self.engine = engine
        self.kills = kills
        self._image = image
        self._recipe = recipe
        self._threads = threads
        self._dropping: set[asyncio.Task[None]] = set()
        self.last_meter: type[GroupMeter | StatsMeter] | None = None
        """How the newest container is measured."""

    async def ask(self, call: Callable[..., T], *args: Any) -> T:
        """Do what blocks in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    async def start(self, limits: Limits) -> DockerSandbox:
        """Start a container and wait until its agent is ready; cold, so some 250 ms.

        Raises:
            SandboxUnavailable: the engine could not, or the image has no Python that becomes the agent.
        """
        spawning = asyncio.get_running_loop().run_in_executor(self._threads, self._spawn, limits)
        try:
            born = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            dropping = asyncio.create_task(self._drop(spawning), name="drop-container")
            self._dropping.add(dropping)
            dropping.add_done_callback(self._dropping.discard)
            raise
        line: Line | None = None
        try:
            line = await connect(born.connection)
            line.writer.write(self._recipe.agent)
            async with asyncio.timeout(START_SECONDS):
                ready = await frames.read(line.reader)
            if ready is None or ready[0] != frames.READY:
                raise SandboxUnavailable(f"The container's agent did not start: {_said(line)}")
            container = born.container
            meter = born.meter or StatsMeter(lambda: self._stats(container))
            self.last_meter = type(meter)
            return DockerSandbox(self, born, line, meter)
        except (TimeoutError, frames.BadFrame) as error:
            await self._give_up(born, line)
            raise SandboxUnavailable(f"The container's agent did not answer: {_said(line)}") from error
        except BaseException:
            await self._give_up(born, line)
            raise

    async def _stats(self, container: str) -> dict[str, Any]:
        try:
            return await self.ask(self.engine.stats, container)
        except EngineRefused:
            return {}  # it has just ended

    async def _drop(self, spawning: asyncio.Future[_Born]) -> None:
        """Throw away a container that nobody waits for any more, once it is there."""
        with contextlib.suppress(SandboxUnavailable):
            await self._give_up(await spawning, None)

    async def _give_up(self, born: _Born, line: Line | None) -> None:
        if line is not None:
            line.writer.close()
        else:
            born.connection.close()
        await self.ask(self.discard, born)

    async def close(self) -> None:
        """Wait for containers that are being thrown away."""
        await asyncio.gather(*self._dropping)

    def _spawn(self, limits: Limits) -> _Born:
        """Make a container, attach, start it, look for its control group. Runs in a thread."""
        container, connection, pidfd = "", None, None
        try:
            container = self.engine.create(table(self._image, limits, self._recipe))
            connection = self.engine.attach(container)
            self.engine.start(container)
            pid = self.engine.state(container).pid
            group = None
            if self._recipe.read_groups and pid:
                with contextlib.suppress(OSError):
                    pidfd = os.pidfd_open(pid)
                group = group_of(container, pid)
                if group is None and pidfd is not None:
                    os.close(pidfd)
                    pidfd = None
            meter = None if group is None else GroupMeter(group)
            return _Born(container, connection, pid, pidfd, limits, meter)
        except EngineRefused as error:
            if connection is not None:
                connection.close()
            if container:
                with contextlib.suppress(EngineRefused):
                    self.engine.remove(container)
            raise SandboxUnavailable(f"The container could not be started: {error}") from error

    def discard(self, born: _Born) -> None:
        """Remove a container whose connection was shut. Runs in a thread.

        An engine that does not answer keeps it: it has ended, and the next start removes it.
        """
        with contextlib.suppress(EngineRefused):
            self.engine.remove(born.container)
        if born.pidfd is not None:
            os.close(born.pidfd)


def _said(line: Line | None) -> str:
    """Return what the agent, or what stands in its place, wrote to its standard error."""
    text = b"" if line is None else line.protocol.said
    return text.decode(errors="replace").strip()[-400:] or "it said nothing"
