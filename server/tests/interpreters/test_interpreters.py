"""A session's interpreter over the API: cells in order, seen by all, stopped, restarted, bounded; through one process or two, and when things die."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from deploy.stores import Redis
from websockets.asyncio.client import connect

from ..hub.clients import LiveServer, World, live_server, two_servers
from ..runner_service import SECRET, runner_service

pytestmark = pytest.mark.timeout(90)


@asynccontextmanager
async def peopled(server: LiveServer) -> AsyncIterator[World]:
    """Ada owns a session, Bob may edit it, Rik may run, Vic may look."""
    async with httpx2.AsyncClient(timeout=20) as http:
        world = World(server, None, http)  # type: ignore[arg-type]
        await world.guest("Ada")
        for name, role in (("Bob", "edit"), ("Rik", "run"), ("Vic", "view")):
            await world.guest(name, role)
        yield world


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with live_server(tmp_path) as server, peopled(server) as opened:
        yield opened


async def send(world: World, *codes: str, who: str = "Ada", **more: Any) -> list[str]:
    """Send cells together; returns their ids."""
    body = {"cells": [{"code": code, **more} for code in codes]}
    answer = await world.call(who, "POST", f"/sessions/{world.session}/cells", json=body)
    assert answer.status_code == 201, answer.text
    return [cell["id"] for cell in answer.json()["items"]]


async def listed(world: World, who: str = "Ada") -> dict[str, Any]:
    answer = await world.call(who, "GET", f"/sessions/{world.session}/cells")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def until(
    world: World, condition: Callable[[dict[str, Any]], bool], who: str = "Ada", seconds: float = 20
) -> dict[str, Any]:
    end = asyncio.get_running_loop().time() + seconds
    while not condition(found := await listed(world, who)):
        assert asyncio.get_running_loop().time() < end, json.dumps(found, indent=1)[:5000]
        await asyncio.sleep(0.05)
    return found


async def ended(world: World, cell_id: str, seconds: float = 20) -> dict[str, Any]:
    """Wait for a cell's end."""
    found = await until(world, lambda all_: status_of(all_, cell_id) == "ended", seconds=seconds)
    return next(cell for cell in found["items"] if cell["id"] == cell_id)


def status_of(found: dict[str, Any], cell_id: str) -> str:
    return next((str(cell["status"]) for cell in found["items"] if cell["id"] == cell_id), "")


async def run(world: World, code: str, who: str = "Ada", **more: Any) -> dict[str, Any]:
    return await ended(world, (await send(world, code, who=who, **more))[0])


def text(cell: dict[str, Any], *types: str) -> str:
    wanted = types or ("stdout", "value")
    return "".join(event["data"].get("data", "") for event in cell["events"] if event["type"] in wanted)


async def printed(world: World, cell_id: str, words: str) -> None:
    def there(found: dict[str, Any]) -> bool:
        return any(cell["id"] == cell_id and words in text(cell) for cell in found["items"])

    await until(world, there)


async def refused(world: World, who: str, method: str, path: str, **options: Any) -> tuple[int, str]:
    answer = await world.call(who, method, f"/sessions/{world.session}{path}", **options)
    return answer.status_code, answer.json()["code"]


async def delete(world: World, path: str, who: str = "Ada") -> None:
    answer = await world.call(who, "DELETE", f"/sessions/{world.session}{path}")
    assert answer.status_code == 204, answer.text


async def test_people_share_the_variables_and_see_who_ran_what(world: World) -> None:
    first = await run(world, "x = 20\nprint('set')")
    second = await run(world, "x * 2 + 2", who="Bob")
    assert (first["number"], text(first), first["outcome"], first["user_name"]) == (1, "set\n", "done", "Ada")
    assert (second["number"], text(second), second["life"], second["user_name"]) == (2, "42", 1, "Bob")
    found = await listed(world, "Vic")
    assert [cell["code"] for cell in found["items"]] == ["x = 20\nprint('set')", "x * 2 + 2"]
    assert found["interpreter"]["life"] == 1
    assert await refused(world, "Vic", "POST", "/cells", json={"cells": [{"code": "1"}]}) == (
        403,
        "role_forbids",
    )
    assert await refused(world, "Vic", "DELETE", "/interpreter") == (403, "role_forbids")
    assert await refused(world, "Vic", "DELETE", f"/cells/{first['id']}") == (403, "role_forbids")
    assert await refused(world, "Ada", "DELETE", "/cells/cel_none") == (404, "cell_not_found")
    await delete(world, "/cells")
    assert (await listed(world))["items"] == []
    assert text(await run(world, "x")) == "20"


async def test_an_error_leads_to_the_line_and_skips_what_was_sent_with_it(world: World) -> None:
    failing, after = await send(world, "a = 1\nb = a / 0", "print('never')", path="main.py", line=10)
    cell = await ended(world, failing)
    assert cell["error"] is not None, cell
    assert (cell["outcome"], cell["error"]["name"], cell["error"]["place"]) == (
        "error",
        "ZeroDivisionError",
        [1, 2],
    )
    assert "Cell [1], line 2" in cell["error"]["text"]
    assert (cell["path"], cell["line"]) == ("main.py", 10)
    skipped = await ended(world, after)
    assert (skipped["outcome"], skipped["number"]) == ("skipped", None)
    assert text(await run(world, "a")) == "1"


async def test_events_tell_everyone_as_it_happens(world: World) -> None:
    address = world.server.url.replace("http", "ws") + f"/api/v1/sessions/{world.session}/events"
    async with connect(f"{address}?token={world.tokens['Vic']}") as socket:
        await socket.recv()
        await send(world, "print('hello')\n6 * 7")
        seen: list[dict[str, Any]] = []
        while not {"cell.ended", "value"} <= {e["type"] for e in seen} | {
            e["data"].get("type") for e in seen
        }:
            seen.append(json.loads(await asyncio.wait_for(socket.recv(), 15)))
        types = [event["type"] for event in seen if not event["type"].startswith("presence")]
        assert types[0] == "cell.queued"
        stored = [type_ for type_ in types if type_ != "cell.event"]
        assert stored == ["cell.queued", "interpreter.started", "cell.started", "cell.ended"]
        told = [event["data"] for event in seen if event["type"] == "cell.event"]
        assert "".join(t["data"]["data"] for t in told if t["type"] == "stdout") == "hello\n"
        assert [t["data"]["data"] for t in told if t["type"] == "value"] == ["42"]
        assert [t["seq"] for t in told] == list(range(1, len(told) + 1))


async def test_rich_values_are_files_that_run_as_nobody(world: World) -> None:
    code = "class T:\n    def __repr__(self): return 'plain'\n    def _repr_html_(self): return '<script>1</script><b>rich</b>'\nT()"
    cell = await run(world, code)
    values = [event["data"] for event in cell["events"] if event["type"] == "value"]
    assert values[0] == {"role": "value", "media_type": "text/plain", "data": "plain", "instead": True}
    assert values[1] == {"role": "value", "media_type": "text/html", "number": 1}
    answer = await world.call("Vic", "GET", f"/sessions/{world.session}/cells/{cell['id']}/files/1")
    assert "<script>1</script><b>rich</b>" in answer.text
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
    assert await refused(world, "Vic", "GET", f"/cells/{cell['id']}/files/2") == (404, "cell_file_not_found")
    long = await run(world, "'é' * 60_000")
    assert text(long) == repr("é" * 60_000)
    answer = await world.call("Vic", "GET", f"/sessions/{world.session}/cells/{long['id']}/events")
    assert answer.json()["items"] == long["events"]


async def test_text_that_is_shown_is_bounded_too(world: World) -> None:
    cell = await run(world, "for n in range(40): display('x' * 20_000)\nx = 1\nx")
    assert 200_000 < len(text(cell)) <= 256 * 1024
    assert text(cell, "note").startswith("Further values are not kept")


async def test_stop_interrupts_what_runs_and_takes_out_what_waits(world: World) -> None:
    running = (await send(world, "import time\nn = 5\nprint('up')\ntime.sleep(60)"))[0]
    waiting, other = (await send(world, "1"))[0], (await send(world, "n", who="Bob"))[0]
    await printed(world, running, "up")
    await delete(world, f"/cells/{waiting}", "Rik")
    assert (await ended(world, waiting))["outcome"] == "skipped"
    await delete(world, f"/cells/{running}", "Bob")
    stopped = await ended(world, running)
    assert (stopped["outcome"], stopped["error"]["name"]) == ("interrupted", "KeyboardInterrupt")
    assert text(await ended(world, other)) == "5"
    await delete(world, f"/cells/{running}")  # it has ended


async def test_a_restart_starts_afresh(world: World) -> None:
    await run(world, "x = 1")
    running = (await send(world, "import time\nprint('up')\ntime.sleep(60)"))[0]
    waiting = (await send(world, "x"))[0]
    await printed(world, running, "up")
    await delete(world, "/interpreter", "Bob")
    stopped = await ended(world, running)
    assert (stopped["outcome"], stopped["detail"]) == ("stopped", "Bob restarted the interpreter.")
    assert (await ended(world, waiting))["outcome"] == "skipped"
    fresh = await run(world, "'x' in globals()")
    assert (text(fresh), fresh["life"], fresh["number"]) == ("False", 2, 1)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("x = []\nwhile True: x.append(bytearray(1 << 22))", "MiB of memory"),
        ("exit(3)", "exit (3)"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
    ],
)
async def test_its_death_is_said_and_the_next_cell_begins_another_life(
    world: World, code: str, words: str
) -> None:
    await run(world, "x = 1")
    dead = await run(world, f"print('last words')\n{code}")
    assert (dead["outcome"], text(dead)) == ("died", "last words\n")
    assert words in dead["detail"]
    assert "variables are gone" in dead["detail"]
    fresh = await run(world, "'x' in globals()")
    assert (text(fresh), fresh["life"]) == ("False", 2)


async def test_input_is_typed_by_anybody_who_may_run(world: World) -> None:
    assert await refused(world, "Ada", "POST", "/interpreter/input", json={"data": "x\n"}) == (
        409,
        "no_cell_runs",
    )
    asking = (await send(world, "name = input('Who? ')\nf'Hello {name}'"))[0]
    await printed(world, asking, "Who? ")
    answer = await world.call(
        "Rik", "POST", f"/sessions/{world.session}/interpreter/input", json={"data": "Ädä\n"}
    )
    assert answer.status_code == 204
    cell = await ended(world, asking)
    assert text(cell) == "Who? 'Hello Ädä'"
    assert text(cell, "stdin") == "Ädä\n"


async def test_files_are_as_in_the_editor_and_what_is_written_comes_back(world: World) -> None:
    await world.put("Ada", "pkg/mod.py", "word = 'one'\n")
    assert text(await run(world, "import mod\nmod.word", path="pkg/main.py")) == "'one'"
    await world.put("Bob", "data.txt", "brought")
    cell = await run(
        world, "text = open('data.txt').read()\nopen('made.txt', 'w').write(text + ' back')", who="Bob"
    )
    assert cell["outcome"] == "done"
    end = asyncio.get_running_loop().time() + 15
    while (
        await world.call("Ada", "GET", f"/sessions/{world.session}/files/made.txt")
    ).text != "brought back":
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.05)
    note = await run(world, "open('made.txt', 'w').write('by Rik')", who="Rik")
    assert "Rik may run but not edit" in text(note, "note")
    await run(world, "open('made.txt', 'w').write('by Ada, perhaps')")
    await asyncio.sleep(1)
    answer = await world.call("Ada", "GET", f"/sessions/{world.session}/files/made.txt")
    assert answer.text == "brought back"
    await delete(world, "/interpreter")
    await until(world, lambda found: found["interpreter"] is None)
    await run(world, "open('made.txt', 'w').write('by Ada')")
    await run(world, "1")
    answer = await world.call("Ada", "GET", f"/sessions/{world.session}/files/made.txt")
    assert answer.text == "by Ada"


async def test_what_outlives_its_cell_prints_to_it(world: World) -> None:
    early = (
        await send(
            world,
            "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.6), print('late'))).start()\n1",
        )
    )[0]
    await ended(world, early)
    assert text(await run(world, "2")) == "2"
    await printed(world, early, "late\n")


async def test_too_much_is_refused_by_name(world: World) -> None:
    body = {"cells": [{"code": "x" * 70_000}]}
    assert await refused(world, "Ada", "POST", "/cells", json=body) == (422, "cell_too_large")
    await send(world, "import time; time.sleep(60)")
    for _ in range(2):
        await send(world, *["1"] * 49)
    body = {"cells": [{"code": "1"}] * 5}
    assert await refused(world, "Bob", "POST", "/cells", json=body) == (429, "too_many_cells")
    await delete(world, "/interpreter")
    await until(world, lambda found: all(cell["status"] == "ended" for cell in found["items"]))
    assert await refused(world, "Ada", "POST", "/cells", json={"cells": []}) == (422, "invalid_request")


async def test_limits_keep_the_variables_and_idleness_does_not(tmp_path: Path) -> None:
    server = LiveServer(
        tmp_path,
        limit_interpreter_idle_seconds="2",
        limit_cell_wall_seconds="1",
        limit_cell_output_bytes="2000",
    )
    await server.start()
    try:
        async with peopled(server) as world:
            slow = await run(world, "x = 1\nwhile True: pass")
            assert (slow["outcome"], "longer than 1 s" in slow["detail"]) == ("wall_time", True)
            flood = await run(world, "while True: print('y' * 99)")
            assert (flood["outcome"], len(text(flood))) == ("output", 2000)
            assert text(await run(world, "x")) == "1"
            await until(world, lambda found: found["interpreter"] is None)
            assert (await run(world, "1"))["life"] == 2
    finally:
        await server.end(signal.SIGTERM)


async def test_a_killed_server_loses_what_ran_and_runs_nothing_twice(tmp_path: Path) -> None:
    server = LiveServer(tmp_path)
    await server.start()
    try:
        async with peopled(server) as world:
            await run(world, "x = 1")
            running = (
                await send(
                    world,
                    "import time\nopen('ran.txt', 'a').write('once')\nprint('up', flush=True)\ntime.sleep(60)",
                )
            )[0]
            waiting = (await send(world, "x"))[0]
            await printed(world, running, "up")
            await server.end(signal.SIGKILL)
            await server.start()
            lost = await ended(world, running)
            assert (lost["outcome"], text(lost).strip()) == ("died", "up")
            assert "variables too" in lost["detail"]
            assert (await ended(world, waiting))["outcome"] == "skipped"
            assert text(await run(world, "'x' in globals()")) == "False"
            asked = await world.call("Ada", "DELETE", f"/sessions/{world.session}")
            assert asked.is_success, asked.text
    finally:
        await server.end(signal.SIGTERM)


async def test_a_runner_elsewhere_that_is_killed_ends_it_as_lost(tmp_path: Path) -> None:
    with runner_service() as runner:
        server = LiveServer(tmp_path, sandbox_url=f"{runner.url}?patience=3", runner_secret=SECRET)
        await server.start()
        try:
            async with peopled(server) as world:
                assert text(await run(world, "x = 6\nx * 7")) == "42"
                running = (await send(world, "import time\nprint('up')\ntime.sleep(60)"))[0]
                await printed(world, running, "up")
                runner.end()
                runner.start()
                lost = await ended(world, running)
                assert (lost["outcome"], "variables are gone" in lost["detail"]) == ("died", True)
                assert text(await run(world, "'x' in globals()")) == "False"
        finally:
            await server.end(signal.SIGTERM)


@pytest.mark.postgres
async def test_one_process_holds_it_and_all_use_it(
    tmp_path: Path, postgres_url: str, redis_url: str, redis_server: Redis
) -> None:
    async with (
        two_servers(tmp_path, postgres_url, redis_url) as servers,
        peopled(servers[0]) as world,
    ):
        other = World(servers[1], None, world.http)  # type: ignore[arg-type]
        other.tokens, other.session = world.tokens, world.session
        assert (await run(world, "x = 20"))["number"] == 1
        assert text(await run(other, "x + 22", who="Bob")) == "42"
        both = await asyncio.gather(*(send(w, f"y = {n}\ny") for n, w in enumerate([world, other] * 10)))
        cells = [await ended(other, ids[0]) for ids in both]
        assert [text(cell) for cell in cells] == [str(n) for n in range(20)]
        assert sorted(cell["number"] for cell in cells) == list(range(3, 23))
        asking = (await send(other, "input('? ')"))[0]
        await printed(other, asking, "? ")
        answer = await other.call(
            "Rik", "POST", f"/sessions/{world.session}/interpreter/input", json={"data": "from two\n"}
        )
        assert answer.status_code == 204
        assert "from two" in text(await ended(world, asking))
        running = (await send(world, "import time\nprint('up')\ntime.sleep(60)"))[0]
        await printed(other, running, "up")
        await delete(other, f"/cells/{running}", "Bob")
        assert (await ended(other, running))["outcome"] == "interrupted"
        await delete(other, "/interpreter", "Bob")
        await until(other, lambda found: found["interpreter"] is None)
        assert (await run(other, "'x' in globals()"))["life"] == 2
        running = (await send(world, "import time\nprint('up')\ntime.sleep(90)"))[0]
        await printed(world, running, "up")
        await servers[1].end(signal.SIGKILL)  # it holds the second life
        lost = await ended(world, running, 45)
        assert (lost["outcome"], "is gone" in lost["detail"]) == ("died", True)
        assert text(await run(world, "1 + 1")) == "2"


async def test_it_ends_with_its_session(world: World) -> None:
    async def kept() -> bool:
        return "atelier_interpreters_kept 1.0" in (await world.http.get(f"{world.server.url}/metrics")).text

    await run(world, "x = 1")
    assert await kept()
    answer = await world.call("Ada", "DELETE", f"/sessions/{world.session}")
    assert answer.is_success, answer.text
    end = asyncio.get_running_loop().time() + 20
    while await kept():
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.2)
