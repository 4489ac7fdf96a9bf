"""The local carrier: runs programs on this machine, each in a bubblewrap sandbox of its own.

`open_local` looks at the machine once (bubblewrap, toolchains, control groups, identities) and keeps a warm pool.
Without bubblewrap it opens all the same: it says so in `capabilities` and refuses to start anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from atelier_runner import bubblewrap, seccomp
from atelier_runner.agent import AGENT
from atelier_runner.backend import Backend
from atelier_runner.carrier import Means, Sandbox
from atelier_runner.cgroups import Groups
from atelier_runner.environments import EnvironmentOptions, Environments, open_store
from atelier_runner.errors import SandboxUnavailable
from atelier_runner.languages import Language, find_tools, load_languages
from atelier_runner.model import Limits
from atelier_runner.outward import Outward
from atelier_runner.pool import Pool
from atelier_runner.processes import kill_orphans, tree_usage
from atelier_runner.sandbox import LocalLauncher, Setup, identities

STAGE_PREFIX = "atelier-tools-"
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
    ) -> None:
        self._languages = languages
        self._pool = pool
        self._setup = setup
        self.hint = hint

    async def languages(self) -> dict[str, Language]:
        """Return the catalogue as found on this machine; the first time it takes as long as the slowest `--version`."""
        return await asyncio.shield(self._languages)

    async def take(self, language: Language, limits: Limits) -> Sandbox:
        """Return a sandbox; any does for any language. See `Carrier`."""
        if self._pool is None:
            raise SandboxUnavailable("Programs cannot run here: there is no sandbox.", hint=self.hint)
        return await self._pool.take(limits)

    async def warm(self) -> None:
        """Wait until the pool is full."""
        if self._pool is not None:
            await self._pool.filled()

    def means(self) -> Means:
        """Say by what each limit is held on this machine."""
        assert self._setup is not None
        return means(self._setup)

    async def idle(self) -> tuple[int, int]:
        """Say how many sandboxes wait, started, and how much memory they have resident together, in bytes."""
        waiting = [] if self._pool is None else self._pool.waiting
        usages = await asyncio.to_thread(lambda: [tree_usage(sandbox.pid) for sandbox in waiting])
        return len(waiting), sum(usage.memory_bytes for usage in usages)

    async def close(self) -> None:
        """Wait for the probes of the toolchains, if they still run."""
        await asyncio.gather(self._languages, return_exceptions=True)


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
    limits: Limits | None = None,
    untrusted: bool = False,
    groups: Groups | None = None,
    bwrap: str | None = None,
    agent: bytes | None = None,
    outward: Outward | None = None,
    environments: EnvironmentOptions | None = None,
) -> AsyncIterator[Backend]:
    """Open the backend. `limits` are those that waiting sandboxes are prepared for; `untrusted` refuses to run with a
    control missing; `groups`, `bwrap`, `agent` (its source) and `outward` replace what would be found.

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
        if spare is not None:
            staged = await asyncio.to_thread(bubblewrap.stage, tools, stack.enter_context(_stage_folder()))
            if "python3" in staged:
                tools = staged
            else:  # the only Python lies where nobody else may look: sandboxes stay this process's user
                dedicated, spare = False, None
        kept, outward = environments or EnvironmentOptions(), outward or Outward()
        store = stack.enter_context(open_store(_reached(kept.folder, spare is not None), kept.all_mb))
        architecture = seccomp.machine()
        setup = Setup(
            program, tools, groups or Groups.of_this_process(),
            None if architecture is None else seccomp.compile_filter(architecture), dedicated, spare,
            str(store.shelf),
        )  # fmt: skip
        launcher = await stack.enter_async_context(LocalLauncher(setup, agent))
        pool = await stack.enter_async_context(Pool(launcher, limits or Limits(), pool_size))
        carrier = LocalCarrier(languages, pool, setup)
        stack.push_async_callback(carrier.close)
        backend = Backend(
            carrier,
            untrusted=untrusted,
            outward=outward,
            environments=Environments(store, kept, carrier, outward),
        )
        stack.push_async_callback(backend.close)
        yield backend


def _reached(folder: Path | None, other_users: bool) -> Path | None:
    """Return the folder, or where sandboxes are other users that cannot get to it, one beneath /var/cache in its place."""
    if folder is None or not other_users:
        return folder
    real = folder.resolve()
    if all(parent.stat().st_mode & stat.S_IXOTH for parent in real.parents if parent.exists()):
        return folder
    return CACHE / hashlib.sha256(os.fsencode(real)).hexdigest()[:16]


@contextlib.contextmanager
def _stage_folder() -> Iterator[Path]:
    """Make a folder for tools that the sandbox's user cannot reach; also removes those of servers that were killed."""
    base = Path(tempfile.gettempdir())
    for old in base.glob(f"{STAGE_PREFIX}*-*"):
        pid = old.name.removeprefix(STAGE_PREFIX).split("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{STAGE_PREFIX}{os.getpid()}-"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
