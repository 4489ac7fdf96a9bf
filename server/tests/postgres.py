"""A real PostgreSQL for the tests: made in a scratch folder, started once, ended by its own process id."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
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


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a running server, without a database's name."""
    binaries = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    if not binaries:
        assert os.environ.get("CI") != "true", "PostgreSQL is missing"
        pytest.skip("PostgreSQL is missing: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="atelier-postgres-"))
    folder.chmod(0o777)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    subprocess.run(
        as_user(Path(binaries[-1], "initdb"), "-D", data, "-U", "atelier", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8"),
        check=True, cwd="/", stdout=DEVNULL, stderr=DEVNULL,
    )  # fmt: skip
    server = subprocess.Popen(
        as_user(Path(binaries[-1], "postgres"), "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-c", "max_connections=60"),
        cwd="/", stdout=DEVNULL, stderr=DEVNULL,
    )  # fmt: skip
    try:
        ready: list[str | Path] = [
            Path(binaries[-1], "pg_isready"),
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
            "-t",
            "1",
        ]
        for _ in range(300):
            if subprocess.run(ready, check=False, stdout=DEVNULL, stderr=DEVNULL).returncode == 0:
                break
            assert server.poll() is None, "PostgreSQL did not start"
        yield f"postgresql://atelier@127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str, tmp_path: Path) -> Iterator[str]:
    """An empty database of its own."""
    name = f"t{abs(hash(str(tmp_path))):x}"
    psql = ["psql", "-q", f"{postgres_server}/postgres", "-c"]
    subprocess.run([*psql, f"create database {name}"], check=True)
    yield f"{postgres_server}/{name}"
    subprocess.run([*psql, f"drop database {name} with (force)"], check=True)
