"""A real Redis for the tests, as the document log needs it: started once, ended by its own process id."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class RedisServer:
    """One Redis on a port of its own; it can be killed and started again on its data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.process = subprocess.Popen(
            [
                "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
                "--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction",
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 20
        while self.command("PING") != b"+PONG\r\n":
            assert self.process.poll() is None and time.monotonic() < end, "Redis did not start"
            time.sleep(0.02)

    def command(self, *words: str) -> bytes:
        """Send one command; returns the beginning of the raw answer, or nothing when there is none."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as line:
                line.sendall(" ".join(words).encode() + b"\r\n")
                return line.recv(4096)
        except OSError:
            return b""

    def kill(self) -> None:
        """End it as a power cut would end it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)


@contextmanager
def redis() -> Iterator[RedisServer]:
    """Run a Redis in a scratch folder."""
    if shutil.which("redis-server") is None:
        assert os.environ.get("CI") != "true", "Redis is missing"
        pytest.skip("Redis is missing: apt-get install redis-server")
    folder = Path(tempfile.mkdtemp(prefix="atelier-redis-"))
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A running Redis."""
    with redis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty Redis."""
    assert redis_server.command("FLUSHALL") == b"+OK\r\n"
    return redis_server.url
