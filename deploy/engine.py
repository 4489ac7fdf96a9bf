"""A Docker engine for the tests, from Debian's packages, with a Debian image of its own and without any registry.

    python -m deploy.engine prepare [LANGUAGE…]     once, about a minute; `make test` does it
    python -m deploy.engine prepare all             the images of the whole catalogue, a few gigabytes

What it made (a base system, the images) stays in the user's cache folder, so that the next start takes a second.
Whoever needs the engine holds a lock while it does: the first starts it, the last ends it, and one that a killed
process has left is found again. It makes no network interface and no firewall rule, and needs root.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from atelier_runner.docker_engine import Engine
from atelier_runner.images import build
from atelier_runner.languages import read_catalogue

BASE = "debian:bookworm-slim"
TESTED = ("python", "bash", "c")
"""Small and quick to build; the tests of the other languages run where their images are."""
_WAIT_SECONDS = 30
_ALIVE_SECONDS = 3
"""By then it has written down its process id, if it started at all."""
# What lets package clients in a container reach the mirrors that this machine's reach.
_CLIENTS = ("/etc/apt/apt.conf.d", "/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")


_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


class Missing(RuntimeError):
    """There is no engine here, and none can be started."""


class Refused(Missing):
    """The engine is here, and this machine does not let it work."""


def folder() -> Path:
    """Return where it keeps everything."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "atelier-tests", "engine")


@contextmanager
def engine() -> Iterator[str]:
    """Share the engine for a while; yields its socket's path.

    Raises:
        Missing: its packages are not here, this is not root, or (Refused) it ends at once.
    """
    home = folder()
    home.mkdir(parents=True, exist_ok=True)
    path = str(home / "docker.sock")
    with open(home / "changing", "w") as changing, open(home / "users", "w") as users:
        with _locked(changing):
            if not _answers(path):
                _start(home, path)
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield path
        finally:
            with _locked(changing):
                fcntl.flock(users, fcntl.LOCK_UN)
                if _alone(users):
                    _end(home)


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": _PATH}


@contextmanager
def _locked(file: IO[str]) -> Iterator[None]:
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _alone(users: IO[str]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _answers(path: str) -> bool:
    ask = ["docker", "-H", f"unix://{path}", "version"]
    return os.path.exists(path) and subprocess.run(ask, check=False, capture_output=True).returncode == 0


def _start(home: Path, path: str) -> None:
    if missing := [name for name in ("dockerd", "docker") if shutil.which(name, path=_PATH) is None]:
        raise Missing(f"{missing[0]} is missing: apt-get install docker.io debootstrap")
    if os.geteuid() != 0:
        raise Missing("a Docker engine of the tests' own needs root")
    shutil.rmtree(home / "exec", ignore_errors=True)
    command = [
        "dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--data-root", str(home / "data"),
        "--exec-root", str(home / "exec"), "--pidfile", str(home / "pid"), "-H", f"unix://{path}",
    ]  # fmt: skip
    with open(home / "log", "w") as log:  # it may outlive the process that starts it
        subprocess.run(
            ["setsid", "--fork", *command], check=True, cwd="/", env=_environment(), stdout=log, stderr=log
        )
    begun = time.monotonic()
    while not _answers(path):
        waited = time.monotonic() - begun
        if waited > _WAIT_SECONDS or (waited > _ALIVE_SECONDS and not (home / "pid").exists()):
            _end(home)
            said = (home / "log").read_text(errors="replace")[-600:]
            refused = any(word in said.lower() for word in ("not permitted", "permission denied", "cgroup"))
            raise (Refused if refused else RuntimeError)(f"dockerd did not start: {said}")
        time.sleep(0.05)


def _running(home: Path) -> int | None:
    """Return a handle of this folder's engine, whoever started it."""
    try:
        pid = int((home / "pid").read_text())
        handle = os.pidfd_open(pid)
        if str(home).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            return handle
    except (OSError, ValueError):
        return None
    os.close(handle)
    return None


def _end(home: Path) -> None:
    """End this folder's engine, and wait until it has ended."""
    if (handle := _running(home)) is None:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        ended.poll(_WAIT_SECONDS * 1000)
    finally:
        os.close(handle)
    for line in Path("/proc/self/mounts").read_text().splitlines():  # it leaves a network namespace's
        if (place := line.split(" ")[1]).startswith(f"{home}/exec/"):
            subprocess.run(["umount", place], check=False, capture_output=True)


def prepare(path: str, languages: Sequence[str] = TESTED) -> None:
    """Make the base image and those of the languages, unless they are there."""
    with open(folder() / "preparing", "w") as preparing, _locked(preparing):
        _prepare(path, languages)


def _prepare(path: str, languages: Sequence[str]) -> None:
    docker = ["docker", "-H", f"unix://{path}"]
    # One that was made otherwise is made anew.
    made = f"atelier.base={hashlib.sha256(inspect.getsource(_base).encode()).hexdigest()[:16]}"
    known = [*docker, "images", "-q", "--filter", f"label={made}", BASE]
    if not subprocess.run(known, check=True, capture_output=True).stdout:
        with tempfile.TemporaryDirectory(prefix="atelier-base-") as scratch:
            root = _base(Path(scratch, "root"))
            tar = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
            load = [*docker, "import", "--change", f"LABEL {made}", "-", BASE]
            subprocess.run(load, check=True, stdin=tar.stdout, capture_output=True)
            if tar.wait():
                raise RuntimeError("tar failed")
    connection = Engine(path)
    for language in languages:
        build(connection, language, network="host")
    connection.close()


def _base(root: Path) -> Path:
    """Bootstrap a small Debian, and let its package clients reach what this machine's do."""
    if shutil.which("debootstrap", path=_PATH) is None:
        raise Missing("debootstrap is missing: apt-get install debootstrap")
    sites = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)", "Identifier: Packages"],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    mirror = min((site for site in set(sites) if "security" not in site and "debian" in site), default="")
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", "bookworm", str(root), *([mirror] if mirror else [])],
        check=False, capture_output=True, text=True, env=_environment(),
    )  # fmt: skip
    if made.returncode:
        raise RuntimeError(f"debootstrap failed: {made.stdout[-600:]}")
    for part in _CLIENTS:
        source, target = Path(part), root / part.lstrip("/")
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True)
        elif source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    # A package that brings certificates makes the file anew, from these.
    bundle, anchors = Path("/etc/ssl/certs/ca-certificates.crt"), root / "usr/local/share/ca-certificates"
    if bundle.exists():
        anchors.mkdir(parents=True, exist_ok=True)
        shutil.copy(bundle, anchors / "machine.crt")
    for cached in (root / "var/cache/apt/archives").glob("*.deb"):
        cached.unlink()
    return root


def main(words: Sequence[str]) -> int:
    """Serve the command line."""
    if not words or words[0] != "prepare":
        sys.stderr.write(f"{__doc__}\n")
        return 2
    languages = tuple(read_catalogue()) if words[1:] == ["all"] else tuple(words[1:]) or TESTED
    try:
        with engine() as path:
            prepare(path, languages)
    except Missing as error:
        sys.stderr.write(f"No Docker engine: {error}\n")
        return 0 if isinstance(error, Refused) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
