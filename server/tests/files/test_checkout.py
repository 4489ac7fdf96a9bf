"""Packs that lie, swell, loop or end too early: each is refused in bounded time and memory."""

from __future__ import annotations

import hashlib
import os
import tempfile
import tracemalloc
import zlib
from collections.abc import Sequence
from typing import IO

import pytest

from atelier.errors import AtelierError
from atelier.files.checkout import Stopped, checkout
from atelier.files.clone import Ref
from atelier.limits import Limits

LIMITS = Limits(blob_bytes=200_000, session_bytes=2_000_000, zip_entries=100)
COMMIT, TREE, BLOB, OFS, REF = 1, 2, 3, 6, 7
Entry = tuple[int, bytes, bytes]
"""Kind, what stands before the content (a delta's base), content."""


def head(kind: int, size: int) -> bytes:
    out, rest = [(kind << 4) | (size & 15)], size >> 4
    while rest:
        out[-1] |= 0x80
        out.append(rest & 0x7F)
        rest >>= 7
    return bytes(out)


def number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def offset(value: int) -> bytes:
    out = [value & 0x7F]
    while value := value >> 7:
        value -= 1
        out.insert(0, 0x80 | value & 0x7F)
    return bytes(out)


def copies(source: int, times: int) -> bytes:
    """A delta that takes all of its base again and again."""
    copy = bytes([0x80 | 0x70, source & 255, source >> 8 & 255, source >> 16])
    return number(source) + number(source * times) + copy * times


def entry(kind: int, content: bytes, base: bytes = b"", *, size: int | None = None) -> bytes:
    return head(kind, len(content) if size is None else size) + base + zlib.compress(content, 9)


def pack_of(entries: Sequence[bytes], count: int | None = None) -> bytes:
    body = b"PACK" + (2).to_bytes(4, "big") + (len(entries) if count is None else count).to_bytes(4, "big")
    body += b"".join(entries)
    return body + hashlib.sha1(body).digest()


def name_of(kind: str, content: bytes) -> bytes:
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).digest()


def tree_entry(blobs: dict[str, bytes]) -> tuple[bytes, bytes]:
    content = b"".join(b"100644 " + n.encode() + b"\0" + i for n, i in sorted(blobs.items()))
    return entry(TREE, content), name_of("tree", content)


def commit_entry(tree: bytes) -> tuple[bytes, bytes]:
    content = b"tree " + tree.hex().encode() + b"\nauthor A <a> 0 +0000\ncommitter A <a> 0 +0000\n\nx\n"
    return entry(COMMIT, content), name_of("commit", content)


def read(pack: bytes, commit: bytes, limits: Limits = LIMITS, *, filtered: bool = False) -> dict[str, bytes]:
    with tempfile.TemporaryFile() as file:
        file.write(pack)
        file.flush()
        made = checkout(file, Ref("main", commit.hex().encode(), filtered), "", limits, lambda: False)
    return {**made.files, **{item.path: f"left out: {item.code}".encode() for item in made.left_out}}


def with_blob(blob: bytes, blob_id: bytes, *more: bytes) -> tuple[bytes, bytes]:
    tree, tree_id = tree_entry({"f": blob_id})
    commit, commit_id = commit_entry(tree_id)
    return pack_of([commit, tree, blob, *more]), commit_id


def refused(code: str, pack: bytes, commit: bytes, limits: Limits = LIMITS) -> None:
    with pytest.raises(AtelierError) as error:
        read(pack, commit, limits)
    assert error.value.code == code, error.value.detail


def test_an_honest_pack_is_read_whatever_the_order_of_its_deltas() -> None:
    base, made = b"one\n" * 50, b"one\n" * 100
    by_name = entry(REF, copies(200, 2), name_of("blob", base))
    tree, tree_id = tree_entry({"a": name_of("blob", base), "b": name_of("blob", made)})
    commit, commit_id = commit_entry(tree_id)
    whole = entry(BLOB, base)
    assert read(pack_of([by_name, tree, commit, whole]), commit_id) == {"a": base, "b": made}
    by_place = entry(OFS, copies(200, 2), offset(len(whole)))
    assert read(pack_of([tree, commit, whole, by_place]), commit_id) == {"a": base, "b": made}
    # A delta of a delta whose base comes last.
    third = made * 2
    tree, tree_id = tree_entry({"c": name_of("blob", third)})
    commit, commit_id = commit_entry(tree_id)
    chain = entry(OFS, copies(400, 2), offset(len(by_name)))
    assert read(pack_of([tree, commit, by_name, chain, whole]), commit_id) == {"c": third}


@pytest.mark.parametrize("cut", [0, 4, 11, 12, 31, 40, -1, -20])
def test_a_pack_that_ends_too_early_is_broken(cut: int) -> None:
    pack, commit = with_blob(entry(BLOB, b"x"), name_of("blob", b"x"))
    refused("repository_unreadable", pack[:cut], commit)


def test_bytes_that_change_on_the_way_are_noticed() -> None:
    pack, commit = with_blob(entry(BLOB, b"x" * 100), name_of("blob", b"x" * 100))
    for at in range(0, len(pack), 7):
        changed = bytearray(pack)
        changed[at] ^= 0x10
        refused("repository_unreadable", bytes(changed), commit)


def test_an_object_that_is_larger_or_smaller_than_it_says_is_broken() -> None:
    for size in (1, 99, 101, 150_000, 300_000):
        pack, commit = with_blob(
            entry(BLOB, b"x" * 100, size=size), name_of("blob", b"x" * 100), entry(BLOB, b"y")
        )
        if size == 300_000:  # too large to be kept, by its own word: left out, and nothing is believed of it
            assert read(pack, commit) == {"f": b"left out: too_large"}
        else:
            refused("repository_unreadable", pack, commit)


def test_a_file_that_swells_is_left_out_without_being_held() -> None:
    bomb = b"\0" * 6_000_000
    pack, commit = with_blob(entry(BLOB, bomb), name_of("blob", bomb))
    tracemalloc.start()
    assert read(pack, commit) == {"f": b"left out: too_large"}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_more_that_swells_than_is_worth_unpacking_ends_it() -> None:
    bomb = b"\0" * 5_000_000
    tree, tree_id = tree_entry({"f": name_of("blob", bomb)})
    commit, commit_id = commit_entry(tree_id)
    refused(
        "repository_too_large",
        pack_of([commit, tree, entry(BLOB, bomb), entry(BLOB, bomb + b"1")]),
        commit_id,
    )
    lie = entry(BLOB, bomb, size=2**60)
    refused("repository_too_large", pack_of([commit, tree, lie]), commit_id)


def test_deltas_that_multiply_stop_at_the_limits() -> None:
    """Forty small deltas, each twice what the one before made: 2^40 times the base, if they were followed."""
    base = os.urandom(100)
    entries, size = [entry(BLOB, base)], 100
    for _ in range(40):
        entries.append(entry(OFS, copies(size, 2), offset(len(entries[-1]))))
        size = min(size * 2, 2**23)
    tree, tree_id = tree_entry({"f": name_of("blob", base)})
    commit, commit_id = commit_entry(tree_id)
    tracemalloc.start()
    assert read(pack_of([commit, tree, *entries]), commit_id) == {"f": base}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000
    # Many of the size that is still allowed: together they are more than a session holds.
    wide = [entry(BLOB, os.urandom(10_000))]
    for _ in range(15):
        wide.append(entry(OFS, copies(10_000, 19), offset(sum(map(len, wide)))))
    refused("repository_too_large", pack_of([commit, tree, *wide]), commit_id)


def test_a_delta_that_lies_about_its_result_is_broken() -> None:
    base = b"0123456789" * 10
    for steps in (
        number(100) + number(50) + b"\xf0\x64\x00\x00",  # copies 100 and announces 50
        number(99) + number(100) + b"\xf0\x64\x00\x00",  # of another base
        number(100) + number(2**62) + b"\xf0\x64\x00\x00",
        number(100) + number(5) + b"\x05ab",  # ends inside an insert
        number(100) + number(5) + b"\x00",
        b"\xff" * 12,
        b"",
    ):
        pack, commit = with_blob(
            entry(BLOB, base), name_of("blob", base), entry(REF, steps, name_of("blob", base))
        )
        if steps.startswith(number(100) + number(2**62)):
            assert read(pack, commit) == {"f": base}  # too large to be made, so it is not made
        else:
            refused("repository_unreadable", pack, commit)


def test_deltas_that_wait_for_each_other_or_for_nobody_are_broken() -> None:
    a, b = b"\1" * 20, b"\2" * 20
    pack, commit = with_blob(
        entry(BLOB, b"x"), name_of("blob", b"x"), entry(REF, copies(4, 2), a), entry(REF, copies(4, 2), b)
    )
    refused("repository_unreadable", pack, commit)
    pack, commit = with_blob(
        entry(BLOB, b"x"), name_of("blob", b"x"), entry(OFS, copies(4, 2), offset(1_000_000))
    )
    refused("repository_unreadable", pack, commit)
    pack, commit = with_blob(entry(BLOB, b"x"), name_of("blob", b"x"), entry(OFS, copies(4, 2), b"\0"))
    refused("repository_unreadable", pack, commit)


def test_numbers_without_an_end_are_not_read_to_their_end() -> None:
    for start in (b"\xb1" + b"\xff" * 3_000_000, b"\x61" + b"\xff" * 3_000_000, b"\xe1" + b"\x80" * 30):
        refused("repository_unreadable", pack_of([start]), b"\1" * 20)
    steps = number(1) + b"\xff" * 150_000
    pack, commit = with_blob(
        entry(BLOB, b"x"), name_of("blob", b"x"), entry(REF, steps, name_of("blob", b"x"))
    )
    refused("repository_unreadable", pack, commit)


def test_more_or_fewer_objects_than_are_counted_are_refused() -> None:
    tree, tree_id = tree_entry({})
    commit, commit_id = commit_entry(tree_id)
    refused("repository_too_many", pack_of([commit, tree], 2**31), commit_id)
    refused("repository_unreadable", pack_of([commit, tree], 3), commit_id)
    refused("repository_unreadable", pack_of([commit, tree], 1), commit_id)  # the tree is not looked at
    refused("repository_unreadable", pack_of([bytes([0x05]) + zlib.compress(b"")]), commit_id)


def test_a_file_that_the_server_kept_back_is_named_and_one_that_is_missing_is_an_error() -> None:
    tree, tree_id = tree_entry({"f": b"\7" * 20})
    commit, commit_id = commit_entry(tree_id)
    pack = pack_of([commit, tree])
    assert read(pack, commit_id, filtered=True) == {"f": b"left out: too_large"}
    refused("repository_unreadable", pack, commit_id)


@pytest.mark.parametrize(
    "content", [b"100644 x", b"xyz f\0" + b"\1" * 20, b"100644 f\0short", b" \0", b"40000 d\0" + b"\1" * 20]
)
def test_a_folder_that_cannot_be_read_is_broken(content: bytes) -> None:
    commit, commit_id = commit_entry(name_of("tree", content))
    refused("repository_unreadable", pack_of([commit, entry(TREE, content)]), commit_id)


def test_names_that_a_tree_repeats_are_left_out_and_deep_folders_are() -> None:
    blob_id = name_of("blob", b"x")
    content = b"".join(
        b"100644 " + n + b"\0" + blob_id for n in (b"a", b"a", b"A", b"", b".", b".git\xe2\x80\x8d", b"x/y")
    )
    commit, commit_id = commit_entry(name_of("tree", content))
    read_back = read(pack_of([commit, entry(TREE, content), entry(BLOB, b"x")]), commit_id)
    assert read_back.pop("a") == b"left out: twin"  # shown by both: the first is a file
    assert read_back == {
        "A": b"left out: twin",
        "": b"left out: path_empty",
        ".": b"left out: path_traversal",
        ".git\u200d": b"left out: git_folder",
        "x/y": b"x",
    }
    entries, tree_id = [entry(BLOB, b"x")], blob_id
    deep = b"100644 f\0" + blob_id
    for _ in range(80):
        entries.append(entry(TREE, deep))
        tree_id = name_of("tree", deep)
        deep = b"40000 d\0" + tree_id
    commit, commit_id = commit_entry(tree_id)
    found = read(pack_of([commit, *entries]), commit_id)
    assert list(found.values()) == [b"left out: too_deep"]


def test_the_work_stops_when_it_is_told_to() -> None:
    pack, commit = with_blob(entry(BLOB, b"x"), name_of("blob", b"x"))
    file: IO[bytes]
    with tempfile.TemporaryFile() as file, pytest.raises(Stopped):
        file.write(pack)
        file.flush()
        checkout(file, Ref("main", commit.hex().encode()), "", LIMITS, lambda: True)


def test_random_damage_never_does_worse_than_an_error() -> None:
    pack, commit = with_blob(
        entry(BLOB, b"x" * 1000),
        name_of("blob", b"x" * 1000),
        entry(REF, copies(1000, 3), name_of("blob", b"x" * 1000)),
    )
    body = pack[:-20]
    for at in range(12, len(body)):
        for bit in (0x01, 0x10, 0x80):
            damaged = bytearray(body)
            damaged[at] ^= bit
            try:
                read(bytes(damaged) + hashlib.sha1(damaged).digest(), commit)
            except AtelierError as error:
                assert error.code.startswith("repository_"), error.detail
