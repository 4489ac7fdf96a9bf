"""Runs of a server whose runners are elsewhere, several, and come and go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import redis.asyncio as redis
from deploy.stores import free_port

from atelier.settings import Settings
from atelier_runner import line

from ..conftest import Somebody, client_of, running, session_of
from ..runner_service import SECRET, runner_service
from ..stores import redis as own_redis
from .test_runs import begin, events, printed

WAITS = "import os, time; os.write(1, b'on\\n'); time.sleep(60)"


@asynccontextmanager
async def workshop(settings: Settings, url: str, **limits: int) -> AsyncIterator[tuple[Somebody, str]]:
    """Somebody in a session of a server whose runners register at `url`."""
    settings = replace(
        settings,
        sandbox_url=f"{url}?patience=2",
        runner_secret=SECRET,
        limits=replace(settings.limits, **limits),
    )
    async with running(settings) as app, client_of(app) as http:
        made = (await http.post("/api/v1/guests", json={"display_name": "Ada"})).json()
        http.headers["Authorization"] = f"Bearer {made['access_token']}"
        ada = Somebody(made["user"]["id"], "Ada", made["access_token"], http)
        async with asyncio.timeout(20):
            while not (await ada.ok("GET", "/runtimes"))["available"]:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        yield ada, await session_of(ada)


async def test_what_ran_on_a_killed_runner_is_lost_once_and_what_waits_moves_on(
    settings: Settings, redis_url: str
) -> None:
    one_at_a_time = ("--join", redis_url, "--runs", "1", "--pool", "1")
    with runner_service(*one_at_a_time) as first:
        async with workshop(settings, redis_url) as (ada, session_id):
            path = f"/sessions/{session_id}/runs"
            ran = await begin(ada, session_id, WAITS)
            reading = asyncio.create_task(events(ada, session_id, ran))
            async with asyncio.timeout(20):
                while (await ada.ok("GET", f"{path}/{ran}"))["status"] != "running":  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            waits = await begin(ada, session_id, "print('moved on')")
            last = await begin(ada, session_id, "print('moved on')", priority="low")
            dropped = await begin(ada, session_id, "print('moved on')")
            places = [(await ada.ok("GET", f"{path}/{run}"))["position"] for run in (waits, dropped, last)]
            assert places == [0, 1, 2]
            await ada.ok("DELETE", f"{path}/{dropped}")
            assert (await events(ada, session_id, dropped))[-1]["reason"] == "cancelled"
            first.end()
            with runner_service(*one_at_a_time):
                for run in (waits, last):
                    found = await events(ada, session_id, run)
                    assert (printed(found), found[-1]["reason"]) == ("moved on\n", "exited")
            found = await reading
            assert [event["reason"] for event in found if event["type"] == "exited"] == ["lost"]
            assert printed(found) == "on\n"


async def test_a_full_line_refuses_early_with_a_time_and_leaves_no_run_behind(
    settings: Settings, redis_url: str
) -> None:
    with runner_service("--join", redis_url, "--runs", "1", "--pool", "1"):
        async with workshop(settings, redis_url, queued_runs=1) as (ada, session_id):
            path = f"/sessions/{session_id}/runs"
            ran = await begin(ada, session_id, WAITS)
            async with asyncio.timeout(20):
                while (await ada.ok("GET", f"{path}/{ran}"))["status"] != "running":  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await begin(ada, session_id, WAITS)
            problem = await ada.refused(429, "queue_full", "POST", path, json={})
            assert problem["retry_after"] > 0
            assert len((await ada.ok("GET", path))["items"]) == 2


async def test_a_claim_of_a_runner_that_is_not_there_sends_the_run_back_and_it_runs_elsewhere(
    settings: Settings, redis_url: str
) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    # What a runner with these capabilities writes, which then is cut off before it can begin anything.
    nothing = {"available": True, "hint": "", "controls": [], "languages": [
        {"name": "python", "title": "Python", "extensions": [".py"], "version": "3", "hint": ""}]}  # fmt: skip
    store = redis.from_url(redis_url)
    try:
        await store.sadd(line.RUNNERS, "gone")
        await store.set(line.runner_key("gone"), json.dumps({"address": gone, "capabilities": nothing}))
        async with workshop(settings, redis_url) as (ada, session_id):
            run = await begin(ada, session_id, "print('once')")
            keys = (line.LINE, line.WAITING, line.ROUNDS, line.SERVED)
            claimed = await store.eval(line.CLAIM, len(keys), *keys, gone, "instance", 10, 60, "python")
            assert claimed == run.encode()
            async with asyncio.timeout(20):
                while (await ada.ok("GET", f"/sessions/{session_id}/runs/{run}"))["position"] != 0:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            with runner_service("--join", redis_url):
                found = await events(ada, session_id, run)
            assert (printed(found), found[-1]["reason"]) == ("once\n", "exited")
    finally:
        await store.aclose()


async def test_while_redis_is_away_a_run_is_refused_in_words_and_nothing_is_left(
    settings: Settings,
) -> None:
    with own_redis() as own, runner_service("--join", own.url):
        async with workshop(settings, own.url) as (ada, session_id):
            assert printed(await events(ada, session_id, await begin(ada, session_id, "print(1)"))) == "1\n"
            own.end()
            await ada.refused(503, "queue_unavailable", "POST", f"/sessions/{session_id}/runs", json={})
            assert len((await ada.ok("GET", f"/sessions/{session_id}/runs"))["items"]) == 1
            own.start()
            async with asyncio.timeout(20):
                while not (await ada.ok("GET", "/runtimes"))["available"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert printed(await events(ada, session_id, await begin(ada, session_id, "print(2)"))) == "2\n"
