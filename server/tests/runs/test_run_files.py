"""What a run writes comes back into the session, and what can be shown stays with the run."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

from atelier.limits import Limits
from atelier.services import Services
from atelier.settings import Settings

from ..conftest import BASE, MakeGuest, Somebody, client_of, invite, running, session_of
from .test_runs import begin, events

PNG = "b'\\x89PNG\\r\\n\\x1a\\n' + bytes(100)"


async def ran(person: Somebody, session_id: str, program: str, **body: Any) -> dict[str, Any]:
    """Run a program to its end; returns the run."""
    run_id = await begin(person, session_id, program, **body)
    found = await events(person, session_id, run_id)
    assert found[-1]["type"] == "exited"
    run: dict[str, Any] = await person.ok("GET", f"/sessions/{session_id}/runs/{run_id}")
    told = [event for event in found if event["type"] == "files"]
    assert [{k: v for k, v in event.items() if k not in ("id", "type", "seq", "at")} for event in told] == (
        [] if run["files"] is None else [run["files"]]
    )
    return run


async def read(person: Somebody, session_id: str, path: str) -> bytes:
    content: bytes = (await person.ok("GET", f"/sessions/{session_id}/files/{path}")).content
    return content


async def test_files_are_in_the_session_and_what_can_be_shown_with_the_run(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    await ada.ok("PUT", f"/sessions/{session_id}/files/notes.txt", content=b"one\n")
    await ada.ok("PUT", f"/sessions/{session_id}/files/old.txt", content=b"old")
    program = f"""
import os
os.makedirs('out')
open('out/data.csv', 'w').write('a,b\\n1,2\\n')
open('out/plot.png', 'wb').write({PNG})
open('notes.txt', 'a').write('two\\n')
os.remove('old.txt'); os.symlink('/etc/passwd', 'link')
"""
    run = await ran(ada, session_id, program)
    found = run["files"]
    assert [(i["path"], i["change"], i["place"], i["number"] is not None) for i in found["items"]] == [
        ("notes.txt", "changed", "notes.txt", False),
        ("out/data.csv", "created", "out/data.csv", True),
        ("out/plot.png", "created", "out/plot.png", True),
    ]
    assert found["deleted"] == ["old.txt"]
    assert [(i["path"], i["code"]) for i in found["left_out"]] == [("link", "link")]
    assert (found["complete"], found["not_written"], found["left_out_count"]) == (True, None, 1)
    assert await read(ada, session_id, "notes.txt") == b"one\ntwo\n"
    assert await read(ada, session_id, "out/data.csv") == b"a,b\n1,2\n"
    picture = await read(ada, session_id, "out/plot.png")
    assert picture.startswith(b"\x89PNG")
    await ada.ok("PUT", f"/sessions/{session_id}/files/out/data.csv", content=b"changed since")
    base = f"/sessions/{session_id}/runs/{run['id']}/files"
    table = await ada.ok("GET", f"{base}/{found['items'][1]['number']}")
    assert (table.content, table.headers["content-type"]) == (b"a,b\n1,2\n", "text/csv; charset=utf-8")
    assert (await ada.ok("GET", f"{base}/{found['items'][2]['number']}")).content == picture
    await ada.ok("POST", f"/sessions/{session_id}/undos/{found['undo_id']}")
    assert await read(ada, session_id, "notes.txt") == b"one\n"
    assert await read(ada, session_id, "old.txt") == b"old"
    await ada.refused(404, "file_not_found", "GET", f"/sessions/{session_id}/files/out/plot.png")
    assert (await ada.ok("GET", f"{base}/{found['items'][2]['number']}")).content == picture


async def test_a_run_that_writes_nothing_says_nothing(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    assert (await ran(ada, session_id, "import os; os.mkdir('empty'); print(1)"))["files"] is None


async def test_what_somebody_types_while_it_runs_stays(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    await ada.ok("PUT", f"/sessions/{session_id}/files/log.txt", content=b"first\nlast\n")
    run_id = await begin(ada, session_id, "open('log.txt', 'a').write('row\\n')\nprint('on')\ninput()")
    while "on" not in (await ada.http.get(f"/api/v1/sessions/{session_id}/runs")).text:
        run = await ada.ok("GET", f"/sessions/{session_id}/runs/{run_id}")
        if run["status"] == "running":
            break
        await asyncio.sleep(0.01)
    await ada.ok("PUT", f"/sessions/{session_id}/files/log.txt", content=b"first (typed)\nlast\n")
    await ada.ok("POST", f"/sessions/{session_id}/runs/{run_id}/stdin", json={"data": "\n"})
    await events(ada, session_id, run_id)
    assert await read(ada, session_id, "log.txt") == b"first (typed)\nlast\nrow\n"


async def test_who_may_run_but_not_edit_sees_the_files_with_the_run(guest: MakeGuest) -> None:
    ada, bob = await guest(), await guest("Bob")
    session_id = await session_of(ada)
    program = f"open('main.py', 'a').write('# x'); open('a.bin', 'wb').write(bytes(9)); open('p.png', 'wb').write({PNG})"
    await ada.ok("PUT", f"/sessions/{session_id}/files/main.py", content=program.encode())
    await invite(ada, session_id, bob, "run")
    answer = await bob.ok("POST", f"/sessions/{session_id}/runs", json={"entry": "main.py"})
    await events(bob, session_id, answer["id"])
    found = (await ada.ok("GET", f"/sessions/{session_id}/runs/{answer['id']}"))["files"]
    assert "may run but not edit" in found["not_written"]
    assert [(i["path"], i["change"], i["place"], i["number"]) for i in found["items"]] == [
        ("a.bin", "created", None, 1),
        ("main.py", "changed", None, 2),
        ("p.png", "created", None, 3),
    ]
    listed = await ada.ok("GET", f"/sessions/{session_id}/files")
    assert [item["path"] for item in listed["items"]] == ["main.py"]
    assert await read(ada, session_id, "main.py") == program.encode()
    kept = await bob.ok("GET", f"/sessions/{session_id}/runs/{answer['id']}/files/1")
    assert kept.content == bytes(9)
    assert kept.headers["content-disposition"].startswith("attachment")


async def test_figures_are_shown_and_are_no_files(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    program = f"import os; os.makedirs('.atelier/figures'); open('.atelier/figures/1.png', 'wb').write({PNG})"
    found = (await ran(ada, session_id, program))["files"]
    assert [(i["kind"], i["path"], i["place"], i["number"]) for i in found["items"]] == [
        ("figure", "1.png", None, 1)
    ]
    assert [i["path"] for i in (await ada.ok("GET", f"/sessions/{session_id}/files"))["items"]] == ["main.py"]


async def test_a_page_has_no_origin_and_reaches_nothing(guest: MakeGuest) -> None:
    ada, stranger = await guest(), await guest("Eve")
    session_id = await session_of(ada)
    program = "\n".join(
        f"open('x.{end}', 'w').write('<script>1</script>')" for end in ("html", "svg", "json")
    )
    run = await ran(ada, session_id, program)
    policies = {}
    for item in run["files"]["items"]:
        path = f"/sessions/{session_id}/runs/{run['id']}/files/{item['number']}"
        answer = (
            await ada.ok("GET", path) if item["path"] != "x.json" else await ada.http.get(f"/api/v1{path}")
        )
        assert answer.headers["x-content-type-options"] == "nosniff"
        policies[item["path"]] = (answer.headers["content-type"], answer.headers["content-security-policy"])
        await stranger.refused(404, "session_not_found", "GET", path)
    page = policies["x.html"]
    assert page[0] == "text/html; charset=utf-8"
    assert page[1].startswith("sandbox allow-scripts; default-src 'none'")
    assert "allow-same-origin" not in page[1]
    assert "connect-src" not in page[1]
    for name, kind in (("x.svg", "image/svg+xml"), ("x.json", "application/json")):
        assert policies[name][0] == kind
        assert policies[name][1].startswith("sandbox; default-src 'none'")


async def test_what_is_kept_is_bounded_and_the_oldest_goes_first(tmp_path: Path) -> None:
    limits = Limits(
        guests_per_hour=1_000,
        runs_per_minute=1_000,
        run_shown_bytes=3_000,
        session_shown_bytes=5_000,
        run_files=4,
    )
    settings = Settings(data=tmp_path, public_url=BASE, limits=limits).with_defaults()
    async with running(settings) as app:
        async with client_of(app) as stranger:
            body = (await stranger.post("/api/v1/guests", json={"display_name": "Ada"})).json()
        async with client_of(app, Authorization=f"Bearer {body['access_token']}") as http:
            ada = Somebody(body["user"]["id"], "Ada", body["access_token"], http)
            session_id = await session_of(ada)
            runs = []
            for size in (2_000, 2_500, 1_000):
                program = f"open('a.csv', 'w').write('x' * {size}); open('b.csv', 'w').write('y' * 2_999)"
                runs.append(await ran(ada, session_id, program))
            assert [[i["number"] for i in run["files"]["items"]] for run in runs] == [[1, None], [1], [1]]
            base = f"/sessions/{session_id}/runs"
            await ada.refused(404, "run_file_not_found", "GET", f"{base}/{runs[0]['id']}/files/1")
            for run in runs[1:]:
                await ada.ok("GET", f"{base}/{run['id']}/files/1")
            run = await ran(ada, session_id, "for i in range(9): open(f'f{i}', 'w').write('x')")
            assert len(run["files"]["items"]) == 4
            assert (run["files"]["left_out_count"], run["files"]["left_out"][0]["code"]) == (5, "too_many")


async def test_storage_that_takes_nothing_is_said_and_does_not_change_how_the_program_ended(
    guest: MakeGuest, settings: Settings
) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    shutil.rmtree(settings.data / "blobs")
    (settings.data / "blobs").write_text("a file where the folder was")
    run = await ran(ada, session_id, "open('t.txt', 'w').write('t'); open('x', 'wb').write(bytes(9))")
    assert run["result"]["code"] == 0
    assert [item["place"] for item in run["files"]["items"]] == ["t.txt"]
    assert [(i["path"], i["code"]) for i in run["files"]["left_out"]] == [("x", "blobs_unavailable")]


async def test_a_limit_ends_the_run_and_its_files_come_all_the_same(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    program = "open('partial.txt', 'w').write('so far')\nimport time; time.sleep(60)"
    for _ in range(3):  # where the agent does not get to it within a tenth of a second, nothing comes
        run = await ran(ada, session_id, program, limits={"wall_seconds": 0.7})
        assert run["result"]["reason"] == "wall_time"
        if run["files"] is not None:
            break
    assert [item["place"] for item in run["files"]["items"]] == ["partial.txt"]


async def test_what_a_run_had_written_when_it_was_stopped_comes_back(
    guest: MakeGuest, services: Services
) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    program = (
        "open('partial.txt', 'w').write('so far')\nprint('written', flush=True)\nimport time; time.sleep(60)"
    )
    for _ in range(3):  # as above
        async with services.bus.subscribe(f"events:{session_id}") as signals:
            run_id = await begin(ada, session_id, program)
            async for signal in signals:
                if signal and b"written" in signal:
                    break
        await ada.ok("DELETE", f"/sessions/{session_id}/runs/{run_id}")
        await events(ada, session_id, run_id)
        run = await ada.ok("GET", f"/sessions/{session_id}/runs/{run_id}")
        assert run["result"]["reason"] == "cancelled"
        if run["files"] is not None:
            break
    assert [item["place"] for item in run["files"]["items"]] == ["partial.txt"]
