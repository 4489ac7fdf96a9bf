"""PostgreSQL and Redis for benches: real ones, in a scratch folder, on the load's core; ended by their process ids."""

from __future__ import annotations

import glob
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL
from urllib.parse import quote

from bench.hub.servers import LOAD_CORE

_LOW = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _until(port: int) -> None:
    for _ in range(600):
        if _listening(port):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on {port}")


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run PostgreSQL; gives the address of a database."""
    binaries, port, data = (
        Path(sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]),
        _port(),
        folder / "postgres",
    )
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o011)
    data.mkdir()
    if _LOW:
        subprocess.run(["chown", "postgres", data], check=True)
    make = [
        str(binaries / "initdb"),
        "-D",
        str(data),
        "-U",
        "atelier",
        "--auth=trust",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
    ]
    subprocess.run([*_LOW, *make], check=True, cwd="/", stdout=DEVNULL)
    serve = [str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", ""]
    server = subprocess.Popen(
        ["taskset", "-c", LOAD_CORE, *_LOW, *serve], cwd="/", stdout=DEVNULL, stderr=DEVNULL
    )
    try:
        _until(port)
        time.sleep(0.5)
        address = f"postgresql://atelier@127.0.0.1:{port}"
        for _ in range(50):
            ask = ["psql", "-qc", "create database bench", f"{address}/postgres"]
            if subprocess.run(ask, check=False, stderr=DEVNULL).returncode == 0:
                break
            time.sleep(0.2)
        yield f"{address}/bench"
    finally:
        server.terminate()
        server.wait(20)


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run Redis, synced before it answers; gives its address. Its process id is in `redis.pid`."""
    port, data = _port(), folder / "redis"
    data.mkdir()
    words = [
        "redis-server",
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(data),
        "--appendonly",
        "yes",
    ]
    words += ["--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction"]
    server = subprocess.Popen(["taskset", "-c", LOAD_CORE, *words], stdout=DEVNULL)
    (folder / "redis.pid").write_text(str(server.pid))
    try:
        _until(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(20)


@contextmanager
def settings(store: str, folder: Path) -> Iterator[dict[str, str]]:
    """Give the settings of a server whose log is `sqlite`, `postgresql` or `redis`."""
    if store == "sqlite":
        yield {}
        return
    with postgres(folder) as database:
        if store == "postgresql":
            yield {"ATELIER_DB_URL": database, "ATELIER_LOG_URL": database}
            return
        with redis(folder) as address:
            yield {
                "ATELIER_DB_URL": database,
                "ATELIER_LOG_URL": f"{address}?archive={quote(database, safe='')}",
                "ATELIER_BUS_URL": address,
                "ATELIER_SECRET_KEY": "s" * 40,
                "ATELIER_BLOBS_URL": f"file://{folder / 'blobs'}",
            }
