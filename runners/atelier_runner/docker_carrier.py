"""The Docker carrier: each language is an image, each run a container of it that was started before and is used once.

`open_docker` asks the engine which images there are (they say so in labels, see `images`), removes what a killed runner
has left, and keeps containers waiting for the languages that were used last. The engine's socket is as good as root on
its machine: only the runner has it, never the API process.
"""

from __future__ import annotations

import asyncio
import contextlib
import marshal
import os
import socket
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from atelier_runner.agent import inside
from atelier_runner.backend import Backend
from atelier_runner.carrier import Idle, Means, Sandbox
from atelier_runner.demand import MOST_WAITING, POOL_MEMORY_MB, Budget
from atelier_runner.docker_engine import DEFAULT_SOCKET, Engine, EngineRefused
from atelier_runner.docker_meter import KillWatch, StatsMeter
from atelier_runner.docker_sandbox import RUNNER_LABEL, DockerLauncher, Recipe
from atelier_runner.environments import EnvironmentOptions, Environments, open_store
from atelier_runner.errors import SandboxUnavailable
from atelier_runner.images import LANGUAGE_LABEL, TOOL_LABEL, VERSION_LABEL
from atelier_runner.languages import Language, imaged
from atelier_runner.model import MIB, Limits
from atelier_runner.outward import Outward
from atelier_runner.stocks import Stocks

THREADS = 8
"""Calls to the engine at once."""
FIRST = "python"
"""The language whose containers wait from the start."""
GVISOR = "runsc"
ORPHAN_AGE = timedelta(minutes=1)


class DockerCarrier:
    """Containers of one engine. Keeps `size` to `largest` waiting for each of the `most` languages that were used last."""

    hint = ""

    def __init__(
        self,
        engine: Engine,
        recipe: Recipe,
        languages: dict[str, Language],
        images: Mapping[str, str],
        limits: Limits,
        size: int,
        largest: int,
        budget: Budget,
        most: int,
    ) -> None:
        self._engine = engine
        self._recipe = recipe
        self._languages = languages
        self._images = images
        self._limits = limits
        self._threads = ThreadPoolExecutor(THREADS, "atelier-docker")
        self._kills = KillWatch(lambda: engine.kills(f"{RUNNER_LABEL}={recipe.runner}"))
        self._stocks = Stocks(self._launcher, size, largest, budget, most)

    async def languages(self) -> dict[str, Language]:
        """Return the catalogue; what has an image has a version."""
        return self._languages

    async def take(self, language: Language, limits: Limits, preload: str = "") -> Sandbox:
        """Return a container of the language's image; from now on others of it wait. See `Carrier`."""
        return await (await self._stocks.of(language.info.name)).pool.take(limits)

    async def idle(self) -> Idle:
        """Say what waits; memory is known of what are processes of this machine. See `Carrier`."""
        return self._stocks.idle()

    def _launcher(self, name: str) -> tuple[DockerLauncher, Limits]:
        launcher = DockerLauncher(self._engine, self._images[name], self._recipe, self._threads, self._kills)
        return launcher, self._limits

    async def begin(self) -> None:
        """Let containers of the most common language wait."""
        if FIRST in self._images:
            await self._stocks.of(FIRST)

    async def warm(self) -> None:
        """Wait until as many containers wait as are meant to."""
        await self._stocks.filled()

    def means(self) -> Means:
        """Say by what the engine holds each limit."""
        info = self._engine.info
        version = info.get("CgroupVersion", "1")
        meters = {stock.launcher.last_meter for stock in self._stocks.values()}
        options = " ".join(map(str, info.get("SecurityOptions") or ()))
        own_users = "name=userns" in options or "name=rootless" in options
        runtime = self._recipe.runtime or info.get("DefaultRuntime", "runc")
        partial = {}
        if not own_users:
            partial["identity"] = (
                "every container's user is this machine's user 1000: the engine has no user namespaces "
                "(userns-remap, or rootless)"
            )
        if not info.get("SwapLimit", False):
            partial["memory"] = f"by the engine's cgroup v{version}; it cannot limit swap"
        if StatsMeter in meters:
            partial["cpu time"] = StatsMeter.by
        return Means(
            identity="each container's users are nobody outside",
            calls=f"filtered by seccomp, run by {runtime}",
            memory=f"by the engine's cgroup v{version}",
            processes=f"by the engine's cgroup v{version}",
            cpu="of all processes together, counted by the container's cgroup",
            partial=partial,
            shared=frozenset({"cgroup", "user"}),
        )

    async def close(self) -> None:
        """Remove every waiting container."""
        await self._stocks.close()
        await asyncio.to_thread(self._kills.close)
        self._threads.shutdown()


@asynccontextmanager
async def open_docker(
    path: str = DEFAULT_SOCKET,
    *,
    runtime: str | None = None,
    pool_size: int = 2,
    pool_most: int = MOST_WAITING,
    pool_memory_mb: int = POOL_MEMORY_MB,
    pool_languages: int = 4,
    limits: Limits | None = None,
    untrusted: bool = False,
    strict: bool = False,
    agent: bytes | None = None,
    read_groups: bool = True,
    outward: Outward | None = None,
    environments: EnvironmentOptions | None = None,
) -> AsyncIterator[Backend]:
    """Open the engine at a Unix socket. `limits` are those that waiting containers are prepared for; `pool_size`, `pool_most` (of
    each language), `pool_memory_mb` and `strict` are as in `open_local`; `runtime` is one that
    the engine lists (in untrusted mode gVisor where there is one); `untrusted` refuses to run with a control missing;
    `agent` (its source), `read_groups` and `outward` replace what would be found; `environments` are kept in a folder that the engine
    finds under the same path.

    Raises:
        SandboxUnavailable: no engine answers there, it lacks the runtime, or the docker package is missing.
    """
    engine = await asyncio.to_thread(Engine, path)
    async with AsyncExitStack() as stack:
        stack.callback(engine.close)
        runtimes = engine.info.get("Runtimes") or {}
        if runtime is None and untrusted and GVISOR in runtimes:
            runtime = GVISOR
        if runtime is not None and runtime not in runtimes:
            raise SandboxUnavailable(
                f"The engine at {path} has no runtime {runtime!r}; there is: {', '.join(sorted(runtimes))}.",
                hint="Install it and name it in the engine's daemon.json, or leave `runtime` out of the address.",
            )
        try:
            await asyncio.to_thread(sweep, engine)
            found = await asyncio.to_thread(engine.images, LANGUAGE_LABEL)
        except EngineRefused as error:
            raise SandboxUnavailable(f"The engine at {path} refused: {error}") from error
        images: dict[str, tuple[str, dict[str, str]]] = {}
        for image, labels in found:
            if labels.get(VERSION_LABEL) and labels.get(TOOL_LABEL):
                images.setdefault(labels[LANGUAGE_LABEL], (image, labels))
        languages = imaged(
            {name: (labels[TOOL_LABEL], labels[VERSION_LABEL]) for name, (_, labels) in images.items()}
        )
        kept, outward = environments or EnvironmentOptions(), outward or Outward()
        store = await asyncio.to_thread(stack.enter_context, open_store(kept.folder, kept.all_mb))
        recipe = Recipe(identity(), runtime, marshal.dumps(inside(agent)), read_groups, str(store.shelf))
        budget = Budget(pool_languages * max(pool_size, pool_most), pool_memory_mb * MIB)
        carrier = DockerCarrier(
            engine, recipe, languages, {name: image for name, (image, _) in images.items()},
            limits or Limits(), pool_size, pool_most, budget, pool_languages,
        )  # fmt: skip
        stack.push_async_callback(carrier.close)
        await carrier.begin()
        backend = Backend(
            carrier,
            untrusted=untrusted,
            strict=strict,
            outward=outward,
            environments=Environments(store, kept, carrier, outward),
        )
        stack.push_async_callback(backend.close)
        yield backend


def identity() -> str:
    """Name this process so that another on this machine can see whether it lives: machine, process, when it began."""
    return f"{socket.gethostname()}/{os.getpid()}/{_began(os.getpid())}"


def _began(pid: int) -> str:
    """Return when a process began, in the kernel's ticks; empty when there is none."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def sweep(engine: Engine) -> int:
    """Remove containers that a runner which was killed has left; returns how many.

    One of this machine is known by its process. One of another machine, which may live, loses only what has ended a
    while ago: an agent ends with its runner's connection.
    """
    removed = 0
    for container, labels in engine.containers(RUNNER_LABEL):
        machine, _, process = labels[RUNNER_LABEL].partition("/")
        pid, _, began = process.partition("/")
        if machine == socket.gethostname():
            orphan = not pid.isdigit() or _began(int(pid)) != began
        else:
            orphan = _ended_long_ago(engine, container)
        if orphan:
            with contextlib.suppress(EngineRefused):
                engine.remove(container)
                removed += 1
    return removed


def _ended_long_ago(engine: Engine, container: str) -> bool:
    try:
        state = engine.state(container)
    except EngineRefused:
        return False
    if state.running:
        return False
    ended = datetime.fromisoformat(state.ended[:19]).replace(tzinfo=UTC)
    return ended.year > 1 and datetime.now(UTC) - ended > ORPHAN_AGE
