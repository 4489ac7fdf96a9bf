"""From a pack to files: a commit's tree is read out of it, believing nothing that the pack says about itself.

What can be a file of a session is taken; what cannot is left out by name, with the reason. Only what makes the whole
unusable (too many files, too many bytes, a broken pack) ends an import. Sizes are looked at before anything is
unpacked to them: an object's, a delta's result, and the sum of all. The work is a plain function for a thread; it asks
`stopped` between any two objects.
"""

from __future__ import annotations

import hashlib
import mmap
import stat
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, NoReturn

from dulwich.errors import ApplyDeltaError, ObjectFormatException
from dulwich.objects import Blob, Commit, Tag, Tree, parse_tree
from dulwich.pack import (
    OFS_DELTA,
    REF_DELTA,
    UnpackedObject,
    apply_delta,
    obj_sha,
    read_pack_header_at,
    unpack_object_at,
)

from atelier.errors import Invalid, TooLarge
from atelier.files.clone import Ref, most_objects
from atelier.files.paths import problem_of, twin_key
from atelier.limits import Limits

_TRAILER = 20  # SHA-1 of what is before it
_MOST_FOLDERS = 64  # inside one another
_LFS = b"version https://git-lfs.github.com/spec/v1\n"
_KINDS = (Commit.type_num, Tree.type_num, Blob.type_num, Tag.type_num)
_DELTAS = (OFS_DELTA, REF_DELTA)
_SKIP_BYTES = 64 * 1024
_MOST_NUMBER_BYTES = 10
_SKIP_RATIO = 4  # bytes that may be unpacked only to be dropped, in sizes of a session
_SUBMODULE = 0o160000
_MOST_LFS_BYTES = 1024
_SHOWN = 400  # characters of a path that was left out


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A path of the repository that no file was made of; `code` is stable, `reason` is for people."""

    path: str
    code: str
    reason: str


@dataclass(slots=True)
class Checkout:
    """A commit's files by path, and what was left out of it."""

    files: dict[str, bytes] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)


class Stopped(Exception):
    """Nobody waits for the result any more."""


def checkout(pack: IO[bytes], ref: Ref, into: str, limits: Limits, stopped: Callable[[], bool]) -> Checkout:
    """Return the files of a commit under the folder `into`.

    Raises:
        Invalid: `repository_unreadable`, `repository_too_many`.
        TooLarge: `repository_too_large`.
        Stopped: `stopped` said so.
    """
    try:
        # Not closed by hand: after an error, its frames still hold views of it.
        contents = mmap.mmap(pack.fileno(), 0, access=mmap.ACCESS_READ)
        objects = _Objects(limits, stopped)
        objects.read(contents)
        return _files(objects, ref.commit, into, limits, filtered=ref.filtered)
    except (
        ApplyDeltaError,
        AssertionError,
        IndexError,
        ObjectFormatException,
        ValueError,
        zlib.error,
    ) as error:
        raise _broken(str(error)[:200] or type(error).__name__) from error


def _broken(why: str) -> Invalid:
    return Invalid(
        "repository_unreadable",
        f"This repository cannot be read: its pack is broken ({why}).",
        next_step="Try again, or import a zip.",
    )


class _Objects:
    """The objects of a pack by their ids."""

    def __init__(self, limits: Limits, stopped: Callable[[], bool]) -> None:
        self.found: dict[bytes, tuple[int, bytes]] = {}
        self.skipped = 0
        """How many were too large to be kept, or made from such a one."""
        self._limits, self._stopped = limits, stopped
        # Commits and trees have bounds too: they are objects like others.
        self._left = limits.session_bytes
        self._left_to_skip = _SKIP_RATIO * limits.session_bytes
        self._at: dict[int, tuple[int, bytes]] = {}
        self._for_offset: dict[int, list[UnpackedObject]] = defaultdict(list)
        self._for_id: dict[bytes, list[UnpackedObject]] = defaultdict(list)

    def read(self, contents: mmap.mmap) -> None:
        """Unpack everything whose size is within the limits."""
        end = len(contents) - _TRAILER
        with memoryview(contents) as view:
            if end < 12 or hashlib.sha1(view[:end]).digest() != view[end:]:
                raise _broken("it is cut off, or its checksum is wrong")
        _, count = read_pack_header_at(contents)
        if count > most_objects(self._limits):
            _refuse_many(self._limits)
        position = 12
        for _ in range(count):
            if self._stopped():
                raise Stopped
            position = self._read_one(contents, position, end)
        waiting = sum(map(len, self._for_offset.values())) + sum(map(len, self._for_id.values()))
        if waiting and not self.skipped:
            raise _broken("it is made from something that it does not hold")
        self.skipped += waiting

    def _read_one(self, contents: mmap.mmap, position: int, end: int) -> int:
        if position >= end:
            raise _broken("it holds less than it says")
        kind = (contents[position] >> 4) & 7
        size, after = _number_at(contents, position, first_bits=4)
        if kind not in _KINDS and kind not in _DELTAS:
            raise _broken(f"it holds an object of kind {kind}")
        if kind == OFS_DELTA:
            _, after = _number_at(contents, after)
        elif kind == REF_DELTA:
            after += 20
        if size > self._limits.blob_bytes:
            self.skipped += 1
            return self._skip(contents, after, size)
        self._count(size)
        unpacked, following = unpack_object_at(contents, position, hashlib.sha1)
        unpacked.offset = position
        if kind in _KINDS:
            self._add(position, kind, b"".join(unpacked.decomp_chunks))
        else:
            self._resolve(unpacked)
        return following

    def _skip(self, contents: mmap.mmap, position: int, size: int) -> int:
        """Return where the next object begins; what this one holds is unpacked in small pieces and dropped."""
        self._left_to_skip -= size
        if self._left_to_skip < 0:
            raise self._too_large()
        inflate = zlib.decompressobj()
        seen, fed = 0, b""
        while not inflate.eof:
            if not fed:
                fed = contents[position : position + _SKIP_BYTES]
                position += len(fed)
                if not fed or self._stopped():
                    raise _broken("an object is cut off") if not fed else Stopped
            seen += len(inflate.decompress(fed, _SKIP_BYTES))
            fed = inflate.unconsumed_tail
            if seen > size:
                raise _broken("an object is larger than it says")
        return position - len(inflate.unused_data)

    def _count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise self._too_large()

    def _too_large(self) -> TooLarge:
        return TooLarge(
            "repository_too_large",
            f"A repository to import has at most {self._limits.session_bytes:,} bytes; this one has more.",
            next_step="Import a part of it as a zip.",
        )

    def _add(self, offset: int, kind: int, content: bytes) -> None:
        """Keep an object, and everything that waited for it as the base of a delta."""
        ready = [(offset, kind, content)]
        while ready:
            at, kind, content = ready.pop()
            object_id = obj_sha(kind, content)
            self.found[object_id] = self._at[at] = (kind, content)
            for delta in self._for_offset.pop(at, []) + self._for_id.pop(object_id, []):
                made = self._apply(delta, content)
                if made is not None:
                    ready.append((delta.offset or 0, kind, made))

    def _resolve(self, delta: UnpackedObject) -> None:
        """Make an object from a delta, or let the delta wait for its base."""
        offset, named = delta.offset or 0, delta.delta_base
        base = self._at.get(offset - named) if isinstance(named, int) else self.found.get(named or b"")
        if base is not None:
            made = self._apply(delta, base[1])
            if made is not None:
                self._add(offset, base[0], made)
        elif isinstance(named, int):
            self._for_offset[offset - named].append(delta)
        else:
            self._for_id[named or b""].append(delta)

    def _apply(self, delta: UnpackedObject, base: bytes) -> bytes | None:
        """Return what a delta makes of its base, or None when that would be too large to keep."""
        if self._stopped():
            raise Stopped
        steps = b"".join(delta.decomp_chunks)
        _, position = _number_at(steps, 0)
        size, _ = _number_at(steps, position)
        if size > self._limits.blob_bytes:
            self.skipped += 1
            return None
        self._count(size)
        return b"".join(apply_delta(base, steps))


def _number_at(data: bytes | mmap.mmap, position: int, first_bits: int = 7) -> tuple[int, int]:
    """Read a number of seven bits a byte, of which the first may hold fewer; returns it and where the next thing begins.

    A number of more bytes than a size can have is refused, or reading it alone would take forever.
    """
    head = data[position : position + _MOST_NUMBER_BYTES]
    size, shift = 0, 0
    for n, byte in enumerate(head):
        bits = 7 if n else first_bits
        size |= (byte & ((1 << bits) - 1)) << shift
        shift += bits
        if not byte & 0x80:
            return size, position + n + 1
    raise _broken("a number has no end")


def _files(objects: _Objects, commit: bytes, into: str, limits: Limits, *, filtered: bool) -> Checkout:
    made, keys = Checkout(), dict[str, str]()
    for raw, mode, object_id in _entries(objects, _tree_of(objects, commit), limits):
        path = "/".join(filter(None, (into, raw.decode("utf-8", "backslashreplace"))))
        path = unicodedata.normalize("NFC", path)
        content = objects.found.get(object_id)
        problem = _problem(path, raw, mode, content)
        if problem is None and content is None:
            if not objects.skipped and not filtered:
                raise _broken("a file is missing")
            problem = "too_large", f"A file has at most {limits.blob_bytes:,} bytes; this one has more."
        if problem is None and (twin := keys.setdefault(twin_key(path), path)) in made.files:
            problem = "twin", f"It and {twin!r} are one name on many systems."
        if problem is not None or content is None:
            made.left_out.append(LeftOut(path[:_SHOWN], *(problem or ("", ""))))
        else:
            made.files[path] = content[1]
    return made


def _problem(path: str, raw: bytes, mode: int, content: tuple[int, bytes] | None) -> tuple[str, str] | None:
    """Return why no file is made of an entry: a code and words; or None."""
    if stat.S_ISLNK(mode):
        return "symlink", "It is a symbolic link."
    if stat.S_IFMT(mode) == _SUBMODULE:
        return "submodule", "It is a submodule, which is another repository."
    if any(_is_git(part) for part in path.split("/")):
        return "git_folder", "Its name is one that Git keeps for itself."
    if stat.S_ISDIR(mode):
        return "too_deep", f"It is more than {_MOST_FOLDERS} folders deep."
    try:
        raw.decode()
    except UnicodeDecodeError:
        return "path_encoding", "Its name is not UTF-8."
    problem = problem_of(path)
    if problem is not None or content is None:
        return problem
    if content[0] != Blob.type_num:
        raise _broken("a file is not a file")
    if len(content[1]) < _MOST_LFS_BYTES and content[1].startswith(_LFS):
        return "lfs", "Its content is kept elsewhere (Git LFS)."
    return None


def _entries(objects: _Objects, tree: bytes, limits: Limits) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield path, mode and id of everything in a tree that is not a folder to look into, folder by folder.

    A tree may name the same folder again and again, so what is counted is what is walked, not what the pack holds.
    """
    waiting: list[tuple[bytes, bytes]] = [(b"", tree)]
    walked = seen = 0
    while waiting:
        prefix, tree_id = waiting.pop()
        walked += 1
        kind, content = objects.found.get(tree_id, (0, b""))
        if kind != Tree.type_num:
            raise _broken("a folder is missing")
        folders: list[tuple[bytes, bytes]] = []
        for name, mode, hex_id in parse_tree(content, 20):
            path = prefix + name
            folder = stat.S_ISDIR(mode)
            if folder and path.count(b"/") < _MOST_FOLDERS and not _is_git(name.decode("utf-8", "replace")):
                folders.append((path + b"/", bytes.fromhex(hex_id.decode())))
            else:
                seen += 1
                yield path, mode, bytes.fromhex(hex_id.decode())
            if seen > limits.zip_entries or walked + len(waiting) + len(folders) > limits.zip_entries:
                _refuse_many(limits)
        waiting += reversed(folders)


def _tree_of(objects: _Objects, name: bytes) -> bytes:
    """Return the id of a commit's tree; a tag leads to its commit."""
    for _ in range(4):
        kind, content = objects.found.get(bytes.fromhex(name.decode()), (0, b""))
        if kind == Commit.type_num and content.startswith(b"tree "):
            return bytes.fromhex(content[5:45].decode())
        if kind != Tag.type_num or not content.startswith(b"object "):
            break
        name = content[7:47]
    raise _broken("the commit is missing")


def _is_git(part: str) -> bool:
    """Say whether a file system could take a name for `.git`: in any case, shortened, or with marks that it drops."""
    plain = "".join(c for c in part if unicodedata.category(c) != "Cf").partition(":")[0].lower().rstrip(". ")
    return plain in (".git", "git~1")


def _refuse_many(limits: Limits) -> NoReturn:
    raise Invalid(
        "repository_too_many",
        f"A repository to import has at most {limits.zip_entries:,} files and as many folders; this one has more.",
        next_step="Import a part of it as a zip.",
    )
