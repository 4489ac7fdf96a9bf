"""Lays out, once, what every sandbox of this process shows: the agent, a small /etc, tools that nobody else can reach.

All of it is in one folder of this machine, which sandboxes bind read-only: a mount each for what would be dozens, and
Python's code is compiled already, by the Python that will run it. The folder goes when the process ends, and that of a
process that was killed when the next one starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from atelier_runner import bubblewrap
from atelier_runner.agent import AGENT, COMPILED, FOLDER, inside
from atelier_runner.bubblewrap import Shown

PREFIX = "atelier-tools-"
COMPILE_SECONDS = 30
# What is imported is taken without a look at its source; the agent itself lies beside it, where it can be started.
COMPILER = f"""
import os, sys
from py_compile import PycInvalidationMode, compile
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        here = os.path.join(folder, name)
        there = {FOLDER!r} + here[len(sys.argv[1]):]
        target = here + "c" if there == {AGENT!r} else None
        compile(here, target, there, doraise=True, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
"""


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """Make the folder; also removes those of servers that were killed."""
    base = Path(tempfile.gettempdir())
    for old in base.glob(f"{PREFIX}*-*"):
        pid = old.name.removeprefix(PREFIX).split("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    # What cleans /tmp of old files (systemd-tmpfiles) leaves alone what is locked.
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        folder.chmod(0o755)
        yield folder
    finally:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def lay_out(folder: Path, python: str, agent: bytes | None = None) -> Shown:
    """Write all files beneath `folder`; `python` is the interpreter of this machine that sandboxes have."""
    atelier, etc = folder / "atelier", folder / "etc"
    for path, source in inside(agent).items():
        _write(atelier / Path(path).relative_to(FOLDER), source)
    for path, text in bubblewrap.ETC.items():
        _write(etc / Path(path).relative_to("/etc"), text.encode())
    (etc / Path(bubblewrap.ETC_BOUND).relative_to("/etc")).mkdir()
    for pattern in bubblewrap.ETC_SHOWN:
        for found in map(Path, glob.glob(pattern)):
            _copy(found, etc / found.relative_to("/etc"))
    compiled = _compile(python, atelier)
    _open_to_all(folder)
    return Shown(str(atelier), str(etc), COMPILED if compiled else AGENT)


def _compile(python: str, atelier: Path) -> bool:
    try:
        subprocess.run(
            [python, "-I", "-S", "-c", COMPILER, str(atelier)], env={}, cwd="/", check=True, capture_output=True,
            stdin=subprocess.DEVNULL, timeout=COMPILE_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _copy(source: Path, target: Path) -> None:
    """Copy what every user may read here; links inside a folder stay links, and lead where the sandbox has something or nothing."""
    with contextlib.suppress(OSError, shutil.Error):
        if not _is_public(source):
            return
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=_secret)
        else:
            shutil.copyfile(source, target)


def _is_public(path: Path) -> bool:
    status = path.stat()
    wanted = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(status.st_mode) else 0)
    return status.st_mode & wanted == wanted and (
        stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)
    )


def _secret(folder: str, names: list[str]) -> list[str]:
    """Return those in a folder that are not for everybody, or no files."""
    here = Path(folder)
    return [name for name in names if not (here / name).is_symlink() and not _is_public(here / name)]


def _open_to_all(folder: Path) -> None:
    """Let every user read, whatever this process' mask is."""
    for path, _folders, names in os.walk(folder):
        os.chmod(path, 0o755)
        for name in names:
            if not os.path.islink(file := os.path.join(path, name)):
                os.chmod(file, 0o644)
