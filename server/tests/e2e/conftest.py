"""A real server and a real Chromium; each person is a browser context of their own."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

ATELIER = Path(sys.executable).parent / "atelier"
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# The driver's own Node needs a system library that a bare machine lacks; the environment's does not.
os.environ.setdefault("PLAYWRIGHT_NODEJS_PATH", str(Path(sys.executable).parent / "node"))
expect.set_options(timeout=10_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser on a loaded machine now and then gives up by itself: its test is tried once more, and that is reported."""
    for item in items:
        if item.get_closest_marker("e2e"):
            item.add_marker(pytest.mark.flaky(reruns=1))


class Server:
    """`atelier serve` on one port and folder, which a test may kill and start again."""

    def __init__(self, data: Path, **environment: str) -> None:
        self._environment = environment
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.data = data
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start and wait for the first answer."""
        with (self.data / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                [ATELIER, "serve", "--port", str(self.port), "--data", str(self.data)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={
                    **os.environ,
                    "ATELIER_LIMIT_GUESTS_PER_HOUR": "100000",
                    "ATELIER_LIMIT_LOG_INS_PER_MINUTE": "1000",
                    **self._environment,
                },
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert "ready" in line, (self.data / "server.log").read_text()[-3000:]
        with urllib.request.urlopen(f"{self.url}/healthz", timeout=5) as answer:
            assert answer.status == 200

    def kill(self) -> None:
        """End the process at once, as a power cut of the process would."""
        self._end(signal.SIGKILL)

    def allow_files_of(self, size: int) -> None:
        """Let the process write no file beyond `size` bytes, as if the disk were full; -1: any size again."""
        assert self._process is not None
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def stop(self) -> None:
        """Ask the process to end and wait for it."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server for the tests of one module."""
    running = Server(tmp_path_factory.mktemp("data"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the tests of one module; while Playwright is open, no asynchronous test can run beside it."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        assert os.environ.get("CI") != "true", "Chromium is missing"
        pytest.skip("Chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


Person = Callable[..., Page]


@pytest.fixture
def person(browser: Browser) -> Iterator[Person]:
    """Make people: each call is a new browser profile with one page; page errors fail the test."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def make(**options: object) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})  # type: ignore[arg-type]
        contexts.append(context)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        return page

    yield make
    for context in contexts:
        context.close()
    assert not errors, errors
