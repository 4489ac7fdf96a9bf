"""What a program wrote is put into the session, and what people did meanwhile stays."""

from __future__ import annotations

import dataclasses

import pytest

from atelier.auth import Caller
from atelier.errors import Forbidden
from atelier.files import Given, Written, read_given, write_back
from atelier.services import Services

from ..conftest import MakeGuest, Somebody, invite, session_of


def caller_of(person: Somebody) -> Caller:
    return Caller(person.id, person.name, "guest", is_admin=False)


class Place:
    """One session with some files, as a program was given them."""

    def __init__(self, services: Services, person: Somebody, session_id: str, given: Given) -> None:
        self.services, self.person, self.session_id, self.given = services, person, session_id, given

    async def write(self, **files: bytes | None) -> Written:
        """Write back; `__` stands for a slash and `_` for a dot."""
        named = {name.replace("__", "/").replace("_", "."): data for name, data in files.items()}
        return await write_back(self.services, caller_of(self.person), self.session_id, self.given, named)

    async def put(self, path: str, content: bytes) -> None:
        await self.person.ok("PUT", f"/sessions/{self.session_id}/files/{path}", content=content)

    async def files(self) -> dict[str, bytes]:
        return (await read_given(self.services, self.session_id)).content

    async def trash(self) -> list[str]:
        found = await self.person.ok("GET", f"/sessions/{self.session_id}/trash")
        return [item["path"] for item in found["items"]]

    async def undo(self, done: Written) -> None:
        await self.person.ok("POST", f"/sessions/{self.session_id}/undos/{done.undo_id}")


async def place(services: Services, guest: MakeGuest, **files: bytes) -> Place:
    ada = await guest()
    session_id = await session_of(ada)
    for path in (await read_given(services, session_id)).content:
        await ada.ok("DELETE", f"/sessions/{session_id}/files/{path}")
    made = Place(services, ada, session_id, Given({}, {}))
    for name, content in files.items():
        await made.put(name.replace("__", "/").replace("_", "."), content)
    made.given = await read_given(services, session_id)
    return made


async def test_new_changed_and_deleted_and_one_undo_for_all(services: Services, guest: MakeGuest) -> None:
    at = await place(services, guest, a_txt=b"one\n", gone=b"g", bin=b"\0old", same=b"s")
    done = await at.write(
        a_txt=b"one\ntwo\n", gone=None, bin=b"\0new", d__e__new_csv=b"x,y\r\n1,2\r\n", pic_png=b"\x89PNG\0"
    )
    assert (sorted(done.created), sorted(done.changed), done.deleted, done.left_out) == (
        ["d/e/new.csv", "pic.png"],
        ["a.txt", "bin"],
        ["gone"],
        [],
    )
    assert await at.files() == {
        "a.txt": b"one\ntwo\n",
        "bin": b"\0new",
        "same": b"s",
        "d/e/new.csv": b"x,y\n1,2\n",
        "pic.png": b"\x89PNG\0",
    }
    await at.put("d/e/new.csv", b"x,y\n1,2\nmine\n")
    await at.undo(done)
    assert await at.files() == {"a.txt": b"one\n", "gone": b"g", "bin": b"\0old", "same": b"s"}
    found = (await at.person.ok("GET", f"/sessions/{at.session_id}/trash"))["items"]
    new = next(item for item in found if item["path"] == "d/e/new.csv")
    await at.person.ok("POST", f"/sessions/{at.session_id}/trash/{new['id']}/restore")
    assert (await at.files())["d/e/new.csv"] == b"x,y\n1,2\nmine\n", (
        "what was written in it since is not lost"
    )


async def test_what_is_typed_meanwhile_stays(services: Services, guest: MakeGuest) -> None:
    at = await place(services, guest, notes=b"alpha\nbeta\ngamma\n")
    await at.put("notes", b"# typed\nalpha\nbeta (typed)\ngamma\n")
    done = await at.write(notes=b"alpha\nbeta\ngamma\nrow\n")
    assert (await at.files())["notes"] == b"# typed\nalpha\nbeta (typed)\ngamma\nrow\n"
    await at.put("notes", b"# typed\nalpha\nbeta (typed)\ngamma\nrow\nlater\n")
    await at.undo(done)
    assert (await at.files())["notes"] == b"# typed\nalpha\nbeta (typed)\ngamma\nlater\n"


async def test_a_file_that_was_moved_is_written_where_it_is(services: Services, guest: MakeGuest) -> None:
    at = await place(services, guest, a=b"1\n")
    await at.person.ok("POST", f"/sessions/{at.session_id}/moves", json={"from": "a", "to": "f/b"})
    done = await at.write(a=b"1\n2\n")
    assert await at.files() == {"f/b": b"1\n2\n"}
    assert done.places == {"a": "f/b"}


async def test_a_file_that_was_deleted_meanwhile_comes_back_as_a_new_one(
    services: Services, guest: MakeGuest
) -> None:
    at = await place(services, guest, a=b"1\n", b=b"\0b")
    for path in "ab":
        await at.person.ok("DELETE", f"/sessions/{at.session_id}/files/{path}")
    done = await at.write(a=b"1\n2\n", b=b"\0c")
    assert await at.files() == {"a": b"1\n2\n", "b": b"\0c"}
    assert done.created == ["a", "b"]


async def test_what_somebody_put_at_its_place_stays_beside_it(services: Services, guest: MakeGuest) -> None:
    at = await place(services, guest, bin=b"\0given", text=b"t")
    await at.put("new.txt", b"mine")
    await at.put("bin", b"\0mine")
    await at.put("text", b"t and more")
    done = await at.write(
        new_txt=b"the program's", bin=b"\0the program's", text=b"\0binary now", NEW_TXT=b"twin"
    )
    files = await at.files()
    assert files["new.txt"] == b"mine"
    assert files["NEW (2).TXT"] == b"twin"
    assert sorted(files.values()) == sorted(
        [b"mine", b"the program's", b"twin", b"\0mine", b"\0the program's", b"t and more", b"\0binary now"]
    )
    assert done.left_out == []


async def test_a_deletion_gives_way_to_a_change(services: Services, guest: MakeGuest) -> None:
    at = await place(services, guest, a=b"1", b=b"\0", c=b"c")
    await at.put("a", b"1 typed")
    await at.put("b", b"\0changed")
    await at.person.ok("POST", f"/sessions/{at.session_id}/moves", json={"from": "c", "to": "d"})
    done = await at.write(a=None, b=None, c=None)
    assert await at.files() == {"a": b"1 typed", "b": b"\0changed", "d": b"c"}
    assert [(item.path, item.code) for item in done.left_out] == [(p, "changed_meanwhile") for p in "abc"]
    assert done.undo_id is None


async def test_a_file_that_changes_its_kind_leaves_the_old_one_in_the_trash(
    services: Services, guest: MakeGuest
) -> None:
    at = await place(services, guest, x=b"text", folder=b"f")
    done = await at.write(x=b"\0binary", folder=None, folder__inside=b"i")
    assert await at.files() == {"x": b"\0binary", "folder/inside": b"i"}
    assert {"x", "folder"} <= set(await at.trash())
    await at.undo(done)
    assert await at.files() == {"x": b"text", "folder": b"f"}


async def test_what_no_session_can_hold_is_named_and_the_rest_is_written(
    services: Services, guest: MakeGuest
) -> None:
    at = await place(services, guest, file=b"f")
    limits = dataclasses.replace(
        services.limits, blob_bytes=1_000, session_bytes=1_500, text_bytes=100, files_per_session=4
    )
    at.services = dataclasses.replace(services, limits=limits)
    done = await write_back(
        at.services,
        caller_of(at.person),
        at.session_id,
        at.given,
        {
            "a.bin": bytes(900),
            "b.bin": bytes(900),
            "c.bin": bytes(1_001),
            "file/x": b"x",
            "bad\\name": b"x",
            " space": b"x",
            "d.txt": b"d",
            "e.txt": b"e",
            "f.txt": b"f",
        },
    )
    assert done.created == ["a.bin", "d.txt", "e.txt"]
    assert {item.path: item.code for item in done.left_out} == {
        "b.bin": "session_too_large",
        "c.bin": "blob_too_large",
        "file/x": "path_taken",
        "bad\\name": "path_backslash",
        " space": "path_space",
        "f.txt": "too_many_files",
    }
    assert all(item.reason for item in done.left_out)


async def test_only_who_may_edit_writes(services: Services, guest: MakeGuest) -> None:
    at = await place(services, guest, a=b"1")
    bob = await guest("Bob")
    await invite(at.person, at.session_id, bob, "run")
    with pytest.raises(Forbidden):
        await write_back(services, caller_of(bob), at.session_id, at.given, {"a": b"2"})
    assert await at.files() == {"a": b"1"}
