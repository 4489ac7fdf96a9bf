"""Runs over HTTP in the real sandbox: output, input, limits, cancel, resume, roles."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from atelier.events import queries as stored_events
from atelier.limits import Limits
from atelier.runs import queries as run_queries
from atelier.services import Services
from atelier.settings import Settings

from ..conftest import BASE, MakeGuest, Somebody, client_of, invite, running, session_of
from ..runner_service import SECRET, runner_service


async def begin(
    person: Somebody, session_id: str, program: str, *, name: str = "main.py", **body: Any
) -> str:
    await person.ok("PUT", f"/sessions/{session_id}/files/{name}", content=program.encode())
    answer = await person.http.post(f"/api/v1/sessions/{session_id}/runs", json={"entry": name, **body})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def events(person: Somebody, session_id: str, run_id: str, after: int = 0) -> list[dict[str, Any]]:
    headers = {"Last-Event-ID": str(after)} if after else {}
    answer = await person.http.get(
        f"/api/v1/sessions/{session_id}/runs/{run_id}/events", headers=headers, timeout=40
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.text.strip().split("\n\n"):
        if block.startswith(":"):
            continue  # a comment that keeps the stream open
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        found.append({"id": int(fields["id"]), "type": fields["event"], **json.loads(fields["data"])})
    return found


def printed(found: list[dict[str, Any]], stream: str = "stdout") -> str:
    return "".join(event["data"] for event in found if event["type"] == stream)


PROGRAMS = {
    "main.py": "import sys; print('out', sys.argv[1:], input()); print('err', file=sys.stderr)",
    "main.mjs": "process.stdin.on('data', d => { console.log('out', process.argv.slice(2), String(d).trim()); console.error('err') })",
    "main.ts": "const x: string = 'out'; process.stdin.on('data', (d: Buffer) => { console.log(x, process.argv.slice(2), String(d).trim()); console.error('err') })",
    "main.sh": 'read line; echo "out $* $line"; echo err >&2',
}


@pytest.mark.parametrize("name", list(PROGRAMS))
async def test_each_language_prints_reads_and_takes_arguments(guest: MakeGuest, name: str) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    run_id = await begin(ada, session_id, PROGRAMS[name], name=name, args=["one"], stdin="typed\n")
    found = await events(ada, session_id, run_id)
    assert [event["id"] for event in found] == list(range(1, len(found) + 1))
    assert (found[0]["type"], found[-1]["type"]) == ("started", "exited")
    assert "out" in printed(found)
    assert "one" in printed(found)
    assert "typed" in printed(found)
    assert printed(found, "stderr") == "err\n"
    last = found[-1]
    assert (last["reason"], last["code"]) == ("exited", 0)
    assert last["wall_seconds"] > 0
    assert last["peak_memory_bytes"] > 0
    run = await ada.ok("GET", f"/sessions/{session_id}/runs/{run_id}")
    assert run["status"] == "ended"


async def test_events_resume_after_a_number(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    run_id = await begin(ada, session_id, "print(1)")
    found = await events(ada, session_id, run_id)
    assert await events(ada, session_id, run_id, after=1) == found[1:]
    answer = await ada.http.get(
        f"/api/v1/sessions/{session_id}/runs/{run_id}/events", headers={"Last-Event-ID": str(len(found))}
    )
    assert answer.text == ""
    await ada.refused(
        400,
        "bad_event_id",
        "GET",
        f"/sessions/{session_id}/runs/{run_id}/events",
        headers={"Last-Event-ID": "x"},
    )


async def test_a_character_cut_in_two_is_put_together(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    program = "import os,time\nfor b in '😀é'.encode():\n    os.write(1, bytes([b])); time.sleep(0.01)\nos.write(1, b'\\xff')"
    found = await events(ada, session_id, await begin(ada, session_id, program))
    assert printed(found) == "😀é\ufffd"


def said(signal: bytes | None) -> str:
    """Return what a signal of a session's events says was printed."""
    return json.loads(signal)["data"].get("data", "") if signal and signal.startswith(b"{") else ""


async def test_input_is_typed_while_it_runs_and_everyone_s_socket_hears_of_it(
    guest: MakeGuest, services: Services
) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    heard = []
    async with services.bus.subscribe(f"events:{session_id}") as signals:
        run_id = await begin(
            ada,
            session_id,
            "print('ready', flush=True)\nfor line in iter(input, 'stop'): print('got', line, flush=True)",
        )
        async for signal in signals:
            heard.append(said(signal))
            if "ready" in "".join(heard):
                break
        for line in ("héllo", "stop"):
            await ada.ok("POST", f"/sessions/{session_id}/runs/{run_id}/stdin", json={"data": f"{line}\n"})
        found = await events(ada, session_id, run_id)
    assert printed(found) == "ready\ngot héllo\n"


@pytest.mark.parametrize(
    ("program", "limits", "reason"),
    [
        ("while True: pass", {"cpu_seconds": 0.5}, "cpu_time"),
        ("import time; time.sleep(60)", {"wall_seconds": 0.5}, "wall_time"),
        ("x = bytearray(400_000_000)", {"memory_mb": 64}, "memory"),
        ("while True: print('x' * 1000)", {"output_bytes": 50_000}, "output"),
        ("import os; os.abort()", {}, "signalled"),
    ],
)
async def test_each_limit_has_its_reason(
    guest: MakeGuest, program: str, limits: dict[str, Any], reason: str
) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    found = await events(ada, session_id, await begin(ada, session_id, program, limits=limits, stdin=""))
    assert found[-1]["reason"] == reason
    assert len(printed(found)) <= 50_000 + 8192


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"entry": "none.py"}, 404, "entry_not_found"),
        ({"entry": "notes.txt"}, 422, "language_unknown"),
        ({"language": "cobol"}, 422, "language_unknown"),
        ({"limits": {"memory_mb": 10_000_000}}, 422, "limit_too_high"),
        ({"limits": {"wall_seconds": 0}}, 422, "invalid_request"),
        ({"limits": {"wall_seconds": -1}}, 422, "invalid_request"),
    ],
)
async def test_bad_runs_are_refused_by_name(
    guest: MakeGuest, body: dict[str, Any], status: int, code: str
) -> None:
    ada = await guest()
    session_id = await session_of(ada, "python")
    await ada.ok("PUT", f"/sessions/{session_id}/files/notes.txt", content=b"x")
    await ada.refused(status, code, "POST", f"/sessions/{session_id}/runs", json=body)


async def test_nan_is_no_limit(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada, "python")
    headers = {"content-type": "application/json"}
    await ada.refused(
        422,
        "invalid_request",
        "POST",
        f"/sessions/{session_id}/runs",
        content='{"limits":{"wall_seconds":NaN}}',
        headers=headers,
    )


async def test_cancel_ends_a_running_program_and_the_role_run_may(guest: MakeGuest) -> None:
    ada, bob = await guest("Ada"), await guest("Bob")
    session_id = await session_of(ada)
    await invite(ada, session_id, bob, "run")
    run_id = await begin(ada, session_id, "import time; print('on', flush=True); time.sleep(60)")
    reading = asyncio.create_task(events(ada, session_id, run_id))
    await bob.ok("DELETE", f"/sessions/{session_id}/runs/{run_id}")
    found = await asyncio.wait_for(reading, 10)
    assert found[-1]["reason"] == "cancelled"
    await ada.ok("PUT", f"/sessions/{session_id}/files/main.py", content=b"print(1)")
    own = await bob.ok("POST", f"/sessions/{session_id}/runs", json={"limits": {"wall_seconds": 0.5}})
    assert (await events(bob, session_id, own["id"]))[-1]["type"] == "exited"


async def test_a_run_that_the_server_left_behind_ends_as_lost(settings: Settings) -> None:
    async with running(settings) as app:
        session_id, run_id, token = await left_behind(app)
    async with running(settings) as app:
        async with client_of(app, Authorization=f"Bearer {token}") as http:
            run = (await http.get(f"/api/v1/sessions/{session_id}/runs/{run_id}")).json()
            text = (await http.get(f"/api/v1/sessions/{session_id}/runs/{run_id}/events")).text
    assert (run["status"], run["result"]["reason"]) == ("ended", "lost")
    assert "event: exited" in text


async def left_behind(app: FastAPI) -> tuple[str, str, str]:
    """Start a long program and leave the server while it runs."""

    async with client_of(app) as http:
        made = (await http.post("/api/v1/guests", json={"display_name": "Ada"})).json()
        bearer = {"Authorization": f"Bearer {made['access_token']}"}
        session = (await http.post("/api/v1/sessions", json={"name": "x"}, headers=bearer)).json()
        await http.put(
            f"/api/v1/sessions/{session['id']}/files/main.py",
            content=b"import time; time.sleep(60)",
            headers=bearer,
        )
        run = (await http.post(f"/api/v1/sessions/{session['id']}/runs", json={}, headers=bearer)).json()
    return session["id"], run["id"], made["access_token"]


async def test_input_that_comes_before_the_program_waits_for_it_in_order(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    run_id = await begin(ada, session_id, "import sys; print(sys.stdin.read())")
    for n in range(20):
        await ada.ok(
            "POST", f"/sessions/{session_id}/runs/{run_id}/stdin", json={"data": f"{n},", "close": n == 19}
        )
    assert printed(await events(ada, session_id, run_id)) == "".join(f"{n}," for n in range(20)) + "\n"
    await ada.ok("POST", f"/sessions/{session_id}/runs/{run_id}/stdin", json={"data": "too late"})


async def test_input_given_at_once_takes_no_more(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    run_id = await begin(ada, session_id, "import time; time.sleep(60)", stdin="all")
    path = f"/sessions/{session_id}/runs/{run_id}"
    await ada.refused(409, "stdin_given", "POST", f"{path}/stdin", json={"data": "more"})
    await ada.ok("DELETE", path)


async def test_a_program_that_does_not_read_gets_no_endless_input(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    run_id = await begin(ada, session_id, "import time; time.sleep(60)")
    path = f"/sessions/{session_id}/runs/{run_id}"
    codes = set()
    for _ in range(100):
        answer = await ada.http.post(f"/api/v1{path}/stdin", json={"data": "x" * 60_000})
        codes.add(answer.status_code)
        if answer.status_code == 409:
            break
    assert codes == {204, 409}
    assert answer.json()["code"] == "stdin_full"
    await ada.ok("DELETE", path)


async def test_output_in_tiny_pieces_on_both_streams_is_few_events_and_whole(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    program = "import os\nfor n in range(20000): os.write(1 + n % 2, b'x')"
    found = await events(ada, session_id, await begin(ada, session_id, program))
    assert len(printed(found)) == len(printed(found, "stderr")) == 10_000
    assert len(found) < 600


async def test_characters_that_are_long_in_json_do_not_break_the_run(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    found = await events(ada, session_id, await begin(ada, session_id, "print('😀' * 50_000)"))
    assert printed(found) == "😀" * 50_000 + "\n"
    assert found[-1]["reason"] == "exited"


async def test_everyone_hears_queued_started_and_ended_in_this_order(
    guest: MakeGuest, services: Services
) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    for number in range(1, 6):
        await events(ada, session_id, await begin(ada, session_id, "pass"))
        async with asyncio.timeout(10):  # the run's own events end before everybody is told
            while len(told := await runs_told(services, session_id)) < 3 * number:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert told == ["run.queued", "run.started", "run.ended"] * 5


async def runs_told(services: Services, session_id: str) -> list[str]:
    """Return the types of a session's numbered events about runs."""
    async with services.db.begin() as db:
        found = await stored_events.after(db, session_id, 0, 1_000)
    return [event["type"] for event in found if event["type"].startswith("run.")]


async def test_more_than_run_at_once_wait_in_turn_and_beyond_that_are_refused(tmp_path: Path) -> None:
    limits = Limits(concurrent_runs=1, queued_runs=2, runs_per_minute=1_000)
    settings = Settings(data=tmp_path, public_url=BASE, limits=limits).with_defaults()
    async with running(settings) as app, client_of(app) as http:
        made = (await http.post("/api/v1/guests", json={"display_name": "Ada"})).json()
        http.headers["Authorization"] = f"Bearer {made['access_token']}"
        ada = Somebody(made["user"]["id"], "Ada", made["access_token"], http)
        session_id = await session_of(ada)
        first = await begin(ada, session_id, "import time; time.sleep(60)")
        waiting = [await ada.ok("POST", f"/sessions/{session_id}/runs", json={}) for _ in range(2)]
        assert [(run["status"], run["position"]) for run in waiting] == [("queued", 0), ("queued", 1)]
        problem = await ada.refused(429, "queue_full", "POST", f"/sessions/{session_id}/runs", json={})
        assert problem["retry_after"] > 0
        await ada.ok("DELETE", f"/sessions/{session_id}/runs/{waiting[0]['id']}")
        assert (await events(ada, session_id, waiting[0]["id"]))[-1]["reason"] == "cancelled"
        left = await ada.ok("GET", f"/sessions/{session_id}/runs/{waiting[1]['id']}")
        assert left["position"] == 0
        await ada.ok("PUT", f"/sessions/{session_id}/files/main.py", content=b"print(1)")
        await ada.ok("DELETE", f"/sessions/{session_id}/runs/{first}")
        assert (await events(ada, session_id, waiting[1]["id"]))[-1]["reason"] == "exited"


async def test_only_the_latest_runs_are_kept(guest: MakeGuest, services: Services) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    async with services.db.begin() as db:
        for n in range(60):
            await run_queries.add(
                db, id=f"run_old{n}", session_id=session_id, user_id=ada.id, language="python", entry="main.py", args=[],
                limits={}, status="ended", created_at=n,
            )  # fmt: skip
    await events(ada, session_id, await begin(ada, session_id, "print(1)"))
    items = (await ada.ok("GET", f"/sessions/{session_id}/runs"))["items"]
    assert len(items) == 50
    async with services.db.begin() as db:
        assert await run_queries.one(db, session_id, "run_old0") is None
        assert await run_queries.one(db, session_id, "run_old59") is not None


async def test_a_stranger_and_a_viewer_may_not_run_and_a_viewer_may_read(guest: MakeGuest) -> None:
    ada, vera, eve = await guest("Ada"), await guest("Vera"), await guest("Eve")
    session_id = await session_of(ada)
    await invite(ada, session_id, vera, "view")
    run_id = await begin(ada, session_id, "print(1)")
    path = f"/sessions/{session_id}/runs"
    await vera.refused(403, "role_forbids", "POST", path, json={})
    await vera.refused(403, "role_forbids", "DELETE", f"{path}/{run_id}")
    await vera.refused(403, "role_forbids", "POST", f"{path}/{run_id}/stdin", json={"data": "x"})
    assert printed(await events(vera, session_id, run_id)) == "1\n"
    for method, rest in (("GET", ""), ("POST", ""), ("GET", f"/{run_id}"), ("GET", f"/{run_id}/events")):
        await eve.refused(404, "session_not_found", method, path + rest, json={})


async def test_a_signal_reaches_the_program_and_needs_the_role_run(
    guest: MakeGuest, services: Services
) -> None:
    ada, bob = await guest("Ada"), await guest("Bob")
    session_id = await session_of(ada)
    await invite(ada, session_id, bob, "view")
    program = "import time\ntry:\n    print('on', flush=True); time.sleep(60)\nexcept KeyboardInterrupt: print('caught')"
    async with services.bus.subscribe(f"events:{session_id}") as signals:
        run_id = await begin(ada, session_id, program)
        path = f"/sessions/{session_id}/runs/{run_id}"
        async for signal in signals:
            if said(signal).startswith("on"):
                break
    await bob.refused(403, "role_forbids", "POST", f"{path}/signal", json={"signal": "INT"})
    await ada.refused(422, "invalid_request", "POST", f"{path}/signal", json={"signal": "9"})
    await ada.ok("POST", f"{path}/signal", json={"signal": "INT"})
    found = await events(ada, session_id, run_id)
    assert (printed(found), found[-1]["code"]) == ("on\ncaught\n", 0)
    await ada.ok("POST", f"{path}/signal", json={"signal": "INT"})


async def test_a_run_that_waits_takes_no_signal(settings: Settings) -> None:
    settings = replace(settings, limits=replace(settings.limits, concurrent_runs=1))
    async with running(settings) as app, client_of(app) as http:
        made = (await http.post("/api/v1/guests", json={"display_name": "Ada"})).json()
        http.headers["Authorization"] = f"Bearer {made['access_token']}"
        ada = Somebody(made["user"]["id"], "Ada", made["access_token"], http)
        session_id = await session_of(ada)
        await begin(ada, session_id, "import time; time.sleep(60)")
        waiting = await ada.ok("POST", f"/sessions/{session_id}/runs", json={})
        path = f"/sessions/{session_id}/runs/{waiting['id']}/signal"
        await ada.refused(409, "run_not_started", "POST", path, json={"signal": "INT"})


async def test_runs_on_a_runner_elsewhere_are_runs_like_any_other(settings: Settings) -> None:
    with runner_service() as service:
        settings = replace(settings, sandbox_url=service.url, runner_secret=SECRET)
        async with running(settings) as app, client_of(app) as http:
            made = (await http.post("/api/v1/guests", json={"display_name": "Ada"})).json()
            http.headers["Authorization"] = f"Bearer {made['access_token']}"
            ada = Somebody(made["user"]["id"], "Ada", made["access_token"], http)
            runtimes = await ada.ok("GET", "/runtimes")
            assert runtimes["available"]
            assert {control["state"] for control in runtimes["controls"]} <= {"enforced", "partial"}
            session_id = await session_of(ada)
            found = await events(
                ada, session_id, await begin(ada, session_id, "print(input())", stdin="typed\n")
            )
            assert (printed(found), found[-1]["reason"]) == ("typed\n", "exited")
            async with app.state.services.bus.subscribe(f"events:{session_id}") as signals:
                lost = await begin(ada, session_id, "import time; print('on', flush=True); time.sleep(60)")
                async for signal in signals:
                    if said(signal).startswith("on"):
                        break
            reading = asyncio.create_task(events(ada, session_id, lost))
            service.end()
            service.start()
            ended = [event for event in await reading if event["type"] == "exited"]
            assert [event["reason"] for event in ended] == ["lost"]


def test_the_doctor_looks_at_a_runner_elsewhere(tmp_path: Path) -> None:
    def doctor(**variables: str) -> dict[str, Any]:
        environment = {**os.environ, "ATELIER_RUNNER_SECRET": SECRET, **variables}
        command = [sys.executable, "-m", "atelier.main", "doctor", "--json", "--data", str(tmp_path)]
        answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False)
        return {finding["name"].strip(): finding for finding in json.loads(answer.stdout)}

    with runner_service() as service:
        found = doctor(ATELIER_SANDBOX_URL=service.url)
        assert found["sandbox"]["state"] == "ok"
        assert found["network"]["state"] == "ok"
    gone = doctor(ATELIER_SANDBOX_URL=service.url)
    assert gone["sandbox"]["state"] == "missing"
    assert "does not answer" in gone["sandbox"]["detail"]
