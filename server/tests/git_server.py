"""A real Git server for the tests: Git's own program behind https on loopback, with a certificate made for it.

Answers of another kind (redirects, drips, nonsense) are given by paths that a test sets in `GitServer.odd`.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

_IDENTITY = {
    **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "Ada"), ("EMAIL", "ada@example.com"), ("DATE", "2024-01-01T00:00:00Z"))},
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
}  # fmt: skip


def git(folder: Path, *words: str, stdin: bytes = b"") -> bytes:
    """Run git in a folder; returns what it printed."""
    done = subprocess.run(
        ["git", *words], cwd=folder, input=stdin, env={**os.environ, **_IDENTITY}, check=True, capture_output=True
    )  # fmt: skip
    return done.stdout.strip()


class GitServer:
    """Serves the repositories of one folder; `ca` is the file of the certificate to trust."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"
        self.requests: list[tuple[str, str]] = []
        """Method and path of each request."""
        self.odd: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.port = self._server.server_port
        self._context = context

    @property
    def host(self) -> str:
        """As the setting lists it."""
        return f"localhost:{self.port}"

    def url(self, name: str) -> str:
        """The address of a repository."""
        return f"https://{self.host}/{name}"

    def repository(self, name: str, files: Mapping[str, bytes], *, branch: str = "main") -> Path:
        """Make a repository with one commit; returns its folder."""
        folder = self.folder / name
        folder.mkdir()
        git(folder, "init", "-q", "-b", branch)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "--allow-empty", "-m", "one")
        return folder

    @contextmanager
    def running(self) -> Iterator[GitServer]:
        """Serve until the block ends."""
        with self._server:
            serving = threading.Thread(target=self._server.serve_forever, args=(0.05,))
            serving.start()
            try:
                yield self
            finally:
                self._server.shutdown()
                serving.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def setup(self) -> None:
                # In this connection's own thread, so that a client that is slow to greet holds up nobody.
                self.request = outer._context.wrap_socket(self.request, server_side=True)
                super().setup()

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    self.close_connection = True  # the client gave up, which some tests want

            def finish(self) -> None:
                try:
                    super().finish()
                except (OSError, ValueError):
                    pass
                self.request.close()

            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def _answer(self) -> None:
                outer.requests.append((self.command, self.path))
                odd = outer.odd.get(self.path.partition("?")[0])
                if odd is not None:
                    odd(self)
                    return
                path, _, query = self.path.partition("?")
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                done = subprocess.run(
                    ["git", "http-backend"],
                    input=body,
                    capture_output=True,
                    check=True,
                    env={
                        **os.environ,
                        **_IDENTITY,
                        "GIT_PROJECT_ROOT": str(outer.folder),
                        "GIT_HTTP_EXPORT_ALL": "1",
                        "GIT_CONFIG_COUNT": "2",
                        "GIT_CONFIG_KEY_0": "safe.directory",
                        "GIT_CONFIG_VALUE_0": "*",
                        "GIT_CONFIG_KEY_1": "uploadpack.allowFilter",
                        "GIT_CONFIG_VALUE_1": "true",
                        "REQUEST_METHOD": self.command,
                        "PATH_INFO": path,
                        "QUERY_STRING": query,
                        "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                        "CONTENT_LENGTH": str(len(body)),
                        "REMOTE_ADDR": "127.0.0.1",
                    },
                )
                head, _, content = done.stdout.partition(b"\r\n\r\n")
                headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
                self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                return

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that hangs up, which some tests want; anything else is a mistake of the server."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    """A running server without repositories."""
    folder = tmp_path / "repositories"
    folder.mkdir()
    with GitServer(folder).running() as server:
        yield server
