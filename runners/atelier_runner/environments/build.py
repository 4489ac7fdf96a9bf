"""Lets uv or npm make an environment in a sandbox of its own, and takes it out. Nothing of a package runs outside."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from atelier_runner.carrier import Carrier
from atelier_runner.environments.archive import Archive
from atelier_runner.environments.options import EnvironmentOptions
from atelier_runner.errors import EnvironmentFailed
from atelier_runner.languages import Language
from atelier_runner.model import MIB, Exited, Network, Output, Packages, Reason, Spec
from atelier_runner.outward import Outward
from atelier_runner.run import Run

Say = Callable[[bytes], Awaitable[None]]
SAID_BYTES = 64 * 1024
"""Of what the tools print, as much is told."""
WRITE_BYTES = MIB
SYSTEM_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
INSTALL = Path(__file__).with_name("install.py")


async def build(
    carrier: Carrier, outward: Outward, language: Language, packages: Packages, tool: str, options: EnvironmentOptions, staged: Path, say: Say
) -> int:  # fmt: skip
    """Build into a new folder; returns the environment's size in bytes. `tool` is the path of uv or npm inside.

    Raises:
        EnvironmentFailed: it did not come to be; what the tool printed has been said.
        SandboxUnavailable: there is no sandbox to build in.
    """
    plan = {
        "kind": packages.tool,
        "tool": tool,
        "runtime": language.command[0],
        "wanted": list(packages.wanted),
        "index": options.index(packages.tool),
        "most_bytes": options.each_mb * MIB,
    }
    files = {
        "install.py": INSTALL.read_bytes(),
        "plan.json": json.dumps(plan).encode(),
        "certificates.pem": await asyncio.to_thread(_certificates),
    }
    network = Network(hosts=options.hosts(packages.tool), private=True)
    spec = Spec(language.info.name, "install.py", files, options.limits, stdin=b"", network=network)
    # The agent of every sandbox is a Python, whatever language the sandbox is for.
    installer = replace(language, command=("python3", "-u", "{entry}"), build=(), env={}, fork=True)
    sandbox = await carrier.take(language, spec.limits)
    run = Run(spec, installer, sandbox, outward)
    driving = asyncio.create_task(run.drive(), name="build-environment")
    archive = Archive(staged, options.each_mb)
    try:
        result = await _take(run, archive, say)
    finally:
        run.stop(Reason.CANCELLED, files=False)
        await asyncio.gather(driving, return_exceptions=True)
        archive.close()
        await sandbox.close()
    if result.reason is not Reason.EXITED or result.code != 0:
        raise EnvironmentFailed(_why(result, packages, options))
    await asyncio.to_thread(archive.finish)
    return archive.size


async def _take(run: Run, archive: Archive, say: Say) -> Exited:
    """Take what comes: the archive from its standard output, words from the other."""
    waiting, said = bytearray(), 0
    async for event in run.events():
        match event:
            case Output(stream="stdout"):
                waiting += event.data
                if len(waiting) >= WRITE_BYTES:
                    taken, waiting = bytes(waiting), bytearray()
                    await asyncio.to_thread(archive.feed, taken)
            case Output():
                if said < SAID_BYTES:
                    await say(event.data[: SAID_BYTES - said])
                    if said + len(event.data) > SAID_BYTES:
                        await say(b"\n...\n")
                said += len(event.data)
            case Exited():
                if event.reason is Reason.EXITED and event.code == 0:
                    await asyncio.to_thread(archive.feed, bytes(waiting))
                return event
    raise EnvironmentFailed("Building the environment ended without a result.")


def _certificates() -> bytes:
    """Return the authorities that this machine trusts, which may have one of the operator's own; empty: not known."""
    path = ssl.get_default_verify_paths().cafile or SYSTEM_CERTIFICATES
    try:
        with open(path, "rb") as file:
            return file.read(4 * MIB)
    except OSError:
        return b""


def _why(result: Exited, packages: Packages, options: EnvironmentOptions) -> str:
    tool = "uv" if packages.tool == "python" else "npm"
    match result.reason:
        case Reason.EXITED | Reason.SIGNALLED:
            return f"{tool} could not install the packages; what it said is above."
        case Reason.OUTPUT:
            return f"The environment is larger than {options.each_mb} MiB."
        case Reason.WALL_TIME:
            return f"Installing took longer than {options.seconds:g} s."
    return f"Installing was ended: {result.detail}"
