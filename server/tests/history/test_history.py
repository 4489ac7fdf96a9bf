"""The history's API: who wrote when, points, going back with a way back from that, versions, and who may."""

from __future__ import annotations

from typing import Any

import pytest

from atelier import history, times
from atelier.documents import compact_if_long
from atelier.ids import document_key
from atelier.log import Edit
from atelier.services import Services

from ..conftest import MakeGuest, Somebody, invite, session_of


async def written(somebody: Somebody, session: str, path: str, *texts: str) -> str:
    """Write a file again and again; returns its document's id."""
    for text in texts:
        made = await somebody.ok("PUT", f"/sessions/{session}/files/{path}", content=text.encode())
    return str(made["document_id"])


async def read(somebody: Somebody, session: str, path: str) -> str:
    answer = await somebody.ok("GET", f"/sessions/{session}/files/{path}")
    return str(answer.text)


async def past_of(somebody: Somebody, session: str, document: str) -> tuple[str, dict[str, Any]]:
    base = f"/sessions/{session}/documents/{document}/history"
    return base, await somebody.ok("GET", base)


async def test_who_wrote_when_and_every_point(guest: MakeGuest) -> None:
    ada, bob = await guest("Ada"), await guest("Bob")
    session = await session_of(ada)
    await invite(ada, session, bob, "edit")
    document = await written(ada, session, "a.txt", "one", "one two")
    await written(bob, session, "a.txt", "one two three")
    base, past = await past_of(ada, session, document)
    (burst,) = past["items"]
    assert {author["name"]: author["inserted"] for author in burst["authors"]} == {"Ada": 7, "Bob": 6}
    assert past["edits"] == burst["edits"] == 3
    steps = (await ada.ok("GET", f"{base}/playback"))["steps"]
    assert [step["changes"] for step in steps] == [[[0, 0, "one"]], [[3, 0, " two"]], [[7, 0, " three"]]]
    for step, text in zip(steps, ("one", "one two", "one two three"), strict=True):
        assert (await ada.ok("GET", f"{base}/{step['position']}"))["text"] == text
    assert (await ada.ok("GET", f"{base}/0"))["text"] == ""
    assert (await ada.ok("GET", f"{base}/{past['position'] + 10**6}"))["text"] == "one two three"
    found = await ada.ok("GET", f"{base}/diff", params={"from": steps[0]["position"]})
    assert (found["added"], found["removed"]) == (1, 1)


async def test_playback_goes_on_where_it_stopped(guest: MakeGuest) -> None:
    ada = await guest()
    session = await session_of(ada)
    document = await written(ada, session, "a.txt", *("x" * n for n in range(1, 8)))
    base, _ = await past_of(ada, session, document)
    text, after, edits = "", 0, 0
    while after is not None:
        page = await ada.ok("GET", f"{base}/playback", params={"after": after, "limit": 3})
        assert page["text"] == text
        for step in page["steps"]:
            for place, gone, comes in step["changes"]:
                text = text[:place] + comes + text[place + gone :]
        edits += len(page["steps"])
        after = page["next"]
    assert (text, edits) == ("x" * 7, 7)


async def test_a_restore_is_an_edit_that_can_be_undone(guest: MakeGuest) -> None:
    ada = await guest()
    session = await session_of(ada)
    document = await written(ada, session, "a.txt", "first", "second")
    base, past = await past_of(ada, session, document)
    first = past["items"][0]["first"]
    done = await ada.ok("POST", f"{base}/restore", json={"position": first})
    assert await read(ada, session, "a.txt") == "first"
    assert (await past_of(ada, session, document))[1]["edits"] == 3
    await ada.ok("POST", f"/sessions/{session}/undos/{done['undo_id']}")
    assert await read(ada, session, "a.txt") == "second"
    again = await ada.ok("POST", f"{base}/restore", json={"position": 10**9})
    assert again == {"changed": False, "undo_id": None, "inserted": 0, "deleted": 0}


async def test_the_edits_of_one_are_taken_back_and_come_again(guest: MakeGuest) -> None:
    ada, bob = await guest("Ada"), await guest("Bob")
    session = await session_of(ada)
    await invite(ada, session, bob, "edit")
    document = await written(ada, session, "a.txt", "keep\n")
    await written(bob, session, "a.txt", "keep\nbob\n")
    await written(ada, session, "a.txt", "keep\nbob\nada 😀\n")
    base = f"/sessions/{session}/documents/{document}/history"
    done = await ada.ok("POST", f"{base}/rollback", json={"author": bob.id})
    assert (done["inserted"], done["deleted"]) == (0, 4)
    assert await read(ada, session, "a.txt") == "keep\nada 😀\n"
    assert not (await ada.ok("POST", f"{base}/rollback", json={"author": bob.id}))["changed"]
    await ada.ok("POST", f"/sessions/{session}/undos/{done['undo_id']}")
    assert await read(ada, session, "a.txt") == "keep\nbob\nada 😀\n"
    await ada.refused(422, "invalid_request", "POST", f"{base}/rollback", json={})


async def test_a_deletion_is_taken_back_also_when_a_snapshot_without_the_deleted_was_made_since(
    guest: MakeGuest, services: Services
) -> None:
    ada, bob = await guest("Ada"), await guest("Bob")
    session = await session_of(ada)
    await invite(ada, session, bob, "edit")
    document = await written(ada, session, "a.txt", "one two three")
    await written(bob, session, "a.txt", "one three")
    key = document_key(session, document)
    assert await compact_if_long(services.log, key, most_bytes=10**6, always=True)
    snapshot = (await services.log.read(key)).snapshot
    assert all(b"two" not in segment.update for segment in snapshot.segments)
    base = f"/sessions/{session}/documents/{document}/history"
    done = await ada.ok("POST", f"{base}/rollback", json={"author": bob.id})
    assert (done["inserted"], done["deleted"]) == (4, 0)
    assert await read(ada, session, "a.txt") == "one two three"


async def test_a_version_brings_the_whole_session_back(guest: MakeGuest) -> None:
    ada = await guest()
    session = await session_of(ada)
    base = f"/sessions/{session}"
    for path, text in (("a.txt", "a"), ("moved.txt", "m"), ("gone.txt", "g")):
        await written(ada, session, path, text)
    await ada.ok("PUT", f"{base}/files/image.bin", content=b"\x00\x01\x02")
    version = await ada.ok("POST", f"{base}/versions", json={"name": "  Before  "})
    assert version["name"] == "Before"
    await written(ada, session, "a.txt", "changed")
    await written(ada, session, "new.txt", "n")
    await ada.ok("PUT", f"{base}/files/image.bin", content=b"\x00\x03")
    await ada.ok("POST", f"{base}/moves", json={"from": "moved.txt", "to": "there/else.txt"})
    await ada.ok("DELETE", f"{base}/files/gone.txt")
    at = f"{base}/versions/{version['id']}"
    assert {file["path"] for file in (await ada.ok("GET", at))["files"]} == {
        "a.txt",
        "moved.txt",
        "gone.txt",
        "image.bin",
    }
    assert (await ada.ok("GET", f"{at}/files/a.txt")).text == "a"
    assert (await ada.ok("GET", f"{at}/files/image.bin")).content == b"\x00\x01\x02"
    done = await ada.ok("POST", f"{at}/restore")
    assert (sorted(done["changed"]), done["brought_back"], done["moved"], done["trashed"]) == (
        ["a.txt", "image.bin"],
        ["gone.txt"],
        ["moved.txt"],
        ["new.txt"],
    )
    listed = {file["path"] for file in (await ada.ok("GET", f"{base}/files"))["items"]}
    assert {"a.txt", "moved.txt", "gone.txt", "image.bin"} <= listed
    assert "new.txt" not in listed
    assert await read(ada, session, "a.txt") == "a"
    await ada.ok("POST", f"{base}/undos/{done['undo_id']}")
    assert await read(ada, session, "a.txt") == "changed"
    assert await read(ada, session, "there/else.txt") == "m"
    assert await read(ada, session, "new.txt") == "n"


async def test_versions_are_listed_in_the_history_and_their_names_deleted(guest: MakeGuest) -> None:
    ada = await guest()
    session = await session_of(ada)
    document = await written(ada, session, "a.txt", "one", "two")
    _, past = await past_of(ada, session, document)
    first = past["items"][0]["first"]
    point = {"name": "The first", "document_id": document, "position": first}
    version = await ada.ok("POST", f"/sessions/{session}/versions", json=point)
    marks = (await past_of(ada, session, document))[1]["marks"]
    assert [(mark["kind"], mark["name"], mark["position"]) for mark in marks] == [
        ("version", "The first", first)
    ]
    done = await ada.ok("POST", f"/sessions/{session}/versions/{version['id']}/restore")
    assert (done["changed"], done["trashed"]) == (["a.txt"], [])
    assert await read(ada, session, "a.txt") == "one"
    await ada.ok("DELETE", f"/sessions/{session}/versions/{version['id']}")
    assert (await ada.ok("GET", f"/sessions/{session}/versions"))["items"] == []
    await ada.refused(404, "version_not_found", "GET", f"/sessions/{session}/versions/{version['id']}")


@pytest.mark.parametrize("role", ["view", "comment", "run"])
async def test_who_may_look_may_not_go_back(guest: MakeGuest, role: str) -> None:
    ada, vera, eve = await guest("Ada"), await guest("Vera"), await guest("Eve")
    session = await session_of(ada)
    await invite(ada, session, vera, role)
    document = await written(ada, session, "a.txt", "one", "two")
    version = await ada.ok("POST", f"/sessions/{session}/versions", json={"name": "v"})
    base, past = await past_of(vera, session, document)
    position = past["position"]
    for path in (
        f"{base}/{position}",
        f"{base}/playback",
        f"{base}/diff?from=0",
        f"/sessions/{session}/versions",
    ):
        await vera.ok("GET", path)
        await eve.refused(404, "session_not_found", "GET", path)
    changes: list[tuple[str, str, dict[str, Any] | None]] = [
        ("POST", f"{base}/restore", {"position": 0}),
        ("POST", f"{base}/rollback", {"author": ada.id}),
        ("POST", f"/sessions/{session}/versions", {"name": "mine"}),
        ("POST", f"/sessions/{session}/versions/{version['id']}/restore", None),
        ("DELETE", f"/sessions/{session}/versions/{version['id']}", None),
    ]
    for method, path, body in changes:
        await vera.refused(403, "role_forbids", method, path, json=body)
        await eve.refused(404, "session_not_found", method, path, json=body)
    assert await read(ada, session, "a.txt") == "two"


async def test_bad_input_is_refused_by_name(guest: MakeGuest) -> None:
    ada = await guest()
    session = await session_of(ada)
    document = await written(ada, session, "a.txt", "one")
    base = f"/sessions/{session}/documents/{document}/history"
    await ada.refused(422, "invalid_request", "GET", f"{base}?before=-1")
    await ada.refused(422, "invalid_request", "POST", f"{base}/restore", json={"position": -1})
    await ada.refused(422, "invalid_request", "GET", f"{base}/playback?limit=0")
    await ada.refused(422, "document_id_invalid", "GET", f"/sessions/{session}/documents/{'x' * 65}/history")
    await ada.refused(422, "invalid_request", "POST", f"/sessions/{session}/versions", json={"name": " "})
    await ada.refused(
        422, "invalid_request", "POST", f"/sessions/{session}/versions", json={"name": "x", "position": 3}
    )
    nobody = await ada.ok("GET", f"/sessions/{session}/documents/doc_nobody/history")
    assert (nobody["items"], nobody["position"]) == ([], 0)


async def test_an_owner_lets_go_of_what_came_before_a_point(guest: MakeGuest, services: Services) -> None:
    ada, bob = await guest("Ada"), await guest("Bob")
    session = await session_of(ada)
    await invite(ada, session, bob, "edit")
    document = await written(ada, session, "a.txt", "secret", "secret and more", "and more")
    base, past = await past_of(ada, session, document)
    point = past["items"][0]["last"]
    old = await ada.ok(
        "POST",
        f"/sessions/{session}/versions",
        json={"name": "old", "document_id": document, "position": point - 1},
    )
    await written(bob, session, "a.txt", "and more of Bob")
    now = await ada.ok("POST", f"/sessions/{session}/versions", json={"name": "now"})
    await bob.refused(403, "role_forbids", "POST", f"{base}/forget", json={"position": point})
    await ada.refused(422, "invalid_request", "POST", f"{base}/forget", json={"position": 0})
    assert await ada.ok("POST", f"{base}/forget", json={"position": point}) == {"position": point, "edits": 3}
    assert await read(ada, session, "a.txt") == "and more of Bob"
    _, past = await past_of(ada, session, document)
    assert past["edits"] == 2
    assert {a["name"]: a["inserted"] for burst in past["items"] for a in burst["authors"]} == {
        "": 15,  # what had been deleted is counted; nothing of it is kept
        "Bob": 7,
    }
    steps = (await ada.ok("GET", f"{base}/playback"))["steps"]
    assert [step["changes"] for step in steps] == [[[0, 0, "and more"]], [[8, 0, " of Bob"]]]
    assert (await ada.ok("GET", f"{base}/{point}"))["text"] == "and more"
    listed = (await ada.ok("GET", f"/sessions/{session}/versions"))["items"]
    assert [version["id"] for version in listed] == [now["id"]] != [old["id"]]
    key = document_key(session, document)
    kept = [entry.edit.update for entry in await services.log.history(key)]
    kept += [segment.update for segment in (await services.log.read(key)).snapshot.segments]
    assert not any(b"secret" in update for update in kept)
    # Going on, rolling back and forgetting again work as on any other document.
    await written(ada, session, "a.txt", "and more of Bob and Ada")
    await ada.ok("POST", f"{base}/rollback", json={"author": bob.id})
    assert await read(ada, session, "a.txt") == "and more and Ada"
    assert (await ada.ok("POST", f"{base}/forget", json={"position": 10**12}))["edits"] == 4
    assert (await past_of(ada, session, document))[1]["edits"] == 1
    assert (await ada.ok("POST", f"{base}/forget", json={"position": 10**12}))["edits"] == 0
    unknown = f"/sessions/{session}/documents/doc_none/history/forget"
    assert await ada.ok("POST", unknown, json={"position": 5}) == {"position": 0, "edits": 0}


async def test_what_is_older_than_the_operator_keeps_goes(
    guest: MakeGuest, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await guest("Ada")
    session = await session_of(ada)
    with monkeypatch.context() as patch:
        then = times.now() - 40 * times.DAY
        patch.setattr(times, "now", lambda: then)
        document = await written(ada, session, "a.txt", "one", "one two")
    await written(ada, session, "a.txt", "one two three")
    young = await written(ada, session, "b.txt", "x", "xy")
    assert await history.forget_older(services, times.now() - 30 * times.DAY) >= 2
    assert (await past_of(ada, session, document))[1]["edits"] == 2
    assert (await past_of(ada, session, young))[1]["edits"] == 2
    assert await read(ada, session, "a.txt") == "one two three"
    assert await history.forget_older(services, times.now() - 30 * times.DAY) == 0


async def test_a_document_that_cannot_be_worked_on_keeps_no_other_from_letting_go(
    guest: MakeGuest, services: Services
) -> None:
    ada = await guest("Ada")
    session = await session_of(ada)
    document = await written(ada, session, "a.txt", "one", "one two")
    broken = document_key("ses_0", "doc_broken")  # comes first
    await services.log.append(broken, [Edit(b"\xff\xff\xff", "usr_a", 1), Edit(b"\xff\xff", "usr_a", 2)])
    await history.forget_older(services, times.now() + times.DAY)
    assert (await past_of(ada, session, document))[1]["edits"] == 1
    assert len(await services.log.history(broken)) == 2


async def test_a_name_is_taken_off_everything(guest: MakeGuest, services: Services) -> None:
    ada, bob = await guest("Ada"), await guest("Bob")
    session = await session_of(ada)
    await invite(ada, session, bob, "edit")
    document = await written(ada, session, "a.txt", "ada")
    await written(bob, session, "a.txt", "ada bob")
    _, past = await past_of(ada, session, document)
    assert await history.disown(services.db, services.log, bob.id) == 1
    _, past = await past_of(ada, session, document)
    assert {author["name"] for burst in past["items"] for author in burst["authors"]} == {"Ada", ""}
    assert await read(ada, session, "a.txt") == "ada bob"
