"""PostgreSQL and Redis as Atelier needs them, from Debian's packages: each on a port of its own and in a folder.

`deploy/cluster`, the tests and the benches start them from here.
"""

from __future__ import annotations

import glob
import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from subprocess import DEVNULL

_WAIT_SECONDS = 30


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Store(ABC):
    """A program that keeps data in a folder and listens on a port: `command` runs it, `answers` says that it does."""

    command: list[str]

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder, self.port = folder, port or free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def answers(self) -> bool:
        """Say whether it takes work now."""

    def start(self, prefix: Sequence[str] = ()) -> None:
        """Run it, behind the words of `prefix`, until it answers.

        Raises:
            RuntimeError: it ends, or does not answer within half a minute.
        """
        self.process = subprocess.Popen([*prefix, *self.command], cwd="/", stdout=DEVNULL, stderr=DEVNULL)
        end = time.monotonic() + _WAIT_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.command[0]} did not start")
            time.sleep(0.02)

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it, by default as a power cut would, and wait until it has ended."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(20)
            self.process = None


class Postgres(Store):
    """PostgreSQL; its data is made when the folder has none. It refuses to run as root: there, as its package's user."""

    @staticmethod
    def binaries() -> Path | None:
        """Find the newest version that is installed."""
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        return Path(found[-1]) if found else None

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(folder, port)
        binaries = self.binaries()
        if binaries is None:
            raise RuntimeError("PostgreSQL is missing: apt-get install postgresql")
        data, low = folder / "data", []
        if os.geteuid() == 0:
            low = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            for parent in (folder, *folder.parents[:3]):
                parent.chmod(parent.stat().st_mode | 0o011)
        self._ready = [str(binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-t", "1"]
        self.url = f"postgresql://atelier@127.0.0.1:{self.port}"
        self.command = [
            *low, str(binaries / "postgres"), "-D", str(data), "-p", str(self.port), "-h", "127.0.0.1", "-k", "",
            "-c", "max_connections=100",
        ]  # fmt: skip
        if not (data / "PG_VERSION").exists():
            data.mkdir()
            if low:
                shutil.chown(data, "postgres", "postgres")
            make = ["-D", str(data), "-U", "atelier", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8"]
            subprocess.run(
                [*low, str(binaries / "initdb"), *make], check=True, cwd="/", stdout=DEVNULL, stderr=DEVNULL
            )

    def answers(self) -> bool:
        """Say whether it takes connections: while it recovers from a crash it does not."""
        return subprocess.run(self._ready, check=False, stdout=DEVNULL, stderr=DEVNULL).returncode == 0

    def say(self, sql: str) -> str:
        """Run one statement; returns what it prints."""
        ask = ["psql", "-qAtc", sql, f"{self.url}/postgres"]
        return subprocess.run(ask, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def database(self, name: str) -> str:
        """Return the address of a database, which is made when there is none of this name."""
        if not self.say(f"select 1 from pg_database where datname = '{name}'"):
            self.say(f"create database {name}")
        return f"{self.url}/{name}"


class Redis(Store):
    """Redis as the document log needs it: every edit is synced before it answers, and nothing is evicted."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(folder, port)
        if shutil.which("redis-server") is None:
            raise RuntimeError("Redis is missing: apt-get install redis-server")
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.command = [
            "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder),
            "--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction",
        ]  # fmt: skip

    def answers(self) -> bool:
        """Say whether it answers: while it reads its file it does not."""
        return self.say("PING") == b"+PONG\r\n"

    def say(self, *words: str) -> bytes:
        """Send one command; returns the beginning of the raw answer, or nothing when there is none."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as line:
                line.sendall(" ".join(words).encode() + b"\r\n")
                return line.recv(4096)
        except OSError:
            return b""
