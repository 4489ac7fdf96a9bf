"""Import from Git: a real server over TLS, what is taken, what is left out by name, and what is refused."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
from collections.abc import AsyncIterator, Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import pytest_asyncio

from atelier.settings import Settings

from ..conftest import MakeGuest, Somebody, session_of
from ..git_server import GitServer, git, git_server

__all__ = ["git_server"]


@pytest.fixture
def settings(settings: Settings, git_server: GitServer, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A server that imports from the test's Git server alone, with small limits."""
    monkeypatch.setenv("SSL_CERT_FILE", str(git_server.ca))
    limits = dataclasses.replace(
        settings.limits, zip_entries=60, blob_bytes=300_000, session_bytes=2_000_000, import_seconds=20
    )
    return dataclasses.replace(settings, import_hosts=git_server.host, limits=limits)


@pytest_asyncio.fixture
async def ada(guest: MakeGuest) -> AsyncIterator[Somebody]:
    yield await guest()


async def test_a_repository_becomes_files_as_they_are(ada: Somebody, git_server: GitServer) -> None:
    folder = git_server.repository(
        "garden",
        {"main.py": b"print('hi')\n", "src/deep/er.txt": "grün\n".encode(), "logo.png": b"\x89PNG\0\1"},
    )
    session_id = await session_of(ada)
    done = await ada.ok("POST", f"/sessions/{session_id}/imports", json={"url": git_server.url("garden")})
    assert done["paths"] == ["logo.png", "main.py", "src/deep/er.txt"]
    assert (done["left_out"], done["ref"]) == ([], "main")
    assert done["commit"] == git(folder, "rev-parse", "HEAD").decode()
    listed = (await ada.ok("GET", f"/sessions/{session_id}/files"))["items"]
    assert {item["path"]: item["kind"] for item in listed} == {
        "logo.png": "blob",
        "main.py": "text",
        "src/deep/er.txt": "text",
    }
    assert (await ada.ok("GET", f"/sessions/{session_id}/files/src/deep/er.txt")).text == "grün\n"
    assert (await ada.ok("GET", f"/sessions/{session_id}/files/logo.png")).content == b"\x89PNG\0\1"


async def test_only_the_last_commit_is_asked_for_and_deltas_are_resolved(
    ada: Somebody, git_server: GitServer
) -> None:
    # Two large files that differ in a line: Git sends one of them as a delta.
    lines = [b"%d %s\n" % (n, os.urandom(20).hex().encode()) for n in range(3_000)]
    folder = git_server.repository("long", {"old.txt": b"gone\n"})
    git(folder, "rm", "-q", "old.txt")
    (folder / "a.txt").write_bytes(b"".join(lines))
    (folder / "b.txt").write_bytes(b"".join([*lines[:1_000], b"changed\n", *lines[1_000:]]))
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "two")
    git(folder, "repack", "-adfq", "--depth=50")
    session_id = await session_of(ada)
    done = await ada.ok("POST", f"/sessions/{session_id}/imports", json={"url": git_server.url("long")})
    assert done["paths"] == ["a.txt", "b.txt"]
    for name in ("a.txt", "b.txt"):
        got = await ada.ok("GET", f"/sessions/{session_id}/files/{name}")
        assert got.content == (folder / name).read_bytes()


async def test_a_branch_a_tag_and_a_folder_can_be_named(ada: Somebody, git_server: GitServer) -> None:
    folder = git_server.repository("branches", {"f.txt": b"main\n"})
    git(folder, "tag", "-a", "v1", "-m", "first")
    git(folder, "checkout", "-q", "-b", "feature/x")
    (folder / "f.txt").write_bytes(b"feature\n")
    git(folder, "commit", "-qam", "two")
    git(folder, "checkout", "-q", "main")
    session_id = await session_of(ada)
    for ref, text in (("v1", "main\n"), ("feature/x", "feature\n"), ("", "main\n")):
        into = ref.replace("/", "-") or "top"
        body = {"url": git_server.url("branches"), "ref": ref, "into": into}
        done = await ada.ok("POST", f"/sessions/{session_id}/imports", json=body)
        assert done["ref"] == (ref or "main")
        assert (await ada.ok("GET", f"/sessions/{session_id}/files/{into}/f.txt")).text == text
    problem = await ada.refused(
        404, "branch_not_found", "POST", f"/sessions/{session_id}/imports", json={"url": git_server.url("branches"), "ref": "nope"}
    )  # fmt: skip
    assert "feature/x, main" in problem["detail"]
    await ada.refused(
        409, "path_taken", "POST", f"/sessions/{session_id}/imports", json={"url": git_server.url("branches"), "into": "top"}
    )  # fmt: skip


async def test_what_cannot_be_a_file_is_left_out_by_name(ada: Somebody, git_server: GitServer) -> None:
    folder = git_server.repository(
        "odd",
        {
            "good.txt": b"good\n",
            "README.md": b"1",
            "readme.MD": b"2",
            "data.bin": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            "big.bin": os.urandom(400_000),
        },
    )
    (folder / "link").symlink_to("/etc/passwd")
    git(folder, "add", "-A")
    head = git(folder, "rev-parse", "HEAD").decode()
    blob = git(folder, "hash-object", "-w", "--stdin", stdin=b"evil").decode()
    git(folder, "update-index", "--add", "--cacheinfo", f"160000,{head},module")
    top = git(folder, "write-tree").decode()
    # What Git itself would refuse to stage is written as a tree by hand.
    inner = git(folder, "mktree", stdin=f"100644 blob {blob}\tconfig\n".encode()).decode()
    listing = git(folder, "ls-tree", top) + b"\n"
    for line in (
        f"040000 tree {inner}\t.GIT",
        f"040000 tree {inner}\t.git",
        f"100644 blob {blob}\tgit~1",
        f"100644 blob {blob}\tback\\slash",
        f"040000 tree {inner}\t..",
    ):
        listing += line.encode() + b"\n"
    listing += b"100644 blob " + blob.encode() + b"\tnot-\xff-utf8\n"
    tree = git(folder, "mktree", stdin=listing).decode()
    git(folder, "update-ref", "HEAD", git(folder, "commit-tree", tree, "-m", "odd").decode())
    session_id = await session_of(ada)
    done = await ada.ok("POST", f"/sessions/{session_id}/imports", json={"url": git_server.url("odd")})
    assert done["paths"] == ["README.md", "good.txt"]
    assert {item["path"]: item["code"] for item in done["left_out"]} == {
        "link": "symlink",
        "module": "submodule",
        ".git": "git_folder",
        ".GIT": "git_folder",
        "git~1": "git_folder",
        "back\\slash": "path_backslash",
        "../config": "path_traversal",
        "not-\\xff-utf8": "path_encoding",
        "readme.MD": "twin",
        "data.bin": "lfs",
        "big.bin": "too_large",
    }
    assert all(item["reason"] for item in done["left_out"])


async def test_too_much_is_refused_and_leaves_nothing(ada: Somebody, git_server: GitServer) -> None:
    git_server.repository("many", {f"f{n}": b"%d" % n for n in range(61)})
    git_server.repository("crowd", {f"f{n}": b"%d" % n for n in range(400)})
    git_server.repository("heavy", {f"f{n}": os.urandom(290_000) for n in range(8)})
    git_server.repository("airy", {f"f{n}": b"%d" % n + b"\0" * 290_000 for n in range(8)})
    session_id = await session_of(ada)
    for name, status, code in (
        ("many", 422, "repository_too_many"),
        ("crowd", 422, "repository_too_many"),
        ("heavy", 413, "repository_too_large"),
        ("airy", 413, "repository_too_large"),
    ):
        await ada.refused(
            status, code, "POST", f"/sessions/{session_id}/imports", json={"url": git_server.url(name)}
        )
    assert (await ada.ok("GET", f"/sessions/{session_id}/files"))["items"] == []


async def test_a_tree_that_names_itself_over_and_over_is_counted_as_it_is_walked(
    ada: Somebody, git_server: GitServer
) -> None:
    folder = git_server.repository("bomb", {"x": b"x"})
    tree = git(folder, "write-tree").decode()
    for _ in range(12):
        lines = "".join(f"040000 tree {tree}\td{n}\n" for n in range(10))
        tree = git(folder, "mktree", stdin=lines.encode()).decode()
    git(folder, "update-ref", "HEAD", git(folder, "commit-tree", tree, "-m", "bomb").decode())
    session_id = await session_of(ada)
    url = git_server.url("bomb")
    await ada.refused(
        422, "repository_too_many", "POST", f"/sessions/{session_id}/imports", json={"url": url}
    )


async def test_an_empty_repository_and_none_say_so(ada: Somebody, git_server: GitServer) -> None:
    (git_server.folder / "empty").mkdir()
    git(git_server.folder / "empty", "init", "-q")
    session_id = await session_of(ada)
    where = f"/sessions/{session_id}/imports"
    await ada.refused(422, "repository_empty", "POST", where, json={"url": git_server.url("empty")})
    await ada.refused(404, "repository_not_found", "POST", where, json={"url": git_server.url("nothing")})


async def test_a_viewer_imports_nothing(ada: Somebody, guest: MakeGuest, git_server: GitServer) -> None:
    git_server.repository("r", {"f": b""})
    session_id = await session_of(ada)
    stranger = await guest("Eve")
    where = f"/sessions/{session_id}/imports"
    await stranger.refused(404, "session_not_found", "POST", where, json={"url": git_server.url("r")})
    assert git_server.requests == []


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://localhost/r", "url_not_https"),
        ("git://localhost/r", "url_not_https"),
        ("file:///etc", "url_not_https"),
        ("ssh://git@localhost/r", "url_not_https"),
        ("https://user:secret@localhost/r", "url_has_login"),
        ("https://localhost/r", "host_not_listed"),
        ("https://example.com/r", "host_not_listed"),
        ("https://127.0.0.1/r", "host_not_listed"),
        ("https:///r", "url_invalid"),
    ],
)
async def test_addresses_are_refused_before_anything_is_sent(
    ada: Somebody, git_server: GitServer, url: str, code: str
) -> None:
    session_id = await session_of(ada)
    await ada.refused(422, code, "POST", f"/sessions/{session_id}/imports", json={"url": url})
    assert git_server.requests == []


def redirect(to: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", to)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


INFO = "/info/refs?service=git-upload-pack"


@pytest.mark.parametrize(
    ("to", "code"),
    [
        (f"https://169.254.169.254/latest{INFO}", "host_not_listed"),
        (f"http://localhost/r{INFO}", "url_not_https"),
        (f"https://me:pw@localhost/r{INFO}", "url_has_login"),
        ("https://localhost/elsewhere", "repository_unreadable"),
        (f"/loop{INFO}", "repository_unreadable"),
        ("", "repository_unreadable"),
    ],
)
async def test_a_redirect_is_checked_like_what_was_typed(
    ada: Somebody, git_server: GitServer, to: str, code: str
) -> None:
    git_server.odd["/loop/info/refs"] = redirect(to)
    session_id = await session_of(ada)
    url = git_server.url("loop")
    await ada.refused(422, code, "POST", f"/sessions/{session_id}/imports", json={"url": url})


async def test_a_redirect_to_the_repository_is_followed_and_one_of_the_pack_is_not(
    ada: Somebody, git_server: GitServer
) -> None:
    git_server.repository("real", {"f": b"x"})
    git_server.odd["/short/info/refs"] = redirect(f"/real{INFO}")
    session_id = await session_of(ada)
    where = f"/sessions/{session_id}/imports"
    assert (await ada.ok("POST", where, json={"url": git_server.url("short")}))["paths"] == ["f"]
    git_server.odd["/real/git-upload-pack"] = redirect("/elsewhere")
    await ada.refused(
        422, "repository_unreadable", "POST", where, json={"url": git_server.url("real"), "into": "b"}
    )
    assert ("GET", "/elsewhere") not in git_server.requests


async def test_a_certificate_that_is_not_trusted_ends_it(
    ada: Somebody, git_server: GitServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    git_server.repository("r", {"f": b""})
    monkeypatch.delenv("SSL_CERT_FILE")
    session_id = await session_of(ada)
    where = f"/sessions/{session_id}/imports"
    problem = await ada.refused(503, "host_unreachable", "POST", where, json={"url": git_server.url("r")})
    assert "certificate" in problem["detail"].lower()
    assert git_server.requests == []


def drip(started: threading.Event, gone: threading.Event) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answer a byte now and then, until the client goes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        try:
            handler.wfile.write(b"4\r\nfff0\r\n")  # a packet of 65,520 bytes begins
            while not gone.wait(0.02):
                handler.wfile.write(b"1\r\n#\r\n")
                handler.wfile.flush()
                started.set()
        except OSError:
            gone.set()

    return answer


class TestSlow:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return dataclasses.replace(settings, limits=dataclasses.replace(settings.limits, import_seconds=1))

    async def test_a_drip_ends_with_the_time(self, ada: Somebody, git_server: GitServer) -> None:
        gone = threading.Event()
        git_server.odd["/slow/info/refs"] = drip(threading.Event(), gone)
        session_id = await session_of(ada)
        where = f"/sessions/{session_id}/imports"
        await ada.refused(503, "import_too_slow", "POST", where, json={"url": git_server.url("slow")})
        assert await asyncio.to_thread(gone.wait, 10)


async def test_who_leaves_ends_the_import(ada: Somebody, git_server: GitServer) -> None:
    started, gone = threading.Event(), threading.Event()
    git_server.odd["/slow/info/refs"] = drip(started, gone)
    session_id = await session_of(ada)
    where = f"/api/v1/sessions/{session_id}/imports"
    asking = asyncio.create_task(ada.http.post(where, json={"url": git_server.url("slow")}))
    assert await asyncio.to_thread(started.wait, 10)
    await ada.refused(
        409,
        "import_under_way",
        "POST",
        f"/sessions/{session_id}/imports",
        json={"url": git_server.url("slow")},
    )
    asking.cancel()
    assert await asyncio.to_thread(gone.wait, 10)


class TestRate:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return dataclasses.replace(settings, limits=dataclasses.replace(settings.limits, imports_per_hour=2))

    async def test_the_third_of_two_waits(self, ada: Somebody, git_server: GitServer) -> None:
        session_id = await session_of(ada)
        where = f"/sessions/{session_id}/imports"
        for _ in range(2):
            await ada.refused(
                404, "repository_not_found", "POST", where, json={"url": git_server.url("none")}
            )
        await ada.refused(429, "rate_limited", "POST", where, json={"url": git_server.url("none")})
