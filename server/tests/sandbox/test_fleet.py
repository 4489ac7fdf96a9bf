"""Several runners, several servers and a Redis: who runs where and when, and what becomes of it when one of them goes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from deploy.stores import Redis

from atelier.errors import AtelierError
from atelier.sandbox import Event, Exited, Output, Reason, RunLimits, RunSpec, Sandbox, Turn, open_sandbox
from atelier_runner import line

from ..runner_service import SECRET, RunnerService, runner_service

LIMITS = RunLimits(
    wall_seconds=30, cpu_seconds=10, memory_mb=128, processes=16, disk_mb=8, output_bytes=1 << 20
)


def joined(url: str, runs: int = 1) -> contextlib.AbstractContextManager[RunnerService]:
    """Run a runner that registers."""
    return runner_service("--join", url, "--runs", str(runs), "--pool", "1")


@contextlib.asynccontextmanager
async def server(url: str, queued: int = 100, patience: float = 10) -> AsyncIterator[Sandbox]:
    """Open what one server process opens."""
    async with open_sandbox(f"{url}?patience={patience}", SECRET, queued=queued) as opened:
        yield opened


@pytest.fixture
def runner(redis_url: str) -> Iterator[RunnerService]:
    """One registered runner with room for one run."""
    with joined(redis_url) as running:
        yield running


def spec(program: str) -> RunSpec:
    return RunSpec("python", "main.py", {"main.py": program.encode()}, LIMITS, stdin=b"")


def turn(run: str, person: str = "ada", priority: int = 0, language: str = "python") -> Turn:
    return Turn(f"run-{run:0>8}", person, priority, language)


async def play(sandbox: Sandbox, program: str) -> tuple[str, bytes, Exited]:
    """Take the next turn and run a program in it; returns whose turn it was, what was printed and the end."""
    async with asyncio.timeout(20):
        mine = await sandbox.turns.take()
    printed, last = b"", None
    async for event in sandbox.events(await sandbox.start(spec(program), mine.place)):
        printed += event.data if isinstance(event, Output) else b""
        last = event
    await sandbox.turns.done(mine)
    assert isinstance(last, Exited)
    return mine.run, printed, last


async def until_known(sandbox: Sandbox) -> None:
    """Wait until a runner has registered."""
    async with asyncio.timeout(20):
        while not (await sandbox.capabilities()).available:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_a_run_waits_is_claimed_and_runs_and_the_runners_are_known(
    redis_url: str, runner: RunnerService
) -> None:
    async with server(redis_url) as ours:
        await until_known(ours)
        found = await ours.capabilities()
        assert "python" in {language.name for language in found.languages if language.version}
        assert {control.state for control in found.controls} <= {"enforced", "partial"}
        await ours.turns.put(turn("a"))
        run, printed, last = await play(ours, "print('here')")
        assert (run, printed, last.reason) == (turn("a").run, b"here\n", Reason.EXITED)


async def test_without_a_runner_it_is_said_and_runs_wait(redis_url: str) -> None:
    async with server(redis_url) as ours:
        found = await ours.capabilities()
        assert not found.available
        assert "--join" in found.hint
        await ours.turns.put(turn("a"))
        assert await ours.turns.positions([turn("a").run, "other"]) == {turn("a").run: 0}
        with joined(redis_url):
            assert (await play(ours, "print(1)"))[1] == b"1\n"


async def test_people_take_turns_over_all_servers_and_low_priority_comes_last(redis_url: str) -> None:
    async with server(redis_url) as one, server(redis_url) as two:
        for n in range(4):
            await one.turns.put(turn(f"a{n}", "ada"))
        await two.turns.put(turn("l0", "eve", 1))
        await two.turns.put(turn("b0", "bob"))
        await one.turns.put(turn("b1", "bob"))
        names = ("a0", "b0", "a1", "b1", "a2", "a3", "l0")
        runs = [turn(name).run for name in names]
        assert await two.turns.positions(runs) == {run: place for place, run in enumerate(runs)}
        order: list[str] = []

        async def serve(sandbox: Sandbox) -> None:
            while True:
                order.append((await play(sandbox, "pass"))[0])

        with joined(redis_url):
            tasks = [asyncio.create_task(serve(sandbox)) for sandbox in (one, two)]
            async with asyncio.timeout(30):
                while len(order) < 7:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert order == runs


async def test_a_newcomer_is_served_in_the_round_that_is_going_on(
    redis_url: str, runner: RunnerService
) -> None:
    async with server(redis_url) as ours:
        for n in range(6):
            await ours.turns.put(turn(f"a{n}", "ada"))
        order = [(await play(ours, "pass"))[0] for _ in range(3)]
        await ours.turns.put(turn("b0", "bob"))
        order += [(await play(ours, "pass"))[0] for _ in range(4)]
        assert order.index(turn("b0").run) in (3, 4)


async def test_a_full_queue_refuses_with_a_time_and_what_is_dropped_waits_no_more(redis_url: str) -> None:
    async with server(redis_url, queued=2) as one, server(redis_url, queued=2) as two:
        await one.turns.put(turn("a"))
        await one.turns.refuse_if_full()
        await two.turns.put(turn("b"))
        for sandbox in (one, two):
            for refused in (sandbox.turns.refuse_if_full(), sandbox.turns.put(turn("c"))):
                with pytest.raises(AtelierError) as error:
                    await refused
                assert error.value.code == "queue_full"
                assert error.value.extra["retry_after"] > 0
        assert await one.turns.drop(turn("a").run)
        assert not await one.turns.drop(turn("a").run)
        assert not await one.turns.drop(turn("b").run), "the other's"
        await two.turns.put(turn("c"))
        assert await two.turns.positions([turn(x).run for x in "abc"]) == {turn("b").run: 0, turn("c").run: 1}


async def test_a_run_goes_to_a_runner_that_has_its_language(redis_url: str, runner: RunnerService) -> None:
    async with server(redis_url) as ours:
        await ours.turns.put(turn("x", language="klingon"))
        await ours.turns.put(turn("y", "bob"))
        assert (await play(ours, "print(2)"))[:2] == (turn("y").run, b"2\n")
        assert await ours.turns.positions([turn("x").run]) == {turn("x").run: 0}


async def test_what_a_dead_runner_had_claimed_and_not_begun_moves_on(redis_url: str) -> None:
    async with server(redis_url) as ours:
        with joined(redis_url) as first:
            await ours.turns.put(turn("a"))
            mine = await ours.turns.take()
            first.end()
            with pytest.raises(AtelierError) as gone:
                await ours.start(spec("print(1)"), mine.place)
            assert gone.value.code == "runner_gone"
            await ours.turns.put(turn("b", "bob"))
            await ours.turns.put(turn("a"), again=True)
            with joined(redis_url):
                assert (await play(ours, "print(1)"))[:2] == (turn("a").run, b"1\n")
                assert (await play(ours, "print(2)"))[:2] == (turn("b").run, b"2\n")


async def test_what_was_claimed_by_a_process_that_was_started_anew_is_not_begun_by_the_next(
    redis_url: str,
) -> None:
    with joined(redis_url) as service:
        async with server(redis_url) as ours:
            await ours.turns.put(turn("a"))
            mine = await ours.turns.take()
            service.end()
            service.start()
            with pytest.raises(AtelierError) as gone:
                await ours.start(spec("print(1)"), mine.place)
            assert gone.value.code == "runner_gone"


async def test_a_started_run_of_a_dead_runner_is_lost_and_not_run_again(redis_url: str) -> None:
    with joined(redis_url) as first, joined(redis_url):
        async with server(redis_url, patience=2) as ours:
            await ours.turns.put(turn("a"))
            mine = await ours.turns.take()
            assert mine.place is not None
            where = first if mine.place.address == first.url else None
            run = await ours.start(spec("import time; print('on', flush=True); time.sleep(60)"), mine.place)
            seen: list[Event] = []
            async for event in ours.events(run):
                seen.append(event)
                if isinstance(event, Output) and b"on" in event.data:
                    os.kill(first.pid if where else pid_of(mine.place.address), signal.SIGKILL)
            ends = [event for event in seen if isinstance(event, Exited)]
            assert [end.reason for end in ends] == [Reason.LOST]
            assert await ours.turns.positions([turn("a").run]) == {}


def pid_of(address: str) -> int:
    """Find the process that listens at an address."""
    import psutil

    port = int(address.rsplit(":", 1)[1])
    return int(
        next(c.pid for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port)
    )


async def test_a_server_that_has_gone_leaves_no_work_behind(
    redis_url: str, redis_server: Redis, runner: RunnerService
) -> None:
    async with server(redis_url) as ours:
        await ours.turns.put(turn("busy"))
        busy = await ours.turns.take()
        async with server(redis_url) as other:
            await other.turns.put(turn("left", "bob"))
            names = redis_server.say("KEYS", f"{line.server_key('')}*").split()
        for name in names:
            if name.startswith(b"atelier:server:") and ours.turns._own.encode() not in name:  # type: ignore[attr-defined]
                redis_server.say("DEL", name.decode())  # as it expires by itself
        await ours.turns.put(turn("next", "eve"))
        await ours.start(spec("pass"), busy.place)
        assert (await play(ours, "print(3)"))[:2] == (turn("next").run, b"3\n")
        assert await ours.turns.positions([turn("left").run]) == {}


async def test_what_redis_loses_is_put_again_and_nothing_is_begun_twice(
    redis_url: str, redis_server: Redis
) -> None:
    async with server(redis_url) as ours:
        await ours.turns.put(turn("a"))
        redis_server.say("FLUSHALL")
        async with asyncio.timeout(20):
            while not await ours.turns.positions([turn("a").run]):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        with joined(redis_url, runs=4):
            assert (await play(ours, "print(1)"))[:2] == (turn("a").run, b"1\n")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await ours.turns.take()


async def test_many_runs_over_two_servers_and_two_runners_one_of_which_dies_are_each_begun_once(
    redis_url: str,
) -> None:
    count, ended = 40, dict[str, list[str]]()

    async def serve(sandbox: Sandbox) -> None:
        while True:
            mine = await sandbox.turns.take()
            tasks.append(asyncio.create_task(one(sandbox, mine)))

    async def one(sandbox: Sandbox, mine: Turn) -> None:
        try:
            run = await sandbox.start(spec("import time; time.sleep(0.1); print('done')"), mine.place)
        except AtelierError as error:
            if error.code == "runner_gone":
                await sandbox.turns.put(mine, again=True)
            else:  # it may have begun
                ended.setdefault(mine.run, []).append("lost")
            return
        printed, last = b"", None
        async for event in sandbox.events(run):
            printed += event.data if isinstance(event, Output) else b""
            last = event
        assert isinstance(last, Exited)
        assert last.reason is Reason.LOST or printed == b"done\n"
        ended.setdefault(mine.run, []).append(last.reason)

    tasks: list[asyncio.Task[None]] = []
    async with server(redis_url, patience=2) as left, server(redis_url, patience=2) as right:
        with joined(redis_url, 2) as first, joined(redis_url, 2):
            tasks += [asyncio.create_task(serve(sandbox)) for sandbox in (left, right)]
            for n in range(count):
                await (left, right)[n % 2].turns.put(turn(str(n), f"person{n % 5}"))
            async with asyncio.timeout(60):
                while len(ended) < count // 4:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                first.end()
                while len(ended) < count:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        for task in tasks:
            if not task.done():
                task.cancel()
        failures = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [f for f in failures if isinstance(f, Exception)]
    assert sorted(len(ends) for ends in ended.values()) == [1] * count
    assert sum(ends == ["exited"] for ends in ended.values()) >= count - 2
