"""A runner service for the tests: a process of its own, killed, stopped and started anew as they like."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from deploy.stores import free_port

SECRET = "a secret of the tests"


class RunnerService:
    """`python -m atelier_runner serve` on one port."""

    def __init__(self, *arguments: str, under: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._arguments = arguments
        self._under = under
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(
            [
                *self._under,
                *(sys.executable, "-m", "atelier_runner", "serve", "--listen", f"127.0.0.1:{self.port}"),
                *self._arguments,
            ],
            stdout=subprocess.PIPE,
            env={**os.environ, "ATELIER_RUNNER_SECRET": SECRET},
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith(b"The runner is ready"), line

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it."""
        if self._process is not None:
            self._process.send_signal(number)

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it and wait until it has ended."""
        if self._process is not None and self._process.stdout is not None:
            self._process.send_signal(how)
            self._process.wait(20)
            self._process.stdout.close()
            self._process = None


@contextmanager
def runner_service(*arguments: str, under: Sequence[str] = ()) -> Iterator[RunnerService]:
    """Run one, `under` another program if need be."""
    service = RunnerService(*arguments, under=under)
    service.start()
    try:
        yield service
    finally:
        service.send(signal.SIGCONT)
        service.end(signal.SIGTERM)
