"""A real PostgreSQL for the tests: made in a scratch folder, started once, ended by its own process id."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL

import pytest

USER = "postgres"


def as_user(*command: str | Path) -> list[str]:
    """PostgreSQL refuses to run as root, so a root runs it as the user that its package made."""
    words = [str(word) for word in command]
    return (
        ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *words]
        if os.geteuid() == 0
        else words
    )


class PostgresServer:
    """One PostgreSQL on a port of its own; it can be ended as a crash would end it, and started again on its data."""

    def __init__(self, folder: Path) -> None:
        binaries = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        self._binaries, self._folder, self._data = Path(binaries[-1]), folder, folder / "data"
        folder.chmod(0o777)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"postgresql://atelier@127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        subprocess.run(
            as_user(self._binaries / "initdb", "-D", self._data, "-U", "atelier", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8"),
            check=True, cwd="/", stdout=DEVNULL, stderr=DEVNULL,
        )  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(
            as_user(self._binaries / "postgres", "-D", self._data, "-p", str(self.port), "-h", "127.0.0.1", "-k", self._folder, "-c", "max_connections=60"),
            cwd="/", stdout=DEVNULL, stderr=DEVNULL,
        )  # fmt: skip
        ready: list[str | Path] = [
            self._binaries / "pg_isready",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-t",
            "1",
        ]
        for _ in range(300):
            if subprocess.run(ready, check=False, stdout=DEVNULL, stderr=DEVNULL).returncode == 0:
                return
            assert self._process.poll() is None, "PostgreSQL did not start"
            time.sleep(0.02)

    def crash(self) -> None:
        """End it without a checkpoint, so that its next start recovers from its log."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(20)

    def create(self, name: str) -> str:
        """Make a database; returns its address."""
        subprocess.run(["psql", "-q", f"{self.url}/postgres", "-c", f"create database {name}"], check=True)
        return f"{self.url}/{name}"


@contextmanager
def postgres(prefix: str = "atelier-postgres-") -> Iterator[PostgresServer]:
    """Run a PostgreSQL in a scratch folder."""
    if not glob.glob("/usr/lib/postgresql/*/bin"):
        assert os.environ.get("CI") != "true", "PostgreSQL is missing"
        pytest.skip("PostgreSQL is missing: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    server = PostgresServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a running server, without a database's name."""
    with postgres() as server:
        yield server.url


@pytest.fixture
def postgres_url(postgres_server: str, tmp_path: Path) -> Iterator[str]:
    """An empty database of its own."""
    name = f"t{abs(hash(str(tmp_path))):x}"
    psql = ["psql", "-q", f"{postgres_server}/postgres", "-c"]
    subprocess.run([*psql, f"create database {name}"], check=True)
    yield f"{postgres_server}/{name}"
    subprocess.run([*psql, f"drop database {name} with (force)"], check=True)
