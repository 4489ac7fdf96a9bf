"""Sessions: made from templates and zips, listed, renamed, archived, deleted and brought back."""

from __future__ import annotations

import io
import zipfile

from atelier import times
from atelier.files import templates
from atelier.services import Services
from atelier.sessions.purge import purge
from atelier.sessions.queries import change_session

from ..conftest import MakeGuest, invite, session_of


async def test_every_template_makes_a_session_with_its_files(guest: MakeGuest) -> None:
    ada = await guest()
    for template in templates():
        session = await ada.ok("POST", "/sessions", json={"name": template.title, "template": template.name})
        listed = await ada.ok("GET", f"/sessions/{session['id']}/files")
        assert sorted(item["path"] for item in listed["items"]) == sorted(template.files)
        assert session["entry"] == template.entry


async def test_the_list_is_paged_and_shows_what_is_active(guest: MakeGuest) -> None:
    ada = await guest()
    made = [await session_of(ada) for _ in range(53)]
    await ada.ok("PATCH", f"/sessions/{made[0]}", json={"archived": True})
    first = await ada.ok("GET", "/sessions")
    second = await ada.ok("GET", f"/sessions?cursor={first['next']}")
    assert (len(first["items"]), len(second["items"]), second["next"]) == (50, 2, None)
    assert {item["id"] for item in first["items"] + second["items"]} == set(made[1:])
    assert [item["id"] for item in (await ada.ok("GET", "/sessions?archived=true"))["items"]] == made[:1]
    await ada.refused(400, "bad_cursor", "GET", "/sessions?cursor=x")


async def test_a_deleted_session_is_gone_for_all_until_its_owner_restores_it(guest: MakeGuest) -> None:
    owner, other = await guest("Owner"), await guest("Other")
    session_id = await session_of(owner, "python")
    await invite(owner, session_id, other, "edit")
    await owner.ok("DELETE", f"/sessions/{session_id}")
    for person in (owner, other):
        await person.refused(404, "session_not_found", "GET", f"/sessions/{session_id}")
    await other.refused(404, "session_not_found", "POST", f"/sessions/{session_id}/restore")
    await owner.ok("POST", f"/sessions/{session_id}/restore")
    assert (await other.ok("GET", f"/sessions/{session_id}/files/main.py")).text.startswith("from greetings")


async def test_a_session_that_was_deleted_a_month_ago_is_gone_for_good(
    guest: MakeGuest, services: Services
) -> None:
    owner = await guest("Owner")
    old, fresh, alive = [await session_of(owner, "python") for _ in range(3)]
    now = times.now()
    for session_id, age in ((old, 31 * times.DAY), (fresh, 29 * times.DAY)):
        await owner.ok("DELETE", f"/sessions/{session_id}")
        async with services.db.begin() as db:
            await change_session(db, session_id, deleted_at=now - age)
    assert await purge(services) == [old]
    assert await purge(services) == []
    assert await services.log.survey(f"{old}:") == []
    await owner.refused(404, "session_not_found", "POST", f"/sessions/{old}/restore")
    await owner.ok("POST", f"/sessions/{fresh}/restore")
    for session_id in (fresh, alive):
        assert (await owner.ok("GET", f"/sessions/{session_id}/files/main.py")).text.startswith(
            "from greetings"
        )


async def test_a_copy_has_the_same_files_and_a_life_of_its_own(guest: MakeGuest) -> None:
    owner, other = await guest("Owner"), await guest("Other")
    session_id = await session_of(owner, "python")
    await invite(owner, session_id, other, "view")
    copy = await other.ok("POST", f"/sessions/{session_id}/duplicate")
    assert copy["role"] == "owner"
    await other.ok("PUT", f"/sessions/{copy['id']}/files/main.py", content=b"changed")
    assert (await owner.ok("GET", f"/sessions/{session_id}/files/main.py")).text != "changed"


async def test_a_zip_becomes_a_session(guest: MakeGuest) -> None:
    ada = await guest()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("src/main.py", "print(1)")
        archive.writestr("image.bin", b"\0\1\2")
    made = await ada.ok("POST", "/sessions/import?name=From+a+zip", content=buffer.getvalue())
    listed = (await ada.ok("GET", f"/sessions/{made['id']}/files"))["items"]
    assert {item["path"]: item["kind"] for item in listed} == {"src/main.py": "text", "image.bin": "blob"}
    out = await ada.ok("GET", f"/sessions/{made['id']}/export.zip")
    with zipfile.ZipFile(io.BytesIO(out.content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "src/main.py": b"print(1)",
            "image.bin": b"\0\1\2",
        }


async def test_an_unknown_template_is_named(guest: MakeGuest) -> None:
    ada = await guest()
    problem = await ada.refused(
        404, "template_not_found", "POST", "/sessions", json={"name": "x", "template": "nope"}
    )
    assert "welcome" in problem["detail"]
