"""A runner elsewhere when things go wrong: nothing is lost, nothing comes twice, and what is lost is lost once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import urllib.request
from collections.abc import AsyncIterator, Iterator

import pytest

from atelier.errors import AtelierError
from atelier.sandbox import Event, Exited, Output, Reason, RunLimits, RunSpec, Sandbox, Started, open_sandbox

from ..faults import FaultyLine, faulty_line
from ..runner_service import SECRET, RunnerService, runner_service

LIMITS = RunLimits(
    wall_seconds=30, cpu_seconds=10, memory_mb=128, processes=16, disk_mb=8, output_bytes=16 << 20
)
ECHO = "import sys\nfor line in sys.stdin: print('got', line, end='', flush=True)"
WAITS = "import os, time; os.write(1, b'on\\n'); time.sleep(60)"


@pytest.fixture(scope="module")
def service() -> Iterator[RunnerService]:
    """A runner service."""
    with runner_service("--runs", "16") as running:
        yield running


@contextlib.asynccontextmanager
async def sandbox_behind(
    service: RunnerService, patience: float
) -> AsyncIterator[tuple[Sandbox, FaultyLine]]:
    """Open a runner over a line that can break."""
    async with faulty_line(service.port) as line:
        async with open_sandbox(f"http://127.0.0.1:{line.port}?patience={patience}", SECRET) as sandbox:
            yield sandbox, line


def spec(program: str, stdin: bytes | None = b"") -> RunSpec:
    return RunSpec("python", "main.py", {"main.py": program.encode()}, LIMITS, stdin=stdin)


def begun(service: RunnerService) -> float:
    """Return how many runs the service has begun in its life."""
    asked = urllib.request.Request(f"{service.url}/metrics", headers={"Authorization": f"Bearer {SECRET}"})
    with urllib.request.urlopen(asked) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(x for x in lines if x.startswith("atelier_runner_start_seconds_count")).split()[1])


def whole(events: list[Event]) -> tuple[bytes, Exited]:
    """Return what was printed and the end of a run whose events must be numbered without a gap."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert isinstance(events[0], Started)
    last = events[-1]
    assert isinstance(last, Exited)
    assert sum(isinstance(event, Exited) for event in events) == 1
    return b"".join(event.data for event in events if isinstance(event, Output)), last


@pytest.mark.parametrize("seed", range(6))
async def test_a_line_that_is_cut_again_and_again_loses_and_repeats_nothing(
    service: RunnerService, seed: int
) -> None:
    chance = random.Random(seed)
    lines = [f"line {n} {'x' * chance.randrange(200)}\n".encode() for n in range(3_000)]
    async with sandbox_behind(service, 15) as (sandbox, line):
        run = await sandbox.start(spec(ECHO, stdin=None))
        going = True

        async def cut() -> None:
            while going:
                await asyncio.sleep(chance.choice((0.0, 0.005, 0.02, 0.1)))
                line.cut()

        async def type_it() -> None:
            for start in range(0, len(lines), 15):
                await sandbox.write(run, b"".join(lines[start : start + 15]), close=start + 15 >= len(lines))
                await asyncio.sleep(chance.choice((0.0, 0.005, 0.03)))

        cutting, typing = asyncio.create_task(cut()), asyncio.create_task(type_it())
        events = [event async for event in sandbox.events(run)]
        going = False
        await asyncio.gather(cutting, typing)
        assert line.connections > 3
    printed, last = whole(events)
    assert (last.reason, last.code) == (Reason.EXITED, 0), last
    assert printed == b"".join(b"got " + text for text in lines)


async def test_a_request_whose_answer_is_cut_off_begins_one_run(service: RunnerService) -> None:
    chance, before, done = random.Random(1), begun(service), 0
    async with sandbox_behind(service, 15) as (sandbox, line):
        for _ in range(25):
            asyncio.get_running_loop().call_later(chance.uniform(0, 0.03), line.cut)
            run = await sandbox.start(spec("print('once')"))
            printed, _ = whole([event async for event in sandbox.events(run)])
            assert printed == b"once\n"
            done += 1
    assert begun(service) - before == done


async def test_a_line_that_swallows_everything_for_a_while_is_waited_for(service: RunnerService) -> None:
    async with sandbox_behind(service, 20) as (sandbox, line):
        run = await sandbox.start(spec(ECHO, stdin=None))
        await sandbox.write(run, b"a\n")
        events = sandbox.events(run)
        seen = [await anext(events), await anext(events)]
        line.hold(True)
        await sandbox.write(run, b"b\n", close=True)
        asyncio.get_running_loop().call_later(8, line.hold, False)
        seen += [event async for event in events]
    assert whole(seen)[0] == b"got a\ngot b\n"


async def test_a_runner_that_is_stopped_for_a_while_goes_on(service: RunnerService) -> None:
    async with sandbox_behind(service, 20) as (sandbox, _):
        run = await sandbox.start(spec(ECHO, stdin=None))
        events = sandbox.events(run)
        seen = [await anext(events)]
        service.send(signal.SIGSTOP)
        await sandbox.write(run, b"typed\n", close=True)
        asyncio.get_running_loop().call_later(7, service.send, signal.SIGCONT)
        seen += [event async for event in events]
    assert whole(seen)[0] == b"got typed\n"


async def test_a_runner_that_is_stopped_for_too_long_has_lost_its_runs_and_gives_them_up_itself() -> None:
    with runner_service() as service:
        async with sandbox_behind(service, 2) as (sandbox, _):
            run = await sandbox.start(spec(WAITS))
            events = sandbox.events(run)
            seen = [await anext(events), await anext(events)]
            service.send(signal.SIGSTOP)
            seen += [event async for event in events]
            service.send(signal.SIGCONT)
            assert whole(seen)[1].reason is Reason.LOST
            await sandbox.write(run, b"too late")
            await sandbox.cancel(run)
            for _ in range(100):
                if running(service) == 0:
                    break
                await asyncio.sleep(0.1)
            assert running(service) == 0


def running(service: RunnerService) -> float:
    """Return how many runs go on in the service."""
    asked = urllib.request.Request(f"{service.url}/metrics", headers={"Authorization": f"Bearer {SECRET}"})
    with urllib.request.urlopen(asked) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(x for x in lines if x.startswith("atelier_runner_running")).split()[1])


async def test_a_runner_that_is_killed_has_lost_its_runs_once_and_the_next_one_does_not_begin_them() -> None:
    with runner_service() as service:
        async with sandbox_behind(service, 20) as (sandbox, _):
            runs = [await sandbox.start(spec(WAITS)) for _ in range(3)]
            readers = [sandbox.events(run) for run in runs]
            seen = [[await anext(events), await anext(events)] for events in readers]
            service.end()
            service.start()
            for events, found in zip(readers, seen, strict=True):
                found += [event async for event in events]
                printed, last = whole(found)
                assert (printed, last.reason) == (b"on\n", Reason.LOST)
                assert "anew" in last.detail
            assert begun(service) == 0
            run = await sandbox.start(spec("print('next')"))
            assert whole([event async for event in sandbox.events(run)])[0] == b"next\n"


async def test_a_runner_that_does_not_come_back_is_waited_for_no_longer_than_was_said() -> None:
    with runner_service() as service:
        async with sandbox_behind(service, 1) as (sandbox, _):
            run = await sandbox.start(spec(WAITS))
            events = sandbox.events(run)
            seen = [await anext(events), await anext(events)]
            service.end()
            began = asyncio.get_running_loop().time()
            seen += [event async for event in events]
            assert whole(seen)[1].reason is Reason.LOST
            assert asyncio.get_running_loop().time() - began < 15
            with pytest.raises(AtelierError) as refused:
                await sandbox.start(spec("print(1)"))
            assert refused.value.code == "sandbox_unavailable"
            found = await sandbox.capabilities()
            assert not found.available
            assert "does not answer" in found.hint


async def test_a_run_whose_reader_leaves_is_cancelled(service: RunnerService) -> None:
    async with sandbox_behind(service, 15) as (sandbox, _):
        run = await sandbox.start(spec(WAITS))
        events = sandbox.events(run)
        await anext(events)
        await events.aclose()  # type: ignore[attr-defined]
        for _ in range(50):
            if running(service) == 0:
                break
            await asyncio.sleep(0.1)
        assert running(service) == 0


async def test_another_secret_is_refused_in_words(service: RunnerService) -> None:
    async with open_sandbox(service.url, "something else entirely") as sandbox:
        with pytest.raises(AtelierError) as refused:
            await sandbox.start(spec("print(1)"))
        assert refused.value.code == "sandbox_unavailable"
        assert "secret" in refused.value.detail
        assert "secret" in (await sandbox.capabilities()).hint


async def test_untrusted_programs_run_where_every_control_is_there(service: RunnerService) -> None:
    async with open_sandbox(f"{service.url}?untrusted=1", SECRET) as sandbox:
        run = await sandbox.start(spec("print(1)"))
        assert whole([event async for event in sandbox.events(run)])[0] == b"1\n"


SHOWN = spec("print(open('/proc/self/cmdline').read().split('\\0')[1:3])")


async def test_strict_mode_is_the_runner_s_own_and_starts_a_new_interpreter() -> None:
    with runner_service("--strict", "--pool", "1", "--pool-most", "3", "--pool-memory", "64") as strict:
        async with open_sandbox(strict.url, SECRET) as sandbox:
            run = await sandbox.start(SHOWN)
            assert whole([event async for event in sandbox.events(run)])[0] == b"['-u', 'main.py']\n"
        with pytest.raises(ValueError, match="embedded"):
            async with open_sandbox(f"{strict.url}?strict=1", SECRET):
                pass
    async with open_sandbox("embedded://?strict=1&pool_most=2&pool_memory_mb=64") as sandbox:
        run = await sandbox.start(SHOWN)
        assert whole([event async for event in sandbox.events(run)])[0] == b"['-u', 'main.py']\n"


async def test_where_a_control_is_absent_untrusted_programs_are_refused_by_either_side() -> None:
    # To a process under `setarch` the machine looks like one that there is no filter of system calls for.
    with runner_service(under=("setarch", "i686")) as trusting:
        async with open_sandbox(trusting.url, SECRET) as sandbox:
            found = await sandbox.capabilities()
            assert [control.name for control in found.controls if control.state == "absent"] == [
                "system calls"
            ]
            run = await sandbox.start(spec("print(1)"))
            assert whole([event async for event in sandbox.events(run)])[0] == b"1\n"
        async with open_sandbox(f"{trusting.url}?untrusted=1", SECRET) as sandbox:
            with pytest.raises(AtelierError) as refused:
                await sandbox.start(spec("print(1)"))
            assert (refused.value.code, "system calls" in refused.value.detail) == (
                "sandbox_unavailable",
                True,
            )
    with runner_service("--untrusted", under=("setarch", "i686")) as careful:
        async with open_sandbox(careful.url, SECRET) as sandbox:
            with pytest.raises(AtelierError) as refused:
                await sandbox.start(spec("print(1)"))
            assert (refused.value.code, "system calls" in refused.value.detail) == (
                "sandbox_unavailable",
                True,
            )


async def test_a_runner_that_is_told_to_end_says_so_to_its_readers_at_once() -> None:
    with runner_service() as service:
        async with open_sandbox(service.url, SECRET) as sandbox:
            run = await sandbox.start(spec(WAITS))
            events = sandbox.events(run)
            seen = [await anext(events), await anext(events)]
            service.send(signal.SIGTERM)
            began = asyncio.get_running_loop().time()
            seen += [event async for event in events]
            assert asyncio.get_running_loop().time() - began < 2
            printed, last = whole(seen)
            assert (printed, last.reason, last.detail) == (
                b"on\n",
                Reason.LOST,
                "The runner was stopped while this ran.",
            )
