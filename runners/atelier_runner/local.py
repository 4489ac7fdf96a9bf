"""The local carrier: runs programs on this machine, each in a bubblewrap sandbox of its own.

`open_local` looks at the machine once (bubblewrap, toolchains, control groups, identities) and keeps a warm pool.
Without bubblewrap it opens all the same: it says so in `capabilities` and refuses to start anything.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from atelier_runner import bubblewrap, seccomp, staging
from atelier_runner.agent import AGENT
from atelier_runner.backend import Backend
from atelier_runner.carrier import Idle, Means, Sandbox, together
from atelier_runner.cgroups import Groups
from atelier_runner.demand import MOST_WAITING, POOL_MEMORY_MB, Budget, Demand
from atelier_runner.environments import EnvironmentOptions, Environments, open_store
from atelier_runner.errors import SandboxUnavailable
from atelier_runner.languages import Language, find_tools, load_languages
from atelier_runner.model import MIB, Limits
from atelier_runner.outward import Outward
from atelier_runner.pool import Pool
from atelier_runner.processes import kill_orphans
from atelier_runner.sandbox import AT_ONCE, LocalLauncher, Preloading, Setup, find_setpriv, identities

MOST_PRELOADED = 2
"""Sandboxes that wait with the same module imported: each holds tens of megabytes."""
PRELOADED_HALF_LIFE = 600.0
"""One stays that many seconds after a program last asked for it."""
CACHE = Path("/var/cache/atelier")
"""For environments whose own folder sandboxes cannot reach, as that of a server's data, which is closed to others."""


class LocalCarrier:
    """Sandboxes of this machine, whose toolchains all of them show. With a hint instead of a pool it has none."""

    def __init__(
        self,
        languages: asyncio.Task[dict[str, Language]],
        pool: Pool | None = None,
        setup: Setup | None = None,
        hint: str = "",
        preloaded: Callable[[str], Pool] | None = None,
    ) -> None:
        self._languages = languages
        self._pool = pool
        self._preloaded: dict[str, Pool] = {}
        """By the module that has been imported; each is opened when it is first asked for."""
        self._preloading = preloaded
        self._setup = setup
        self.hint = hint

    async def languages(self) -> dict[str, Language]:
        """Return the catalogue as found on this machine; the first time it takes as long as the slowest `--version`."""
        return await asyncio.shield(self._languages)

    async def take(self, language: Language, limits: Limits, preload: str = "") -> Sandbox:
        """Return a sandbox; any does for any language. See `Carrier`."""
        if self._pool is None:
            raise SandboxUnavailable("Programs cannot run here: there is no sandbox.", hint=self.hint)
        if preload and self._preloading is not None:
            if (pool := self._preloaded.get(preload)) is None:
                pool = self._preloaded[preload] = self._preloading(preload)
                await pool.__aenter__()
            if (sandbox := pool.take_waiting(limits)) is not None:
                return sandbox
        return await self._pool.take(limits)

    async def warm(self) -> None:
        """Wait until every pool is full."""
        for pool in self._pools():
            await pool.filled()

    def _pools(self) -> list[Pool]:
        return [] if self._pool is None else [self._pool, *self._preloaded.values()]

    def means(self) -> Means:
        """Say by what each limit is held on this machine."""
        assert self._setup is not None
        return means(self._setup)

    async def idle(self) -> Idle:
        """Say what waits, started."""
        return together(pool.idle() for pool in self._pools())

    async def close(self) -> None:
        """Wait for the probes of the toolchains, if they still run, and end the pools of modules."""
        await asyncio.gather(self._languages, return_exceptions=True)
        for pool in self._preloaded.values():
            await pool.__aexit__(None, None, None)


def means(setup: Setup) -> Means:
    """Say by what sandboxes of this setup hold each limit."""
    versions, missing = setup.groups.controllers, setup.groups.missing
    partial = {}
    if setup.dedicated_uids:
        identity = "each sandbox is a user of its own who owns nothing"
    else:
        identity = "sandboxes share the user nobody"
        if setup.spare_uid is None:
            identity = "outside, a sandbox is the server's own user; its namespaces hide that user's files and processes"
        partial["identity"] = identity
    if (memory := versions.get("memory")) is None:
        partial["memory"] = f"watched ten times a second: no memory cgroup ({missing.get('memory', '')})"
    if (cpu := versions.get("cpuacct")) is None:
        partial["cpu time"] = f"added up from /proc: no cgroup counts it ({missing.get('cpuacct', '')})"
    pids = versions.get("pids")
    return Means(
        identity=identity,
        calls="" if setup.seccomp is None else "filtered by seccomp",
        memory=f"by cgroup v{memory}",
        processes="by RLIMIT_NPROC in the sandbox's user namespace" if pids is None else f"by cgroup v{pids}",
        cpu=f"of all processes together, counted by cgroup v{cpu}",
        partial=partial,
        shared=frozenset({"cgroup"}),
        hidden=("/etc/shadow", "/root", "/home", "/var", "/sys", "/boot"),
    )


@asynccontextmanager
async def open_local(
    *,
    pool_size: int = 2,
    pool_most: int = MOST_WAITING,
    pool_memory_mb: int = POOL_MEMORY_MB,
    limits: Limits | None = None,
    untrusted: bool = False,
    strict: bool = False,
    groups: Groups | None = None,
    bwrap: str | None = None,
    agent: bytes | None = None,
    outward: Outward | None = None,
    environments: EnvironmentOptions | None = None,
) -> AsyncIterator[Backend]:
    """Open the backend. `limits` are those that waiting sandboxes are prepared for; between `pool_size` and `pool_most`
    wait, and hold at most `pool_memory_mb` together; `untrusted` refuses to run with a control missing; `strict` starts
    a new interpreter for every program; `groups`, `bwrap`, `agent` (its source) and `outward` replace what would be found.

    Raises:
        ValueError: another process keeps its `environments` in the same folder.
    """
    tools = find_tools()
    languages = asyncio.create_task(asyncio.to_thread(load_languages, tools), name="languages")
    program = bwrap or bubblewrap.find()
    if program is None or not os.access(program, os.X_OK):
        yield Backend(LocalCarrier(languages, hint=bubblewrap.INSTALL_HINT), untrusted=untrusted)
        return
    if "python3" not in tools:
        hint = (await languages)["python"].info.hint
        yield Backend(LocalCarrier(languages, hint=hint), untrusted=untrusted)
        return
    async with AsyncExitStack() as stack:
        await asyncio.to_thread(kill_orphans, program, AGENT)
        dedicated, spare = await asyncio.to_thread(identities)
        folder = stack.enter_context(staging.open_folder())
        if spare is not None:
            staged = await asyncio.to_thread(bubblewrap.stage, tools, folder)
            if "python3" in staged:
                tools = staged
            else:  # the only Python lies where nobody else may look: sandboxes stay this process's user
                dedicated, spare = False, None
        kept, outward = environments or EnvironmentOptions(), outward or Outward()
        opening = open_store(_reached(kept.folder, spare is not None), kept.all_mb)
        store = await asyncio.to_thread(stack.enter_context, opening)
        architecture = seccomp.machine()
        shown = await asyncio.to_thread(staging.lay_out, folder, tools["python3"].here, agent)
        setup = Setup(
            program, tools, shown, groups or Groups.of_this_process(),
            None if architecture is None else seccomp.compile_filter(architecture), dedicated, spare,
            None if spare is None else await asyncio.to_thread(find_setpriv),
            str(store.shelf),
        )  # fmt: skip
        launcher = await stack.enter_async_context(LocalLauncher(setup))
        prepared = limits or Limits()
        budget = Budget(max(pool_size, pool_most), pool_memory_mb * MIB)
        pool = Pool(launcher, prepared, Demand(pool_size, pool_most), budget, at_once=AT_ONCE)
        await stack.enter_async_context(pool)

        def preloaded(module: str) -> Pool:
            demand = Demand(0, MOST_PRELOADED if pool_most else 0, PRELOADED_HALF_LIFE)
            return Pool(Preloading(launcher, module), prepared, demand, budget)

        carrier = LocalCarrier(languages, pool, setup, preloaded=preloaded)
        stack.push_async_callback(carrier.close)
        backend = Backend(
            carrier,
            untrusted=untrusted,
            strict=strict,
            outward=outward,
            environments=Environments(store, kept, carrier, outward),
        )
        stack.push_async_callback(backend.close)
        yield backend


def _reached(folder: Path | None, other_users: bool) -> Path | None:
    """Return the folder, or where sandboxes are other users that cannot get to it, one beneath /var/cache in its place.

    None, a folder of this process, where there can be none either.
    """
    if folder is None or not other_users:
        return folder
    real = folder.resolve()
    if all(parent.stat().st_mode & stat.S_IXOTH for parent in real.parents if parent.exists()):
        return folder
    try:
        CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError:
        return None
    return CACHE / hashlib.sha256(os.fsencode(real)).hexdigest()[:16]
