"""Environments on disk: what comes out of a sandbox is not believed, what is kept is whole, bounded and unguessable."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atelier_runner import SpecInvalid
from atelier_runner.environments import EnvironmentOptions, Store, open_store
from atelier_runner.environments.archive import Archive
from atelier_runner.errors import EnvironmentFailed
from atelier_runner.model import Packages

HEAD = struct.Struct(">BHQ")


def entry(kind: str, path: str | bytes, content: bytes = b"", size: int | None = None) -> bytes:
    raw = path if isinstance(path, bytes) else path.encode()
    return HEAD.pack(ord(kind), len(raw), len(content) if size is None else size) + raw + content


END = entry("E", "")


def unpacked(folder: Path, data: bytes, *, step: int = 7, most_mb: int = 1) -> Archive:
    archive = Archive(folder, most_mb)
    try:
        for start in range(0, len(data), step):
            archive.feed(data[start : start + step])
        archive.finish()
    finally:
        archive.close()
    return archive


@pytest.mark.parametrize("step", [1, 13, 1 << 20])
def test_what_comes_out_is_files_folders_and_links_and_nothing_of_their_modes(
    tmp_path: Path, step: int
) -> None:
    data = (
        entry("D", "a") + entry("D", "a/b") + entry("F", "a/b/c", b"text") + entry("X", "run", b"#!/bin/sh\n")
        + entry("F", "a/empty") + entry("L", "link", b"../../etc/passwd") + entry("L", "a/up", b"/usr/bin/python3") + END
    )  # fmt: skip
    archive = unpacked(tmp_path, data, step=step)
    assert (tmp_path / "a/b/c").read_bytes() == b"text"
    assert (tmp_path / "a/empty").read_bytes() == b""
    assert stat.S_IMODE((tmp_path / "a/b/c").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755
    assert os.readlink(tmp_path / "link") == "../../etc/passwd"
    assert archive.size > 7 * 4096


@pytest.mark.parametrize(
    "data",
    [
        entry("F", "../x", b"1") + END,
        entry("F", "/etc/x", b"1") + END,
        entry("F", "a/b", b"1") + END,  # its folder never came
        entry("L", "a", b"/tmp") + entry("F", "a/x", b"1") + END,  # through a link
        entry("L", "a", b"/tmp") + entry("D", "a/x") + END,
        entry("D", "a") + entry("D", "a") + END,
        entry("F", "a", b"1") + entry("X", "a", b"2") + END,
        entry("F", "", b"1") + END,
        entry("F", "a\0b", b"1") + END,
        entry("F", b"\xff", b"1") + END,
        entry("F", "x" * 300, b"1") + END,
        entry("B", "device") + END,
        entry("L", "a", size=1 << 40),
        entry("F", "a", size=1 << 40),
        entry("F", "a", b"1"),  # no end
        entry("F", "a", b"1", size=2) + END,
        END + entry("F", "a", b"1"),
        b"\0" * 64,
        b"",
        b"".join(entry("F", f"f{n}", b"x" * 300_000) for n in range(4)) + END,
        b"".join(entry("F", f"f{n}") for n in range(300)) + END,  # 300 files cost more than 1 MiB
    ],
)
def test_what_has_another_shape_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "env").mkdir()
    with pytest.raises(EnvironmentFailed):
        unpacked(tmp_path / "env", data)
    assert os.listdir(tmp_path) == ["env"]


@contextmanager
def store(folder: Path, most_mb: int = 1) -> Iterator[Store]:
    with open_store(folder, most_mb) as opened:
        yield opened


def built(opened: Store, wanted: str, size: int = 1000) -> str:
    name = opened.name({"wanted": wanted})
    staged = opened.stage()
    (staged / "module.py").write_bytes(b"x")
    opened.keep(name, staged, size)
    opened.sync(name)
    return name


def test_names_cannot_be_guessed_and_are_the_same_after_a_restart(tmp_path: Path) -> None:
    with store(tmp_path / "one") as opened:
        name = opened.name({"wanted": ["numpy"]})
        assert name != opened.name({"wanted": ["numpy==2"]})
        built(opened, "something")
    with store(tmp_path / "one") as opened:
        assert opened.name({"wanted": ["numpy"]}) == name
    with store(tmp_path / "two") as opened:
        assert opened.name({"wanted": ["numpy"]}) != name


def test_the_shelf_can_be_passed_through_and_not_listed_and_the_key_is_not_on_it(tmp_path: Path) -> None:
    with store(tmp_path / "s") as opened:
        assert stat.S_IMODE(opened.shelf.stat().st_mode) == 0o311
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o711
        assert stat.S_IMODE((tmp_path / "s/key").stat().st_mode) == 0o600
        assert os.listdir(opened.shelf) == []


def test_what_was_kept_is_there_after_a_restart_and_what_was_half_built_is_gone(tmp_path: Path) -> None:
    with store(tmp_path) as opened:
        whole = built(opened, "whole")
        unsynced = opened.name({"wanted": "unsynced"})
        staged = opened.stage()
        opened.keep(unsynced, staged, 10)  # and then the power went
        half = opened.stage()
        (half / "module.py").write_bytes(b"x")
        (tmp_path / "records" / ("f" * 40)).write_text('{"size": 5}')  # of one that was removed
        (tmp_path / "records" / ("e" * 40)).write_text("")
    with store(tmp_path) as opened:
        assert opened.hold(whole)
        assert not opened.hold(unsynced)
        opened.shelf.chmod(0o700)
        assert os.listdir(opened.shelf) == [whole]
        assert not half.exists()
        assert os.listdir(tmp_path / "records") == [whole]


def test_what_was_used_least_lately_goes_and_what_is_used_stays(tmp_path: Path) -> None:
    with store(tmp_path) as opened:
        first, second, third = (built(opened, name, 400_000) for name in ("first", "second", "third"))
        assert opened.hold(first)
        opened.let_go(first)  # used just now
        assert opened.hold(second)  # and still used
        (gone,) = opened.evict()
        opened.discard(gone)
        assert not opened.hold(third)
        assert opened.hold(first)
        assert opened.size == (2, 800_000)
        fourth = built(opened, "fourth", 900_000)
        (gone,) = opened.evict()
        assert gone.exists()
        assert not opened.hold(fourth)  # all others are used: for the moment there is more than the bound
        opened.let_go(first)
        opened.let_go(second)


def test_the_order_of_use_survives_a_restart(tmp_path: Path) -> None:
    with store(tmp_path, 2) as opened:
        first, second = built(opened, "first", 600_000), built(opened, "second", 600_000)
        os.utime(tmp_path / "records" / second, (1, 1))
    with store(tmp_path, 1) as opened:
        opened.evict()
        assert not opened.hold(second)
        assert opened.hold(first)


def test_one_folder_has_one_runner(tmp_path: Path) -> None:
    with store(tmp_path), pytest.raises(ValueError, match="another runner"), store(tmp_path):
        pass
    with store(tmp_path):
        pass


def test_a_folder_in_which_nothing_was_kept_goes_unless_it_was_there_before(tmp_path: Path) -> None:
    with store(tmp_path / "new") as opened:
        opened.stage()
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with store(tmp_path / "old"):
        pass
    assert (tmp_path / "old").exists()


def test_a_folder_of_this_process_goes_with_it() -> None:
    with open_store(None, 1) as opened:
        built(opened, "x")
        folder = opened.shelf.parent
    assert not folder.exists()


@pytest.mark.parametrize(
    "packages",
    [
        Packages("python", ("numpy", "numpy>=2,<3", "A.b_c[x,y]==1.0.post1 ; python_version < '3.12'", "x~=1!2.0+a")),
        Packages("node", ("lodash@^4.17.0", "@types/node@>=20 <22 || 24.x", "JSONStream@latest", "x@")),
    ],
)  # fmt: skip
def test_packages_of_an_index_are_taken(packages: Packages) -> None:
    packages.check()


@pytest.mark.parametrize(
    ("tool", "text"),
    [
        ("python", text)
        for text in ("-r x", "--index-url=http://x", "x @ http://y", "git+http://x", "./x", "/x", "x\n-e .", "x\\", "", "x" * 301, "reqüests", "x # y")
    ]
    + [("node", text) for text in ("x", "x@file:../y", "x@git+ssh://y", "x@a/b", "../x@1", "x y@1", "@s/../x@1", "x@1\n", "--x @1;")]
    + [("cargo", "serde")],
)  # fmt: skip
def test_everything_else_is_refused(tool: str, text: str) -> None:
    with pytest.raises(SpecInvalid):
        Packages(tool, (text,)).check()


@pytest.mark.parametrize("address", ["ftp://x", "x", "https://", "https://x,y", "https://x,y:z"])
def test_an_index_is_an_address(address: str) -> None:
    with pytest.raises(ValueError, match="index"):
        EnvironmentOptions(python_index=address)


def test_what_a_build_may_reach_is_the_index_alone() -> None:
    options = EnvironmentOptions(python_index="https://Index.example:8443/simple, files.example:443")
    assert options.hosts("python") == ("index.example:8443", "files.example:443")
    assert options.index("python") == "https://Index.example:8443/simple"
    assert EnvironmentOptions(npm_registry="http://127.0.0.1:9/x").hosts("node") == ("127.0.0.1:9",)
