"""Files over HTTP: written, merged, moved, trashed, also by two at once."""

from __future__ import annotations

import asyncio
import os

import pytest

from ..conftest import MakeGuest, Somebody, invite, session_of


async def paths(person: Somebody, session_id: str) -> list[str]:
    return [item["path"] for item in (await person.ok("GET", f"/sessions/{session_id}/files"))["items"]]


async def test_text_and_binary_are_kept_as_such(guest: MakeGuest) -> None:
    ada = await guest()
    base = f"/sessions/{await session_of(ada)}/files"
    binary = os.urandom(1000) + b"\0"
    for path, content, kind in (
        ("a.py", "print('héllo 😀')\n".encode(), "text"),
        ("b.bin", binary, "blob"),
        ("empty", b"", "text"),
    ):
        answer = await ada.http.put(f"/api/v1{base}/{path}", content=content)
        assert (answer.status_code, answer.json()["kind"], answer.json()["size"]) == (201, kind, len(content))
        assert (answer.json()["document_id"] is None) == (kind == "blob")
        assert (await ada.ok("GET", f"{base}/{path}")).content == content
    assert (await ada.http.put(f"/api/v1{base}/a.py", content=b"shorter")).status_code == 200
    assert (await ada.ok("GET", f"{base}/a.py")).text == "shorter"


async def test_a_file_that_changes_its_kind_leaves_the_old_one_in_the_trash(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    await ada.ok("PUT", f"/sessions/{session_id}/files/x", content=b"text")
    await ada.ok("PUT", f"/sessions/{session_id}/files/x", content=b"\0binary")
    assert (await ada.ok("GET", f"/sessions/{session_id}/files/x")).content == b"\0binary"
    trash = (await ada.ok("GET", f"/sessions/{session_id}/trash"))["items"]
    assert [item["kind"] for item in trash] == ["text"]
    restored = await ada.ok("POST", f"/sessions/{session_id}/trash/{trash[0]['id']}/restore")
    assert sorted(await paths(ada, session_id)) == ["x", "x (2)"]
    assert restored["kind"] == "text"


async def test_many_at_once_lose_nothing(guest: MakeGuest) -> None:
    ada, bob = await guest("Ada"), await guest("Bob")
    session_id = await session_of(ada)
    await invite(ada, session_id, bob, "edit")
    base = f"/sessions/{session_id}"
    await asyncio.gather(
        *(
            person.ok("PUT", f"{base}/files/{person.name}{n}.txt", content=str(n).encode())
            for person in (ada, bob)
            for n in range(5)
        ),
        ada.ok("POST", f"{base}/folders", json={"path": "docs"}),
        bob.ok("POST", f"{base}/folders", json={"path": "src"}),
    )
    await asyncio.gather(
        ada.ok("POST", f"{base}/moves", json={"from": "Ada0.txt", "to": "docs/one.txt"}),
        bob.ok("POST", f"{base}/moves", json={"from": "Bob0.txt", "to": "src/two.txt"}),
        bob.ok("DELETE", f"{base}/files/Bob1.txt"),
    )
    found = await paths(ada, session_id)
    assert found == await paths(bob, session_id)
    assert {"docs/one.txt", "src/two.txt"} <= set(found)
    assert "Bob1.txt" not in found
    assert len([path for path in found if path.endswith(".txt")]) == 9


async def test_two_puts_of_one_new_path_keep_both_texts(guest: MakeGuest) -> None:
    ada, bob = await guest("Ada"), await guest("Bob")
    session_id = await session_of(ada)
    await invite(ada, session_id, bob, "edit")
    answers = await asyncio.gather(
        *(
            p.http.put(f"/api/v1/sessions/{session_id}/files/same.txt", content=p.name.encode())
            for p in (ada, bob)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, 201]
    assert await paths(ada, session_id) == ["same.txt"]


async def test_a_folder_moves_and_goes_and_comes_back_with_what_is_in_it(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada, "welcome")
    base = f"/sessions/{session_id}"
    await ada.ok("POST", f"{base}/moves", json={"from": "garden", "to": "park"})
    assert {"park/__init__.py", "park/plants.py"} <= set(await paths(ada, session_id))
    ids = (await ada.ok("DELETE", f"{base}/files/park"))["ids"]
    assert not [path for path in await paths(ada, session_id) if path.startswith("park")]
    for file_id in ids:
        await ada.ok("POST", f"{base}/trash/{file_id}/restore")
    assert "park/plants.py" in await paths(ada, session_id)
    await ada.refused(409, "path_taken", "POST", f"{base}/moves", json={"from": "park", "to": "park/inside"})


@pytest.mark.parametrize("taken", ["MAIN.py", "main.py/x", "garden"])
async def test_twins_and_files_as_folders_are_refused(guest: MakeGuest, taken: str) -> None:
    ada = await guest()
    session_id = await session_of(ada, "welcome")
    await ada.refused(409, "path_taken", "PUT", f"/sessions/{session_id}/files/{taken}", content=b"x")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("%2e%2e%2fx", "path_traversal"),
        ("a%00b", "path_nul"),
        ("%2Fetc%2Fpasswd", "path_absolute"),
        ("a%5Cb", "path_backslash"),
        ("x" * 256, "path_component_too_long"),
    ],
)
async def test_path_tricks_in_an_address_are_refused_by_name(guest: MakeGuest, path: str, code: str) -> None:
    ada = await guest()
    await ada.refused(422, code, "PUT", f"/sessions/{await session_of(ada)}/files/{path}", content=b"x")


async def test_what_a_browser_could_run_is_never_shown_inline(guest: MakeGuest) -> None:
    ada = await guest()
    base = f"/sessions/{await session_of(ada)}/files"
    for path, content in (
        ("page.html", b"<script>alert(1)</script>"),
        ("image.svg", b"\0<svg onload='alert(1)'/>"),
    ):
        await ada.ok("PUT", f"{base}/{path}", content=content)
        answer = await ada.ok("GET", f"{base}/{path}")
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-type"].startswith("text/plain") or answer.headers[
            "content-disposition"
        ].startswith("attachment")


async def test_search_counts_columns_as_editors_do_and_a_replacement_can_be_taken_back(
    guest: MakeGuest,
) -> None:
    ada, bob = await guest("Ada"), await guest("Bob")
    session_id = await session_of(ada)
    await invite(ada, session_id, bob, "edit")
    base = f"/sessions/{session_id}"
    await ada.ok("PUT", f"{base}/files/a.txt", content="x\n😀 needle Needle\n".encode())
    await ada.ok("PUT", f"{base}/files/b/c.txt", content=b"needles")
    found = await ada.ok("GET", f"{base}/search?q=needle")
    assert [(m["line"], m["column"], m["length"]) for m in found["items"][0]["matches"]] == [
        (2, 3, 6),
        (2, 10, 6),
    ]
    assert [
        i["path"] for i in (await ada.ok("GET", f"{base}/search?q=needle&word=true&case=true"))["items"]
    ] == ["a.txt"]
    done = await ada.ok(
        "POST", f"{base}/replacements", json={"q": "need(le)", "replacement": r"<\1>", "regex": True}
    )
    assert (done["files"], done["replacements"]) == (2, 3)
    assert (await ada.ok("GET", f"{base}/files/a.txt")).text == "x\n😀 <le> <le>\n"
    await bob.ok("PUT", f"{base}/files/b/c.txt", content=b"<le>s\nand Bob")
    await bob.refused(404, "undo_not_found", "POST", f"{base}/undos/{done['id']}")
    await ada.ok("POST", f"{base}/undos/{done['id']}")
    assert (await ada.ok("GET", f"{base}/files/a.txt")).text == "x\n😀 needle Needle\n"
    assert (await ada.ok("GET", f"{base}/files/b/c.txt")).text == "needles\nand Bob"
    await ada.refused(404, "undo_not_found", "POST", f"{base}/undos/{done['id']}")


@pytest.mark.parametrize(
    ("query", "code"),
    [("q=", "query_empty"), ("q=(&regex=true", "regex_invalid"), ("q=" + "x" * 1001, "query_too_long")],
)
async def test_bad_searches_are_refused_by_name(guest: MakeGuest, query: str, code: str) -> None:
    ada = await guest()
    await ada.refused(422, code, "GET", f"/sessions/{await session_of(ada)}/search?{query}")


async def test_a_pattern_that_would_never_end_elsewhere_is_quick(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    await ada.ok("PUT", f"/sessions/{session_id}/files/a.txt", content=b"a" * 100_000 + b"!")
    found = await ada.ok("GET", f"/sessions/{session_id}/search?regex=true&q=(a%2B)%2B%24")
    assert found["items"] == []
