"""Where a machine has less: no control groups, no root, tools out of reach. Limits hold by weaker means, and say so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

import atelier_runner
from atelier_runner import Backend, Exited, Limits, Output, Reason, Spec, open_local, staging
from atelier_runner.agent import AGENT
from atelier_runner.bubblewrap import reachable, stage
from atelier_runner.cgroups import Groups
from atelier_runner.languages import Tool
from atelier_runner.local import LocalCarrier
from atelier_runner.sandbox import LocalLauncher

LIMITS = Limits(wall_seconds=5, cpu_seconds=1, memory_mb=96, processes=16, disk_mb=8)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bare() -> AsyncIterator[Backend]:
    """A backend on a machine without any control group."""
    async with open_local(limits=LIMITS, groups=Groups([])) as opened:
        yield opened


async def run(backend: Backend, program: str, limits: Limits = LIMITS) -> tuple[str, Exited]:
    """Return what a Python program printed, and its result."""
    printed = bytearray()
    spec = Spec("python", "main.py", {"main.py": program.encode()}, limits, stdin=b"")
    async for event in backend.events(await backend.start(spec)):
        if isinstance(event, Output):
            printed += event.data
        elif isinstance(event, Exited):
            return printed.decode(), event
    raise AssertionError("no result")


SPINNERS = "import os\nfor _ in range(3): os.fork()\nwhile True: pass"
HOG = "import time\nx = []\nwhile True: x.append(b'x' * (4 << 20)); time.sleep(0.01)"


@pytest.mark.asyncio(loop_scope="module")
async def test_without_control_groups_the_limits_hold_by_other_means(bare: Backend) -> None:
    printed, result = await run(bare, "print('ok')")
    assert (printed, result.reason) == ("ok\n", Reason.EXITED)
    _, cpu = await run(bare, SPINNERS)
    assert cpu.reason is Reason.CPU_TIME
    assert LIMITS.cpu_seconds <= cpu.cpu_seconds < LIMITS.cpu_seconds + 2
    _, memory = await run(bare, HOG)
    assert memory.reason is Reason.MEMORY
    assert memory.peak_memory_bytes > 90 << 20
    forks = "import os, time\nn = 0\ntry:\n    while n < 99:\n        if not os.fork(): time.sleep(9)\n        n += 1\nexcept OSError: pass\nprint(n)"
    printed, _ = await run(bare, forks)
    assert int(printed) <= LIMITS.processes


@pytest.mark.asyncio(loop_scope="module")
async def test_without_control_groups_the_doctor_says_partial(bare: Backend) -> None:
    found = await bare.capabilities()
    states = {control.name: control.state for control in found.controls}
    assert found.available
    assert states["memory"] == states["cpu time"] == "partial"
    assert states["processes"] == states["network"] == states["disk"] == "enforced"


STRANGER = """
import asyncio, json, sys
from atelier_runner import Exited, Limits, Output, Spec, open_local

async def main():
    async with open_local(pool_size=1) as backend:
        found = await backend.capabilities()
        ends = {}
        for name, program in {"hello": "print('hi')", "spin": "while True: pass"}.items():
            limits = Limits(wall_seconds=5, cpu_seconds=0.3)
            async for event in backend.events(await backend.start(Spec("python", "m.py", {"m.py": program.encode()}, limits, stdin=b""))):
                if isinstance(event, Exited):
                    ends[name] = event.reason
    print(json.dumps([found.available, found.hint, {c.name: c.state for c in found.controls}, ends]))

asyncio.run(main())
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can read."""
    folder = Path(tempfile.mkdtemp(prefix="runner-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/usr/bin/python3").exists(), reason="must be able to become somebody else"
)
def test_somebody_who_is_not_root_can_run_programs_too(open_folder: Path) -> None:
    shutil.copytree(Path(atelier_runner.__file__).parent, open_folder / "atelier_runner")
    done = subprocess.run(
        ["/usr/bin/python3", "-c", STRANGER], cwd=open_folder, env={"PYTHONPATH": str(open_folder)}, capture_output=True,
        text=True, user=65_533, group=65_533, extra_groups=[], timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    available, hint, controls, ends = json.loads(done.stdout)
    assert available, hint
    assert ends == {"hello": "exited", "spin": "cpu_time"}
    assert controls["identity"] == "partial"
    assert "absent" not in controls.values(), controls


def test_a_tool_out_of_reach_is_staged(open_folder: Path) -> None:
    hidden = open_folder / "home"
    hidden.mkdir(mode=0o700)
    tool = hidden / "node"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    ready = open_folder / "ready"
    ready.mkdir()
    assert not reachable(str(tool))
    staged = stage({"node": Tool(str(tool), "/opt/node", (str(tool), "/opt/node"))}, ready)
    assert staged["node"].inside == "/opt/node"
    assert staged["node"].bind is not None
    assert reachable(staged["node"].bind[0])


def test_an_installation_out_of_reach_is_left_out(open_folder: Path) -> None:
    hidden = open_folder / "home"
    hidden.mkdir(mode=0o700)
    assert stage({"python3": Tool("x", "x", (str(hidden), str(hidden)))}, open_folder) == {}


def test_of_this_machine_s_etc_only_what_everybody_may_read_is_shown(
    open_folder: Path,
) -> None:
    etc = open_folder / "etc"
    (etc / "fonts" / "hidden").mkdir(parents=True)
    for name, mode in (("fonts/open", 0o644), ("fonts/password", 0o600), ("fonts/hidden/x", 0o644)):
        (etc / name).write_text("secret")
        (etc / name).chmod(mode)
    (etc / "fonts" / "hidden").chmod(0o700)
    (etc / "fonts" / "link").symlink_to("/etc/shadow")
    os.mkfifo(etc / "fonts" / "fifo", 0o666)
    staging._copy(etc / "fonts", open_folder / "shown")
    staging._open_to_all(open_folder / "shown")
    assert sorted(path.name for path in (open_folder / "shown").iterdir()) == ["link", "open"]
    assert (open_folder / "shown" / "link").is_symlink()
    staging._copy(etc / "fonts" / "password", open_folder / "alone")
    assert not (open_folder / "alone").exists()


async def test_without_setpriv_and_uncompiled_sandboxes_start_all_the_same() -> None:
    async with open_local(limits=LIMITS, pool_size=0) as backend:
        carrier = backend._carrier
        assert isinstance(carrier, LocalCarrier)
        assert carrier._setup is not None
        less = replace(carrier._setup, setpriv=None, shown=replace(carrier._setup.shown, agent=AGENT))
        sandbox = await LocalLauncher(less).start(LIMITS)  # its agent has said that it is ready
        assert sandbox.alive
        owner = os.stat(f"/proc/{sandbox.pid}").st_uid
        assert owner == (os.getuid() if less.spare_uid is None else sandbox._born.uid)
        await sandbox.close()


@pytest.mark.parametrize("memory_mb", [1, 4])
async def test_a_limit_below_what_the_agent_itself_needs_ends_as_memory(memory_mb: int) -> None:
    async with open_local(pool_size=1) as backend:
        await backend.warm()
        _, result = await run(backend, "print(1)", Limits(memory_mb=memory_mb))
    assert result.reason is Reason.MEMORY
