"""The pool and the outbox: one use each, bounded, whole again after a death."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from atelier_runner import (
    Backend,
    Event,
    Exited,
    Limits,
    Output,
    Reason,
    SandboxUnavailable,
    Spec,
    Started,
    open_local,
)
from atelier_runner.agent import AGENT
from atelier_runner.local import LocalCarrier
from atelier_runner.outbox import BOUND, Outbox
from atelier_runner.pool import Pool
from atelier_runner.sandbox import LocalSandbox

from .finished import sandbox_of

LIMITS = Limits(disk_mb=8)


@pytest_asyncio.fixture
async def backend() -> AsyncIterator[Backend]:
    """A backend with two waiting sandboxes."""
    async with open_local(limits=LIMITS, pool_size=2, pool_most=2) as opened:
        await opened.warm()
        yield opened


def pool_of(backend: Backend) -> Pool:
    carrier = backend._carrier
    assert isinstance(carrier, LocalCarrier)
    assert carrier._pool is not None
    return carrier._pool


async def hello(backend: Backend) -> str:
    """Run a program that prints its process's start."""
    spec = Spec("python", "m.py", {"m.py": b"print('hi')"}, LIMITS, stdin=b"")
    events = [event async for event in backend.events(await backend.start(spec))]
    return b"".join(event.data for event in events if isinstance(event, Output)).decode()


async def test_a_waiting_sandbox_that_dies_is_replaced(backend: Backend) -> None:
    pool = pool_of(backend)
    doomed = [sandbox.pid for sandbox in pool._idle]
    for pid in doomed:
        os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        while any(sandbox.pid in doomed for sandbox in pool._idle):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await pool.filled()
    assert len(pool._idle) == 2
    assert await hello(backend) == "hi\n"


async def test_one_that_died_unseen_is_not_handed_out(backend: Backend) -> None:
    for sandbox in pool_of(backend)._idle:
        assert isinstance(sandbox, LocalSandbox)
        os.kill(sandbox.pid, signal.SIGKILL)
        ended = select.poll()
        ended.register(sandbox._born.pidfd, select.POLLIN)
        assert ended.poll(5000)  # waited for without letting the event loop notice
    assert await hello(backend) == "hi\n"


async def test_more_at_once_than_wait_get_one_each(backend: Backend) -> None:
    assert await asyncio.gather(*(hello(backend) for _ in range(5))) == ["hi\n"] * 5
    async with asyncio.timeout(10):
        await backend.warm()
    assert len(pool_of(backend)._idle) == 2


async def test_none_is_used_twice(backend: Backend) -> None:
    seen = set()
    for _ in range(4):
        sandbox = await pool_of(backend).take(LIMITS)
        assert sandbox.pid not in seen
        seen.add(sandbox.pid)
        await sandbox.close()


async def test_one_that_cannot_be_started_is_an_error_with_the_tool_s_words() -> None:
    async with open_local(limits=LIMITS, bwrap="/bin/false") as backend:
        with pytest.raises(SandboxUnavailable):
            await backend.start(Spec("python", "m.py", {"m.py": b""}, LIMITS))
        assert not (await backend.capabilities()).available


async def test_closing_ends_what_runs_and_leaves_no_process() -> None:
    async with open_local(limits=LIMITS, pool_size=1) as backend:
        run = await backend.start(Spec("python", "m.py", {"m.py": b"import time; time.sleep(60)"}, LIMITS))
        pids = [sandbox_of(backend, run).pid, *(sandbox.pid for sandbox in pool_of(backend)._idle)]
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


async def test_leaving_the_events_early_ends_the_run(backend: Backend) -> None:
    run = await backend.start(
        Spec("python", "m.py", {"m.py": b"print(1)\nimport time; time.sleep(60)"}, LIMITS)
    )
    pid = sandbox_of(backend, run).pid
    events = backend.events(run)
    async for event in events:
        if isinstance(event, Output):
            break
    await events.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(5):
        while os.path.exists(f"/proc/{pid}"):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def read(outbox: Outbox) -> list[Event]:
    return [event async for event in outbox.read()]


END = Exited(0, Reason.EXITED, 0, None, 0.0, 0.0, 0)


async def test_waiting_output_is_joined_and_numbered_in_order() -> None:
    outbox = Outbox()
    outbox.started("x")
    for stream, data in (("stdout", b"a"), ("stdout", b"b"), ("stderr", b"c"), ("stdout", b"d")):
        await outbox.output(stream, data)
    outbox.exited(END)
    events = await read(outbox)
    assert [event.seq for event in events] == [1, 2, 3, 4, 5]
    assert isinstance(events[0], Started)
    assert [(e.stream, e.data) for e in events if isinstance(e, Output)] == [
        ("stdout", b"ab"),
        ("stderr", b"c"),
        ("stdout", b"d"),
    ]


async def test_a_full_outbox_makes_the_writer_wait_and_loses_nothing() -> None:
    outbox = Outbox()
    sent = [bytes([n % 256]) * 50_000 for n in range(20)]

    async def write() -> None:
        for data in sent:
            await outbox.output("stdout", data)
        outbox.exited(END)

    writer = asyncio.create_task(write())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not writer.done()
    assert outbox._size <= BOUND + 50_000
    events = await read(outbox)
    assert b"".join(e.data for e in events if isinstance(e, Output)) == b"".join(sent)
    await writer


async def test_tiny_pieces_of_both_streams_are_few_events() -> None:
    outbox = Outbox()
    for n in range(10_000):
        await outbox.output("stdout" if n % 2 else "stderr", b"x")
    outbox.exited(END)
    events = await read(outbox)
    assert len(events) < 600
    assert sum(len(e.data) for e in events if isinstance(e, Output)) == 10_000


# Opens a backend and is killed while it makes sandboxes; the delay decides at which step.
KILLED = """
import asyncio, os, signal, sys, threading
from atelier_runner import open_local
async def main():
    threading.Timer(float(sys.argv[1]), lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    async with open_local(pool_size=50):
        await asyncio.sleep(60)
asyncio.run(main())
"""


def orphans() -> set[int]:
    """Return the processes of sandboxes on this machine whose server has gone; those of others come and go."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            parent = path.with_name("stat").read_text().rpartition(")")[2].split()[1]
            if parent == "1" and AGENT.encode() in path.read_bytes():  # compiled it has a letter more
                found.add(int(path.parent.name))
    return found


async def test_a_killed_server_leaves_nothing_that_the_next_start_does_not_remove() -> None:
    before = orphans()
    killed = set()
    for n in range(8):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, str(0.2 + n * 0.013))
        assert await process.wait() == -signal.SIGKILL
        killed.add(str(process.pid))
    async with open_local(limits=LIMITS, pool_size=1) as backend:
        assert await hello(backend) == "hi\n"
    async with asyncio.timeout(5):
        while orphans() - before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    async with open_local(limits=LIMITS, pool_size=1):  # what still died at the first start is gone by now
        pass
    groups = {path.name.split("-")[1] for path in Path("/sys/fs/cgroup").glob("*/atelier-*-*")}
    assert not groups & killed
