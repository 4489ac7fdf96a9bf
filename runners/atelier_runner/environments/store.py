"""Environments on disk: under names that nobody can guess, put in place whole, bounded, the least lately used gone first.

    FOLDER/lock       held by the one process that uses it
    FOLDER/key        with which names are made
    FOLDER/shelf/     what every sandbox sees at /environments; can be passed through, not listed
    FOLDER/staging/   what is being built, and what is being removed
    FOLDER/records/   one file for each environment, written when it is safely on disk; its time is the last use

Opening it removes what is on the shelf without a record, or half built: a server was killed, or lost its power. The methods
block; all but `sync`, `discard` and `sweep` do so for microseconds.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atelier_runner.model import MIB

SHELF_MODE = 0o311
"""Passed through by everybody, listed by nobody, not even by a sandbox that is this process's own user."""
PREFIX = "atelier-environments-"


class Store:
    """One folder of environments. Made by `open_store`."""

    def __init__(self, folder: Path, most_mb: int) -> None:
        self.shelf = folder / "shelf"
        self._staging = folder / "staging"
        self._records = folder / "records"
        self._most = most_mb * MIB
        self._key = _kept_key(folder / "key")
        self._sizes: dict[str, int] = {}
        """By name, the least lately used first."""
        self._held: Counter[str] = Counter()

    def sweep(self) -> None:
        """Make the folders, remove what is not whole, and learn what there is."""
        for place in (self.shelf, self._staging, self._records):
            place.mkdir(mode=0o700, exist_ok=True)
        _removed(self._staging)
        self._staging.mkdir(0o700)
        known = []
        for record in self._records.iterdir():
            try:
                size = int(json.loads(record.read_text())["size"])
                known.append((record.stat().st_mtime_ns, record.name, size))
            except (OSError, ValueError, KeyError, TypeError):
                record.unlink(missing_ok=True)
        self.shelf.chmod(0o700)
        there = set(os.listdir(self.shelf))
        self._sizes = {name: size for _, name, size in sorted(known) if name in there}
        for name in there - self._sizes.keys():
            _removed(self.shelf / name)
        for _, name, _ in known:
            if name not in there:
                (self._records / name).unlink()
        self.shelf.chmod(SHELF_MODE)

    def name(self, what: Mapping[str, Any]) -> str:
        """Return the name of an environment with this content."""
        text = json.dumps(what, sort_keys=True).encode()
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()[:40]

    def hold(self, name: str) -> bool:
        """Keep an environment from being removed; says whether it is there. Call `let_go` as often."""
        if name not in self._sizes:
            return False
        self._held[name] += 1
        self._sizes[name] = self._sizes.pop(name)
        try:
            os.utime(self._records / name)
        except FileNotFoundError:
            pass  # not synced yet
        return True

    def let_go(self, name: str) -> None:
        """Nobody of this call uses it any more."""
        self._held[name] -= 1
        if not self._held[name]:
            del self._held[name]

    def stage(self) -> Path:
        """Return a new folder to build in."""
        return Path(tempfile.mkdtemp(dir=self._staging))

    def keep(self, name: str, staged: Path, size: int) -> None:
        """Put what was built in place, in one step."""
        staged.chmod(0o755)
        staged.rename(self.shelf / name)
        self._sizes[name] = size

    def sync(self, name: str) -> None:
        """Let it survive a power cut: its files first, then the record without which it is removed."""
        handle = os.open(self.shelf / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(handle):
                os.sync()
        finally:
            os.close(handle)
        beside = self._staging / f"record-{name}"
        with beside.open("w") as file:
            json.dump({"size": self._sizes.get(name, 0)}, file)
            file.flush()
            os.fsync(file.fileno())
        if name in self._sizes:
            beside.rename(self._records / name)

    def evict(self) -> list[Path]:
        """Take what was used least lately off the shelf until the rest fits; returns what is to be discarded.

        What somebody uses stays, so for a moment there may be more than the bound.
        """
        gone = []
        total = sum(self._sizes.values())
        for name in list(self._sizes):
            if total <= self._most:
                break
            if name not in self._held:
                total -= self._sizes.pop(name)
                (self._records / name).unlink(missing_ok=True)
                place = self._staging / f"gone-{secrets.token_hex(8)}"
                (self.shelf / name).rename(place)
                gone.append(place)
        return gone

    def discard(self, place: Path) -> None:
        """Remove a folder of the staging area."""
        _removed(place)

    @property
    def size(self) -> tuple[int, int]:
        """How many environments there are, and their bytes."""
        return len(self._sizes), sum(self._sizes.values())


@contextmanager
def open_store(folder: Path | None, most_mb: int) -> Iterator[Store]:
    """Open a folder of environments; None: one of this process, which is removed with it. One that was made here and in
    which nothing was kept goes too.

    Raises:
        ValueError: another process uses it.
    """
    place = _temporary() if folder is None else folder
    passing = folder is None or not folder.exists()
    place.mkdir(mode=0o711, parents=True, exist_ok=True)
    place.chmod(0o711)
    lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    store: Store | None = None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another runner keeps its environments in {place}; give each its own") from None
        store = Store(place, most_mb)
        store.sweep()
        yield store
    finally:
        if passing and (folder is None or (store is not None and store.size == (0, 0))):
            _removed(place)
        os.close(lock)


def _temporary() -> Path:
    """Make a folder of this process; also removes those of processes that were killed."""
    base = Path(tempfile.gettempdir())
    for old in base.glob(f"{PREFIX}*-*"):
        pid = old.name.removeprefix(PREFIX).split("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            _removed(old)
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))


def _removed(place: Path) -> None:
    """Remove a folder, and what in it may not be listed."""
    shelf = place / "shelf"
    if shelf.is_dir() and not shelf.is_symlink():
        shelf.chmod(0o700)
    shutil.rmtree(place, ignore_errors=True)


def _kept_key(path: Path) -> bytes:
    """Return the key kept in `path`, made on first use and readable by the owner alone."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        if len(key := path.read_bytes()) == 32:
            return key
        path.unlink()  # half written: names of before mean nothing any more
        return _kept_key(path)
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(32))
        file.flush()
        os.fsync(file.fileno())
    return path.read_bytes()
