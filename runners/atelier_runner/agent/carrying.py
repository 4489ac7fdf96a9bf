"""The agent's parent side while a program runs: between the host's stream and the program's own, until it has ended.

Standard library only, no import beyond what a fork of it may cost, like the agent, beside which it lies.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # the module itself brings enum along
import os
import select
import time
from _struct import Struct

import collect  # type: ignore[import-not-found]
import plain_json  # type: ignore[import-not-found]
from placing import Placing  # type: ignore[import-not-found]
from stream import CHUNK, HEADER, send  # type: ignore[import-not-found]

TYPE_CHECKING = False  # importing costs, typing too
if TYPE_CHECKING:
    from cells import Cells  # type: ignore[import-not-found]
    from network import Network  # type: ignore[import-not-found]

PATH_SIZE = Struct(">H")
WINDOW = Struct(">HH")
PENDING_STDIN = 1024 * 1024  # beyond this the host is no longer read until the program has read
LOOK_SECONDS = 0.02  # between two looks at what is used, where the host asks
GROWN = 8 * 1024 * 1024  # bytes more than were said last are said at once
WORK = "/work"


class Carrier:
    """The parent's side: host frames to the program's stdin, its output to the host, until it ends.

    With a terminal, its master is both the program's stdin and its one output.
    """

    def __init__(
        self,
        pid: int,
        stdin: int,
        outputs: dict[int, tuple[bytes, bytes]],
        wakeup: int,
        stage: tuple[int, int],
        wanted: dict | None,
        laid: collect.Laid,
        network: Network | None,
        every: float,
    ) -> None:
        self.network = network
        self.pid = pid
        self.stdin = stdin
        self.outputs = outputs
        self.terminal = stdin in outputs
        self.marks, self.gate = stage
        self.unbuilt = False
        self.staged = False
        self.wanted = wanted
        self.laid = laid
        self.cells: Cells | None = None  # in a kept interpreter: who hands it cells
        self.wakeup = wakeup
        self.incoming = bytearray()
        self.placing: Placing | None = None
        self.pending = bytearray()
        self.closing = False
        self.status: int | None = None
        self.every = every
        self.said = self.looked = time.monotonic()
        self.told = 0
        self.base = 0.0
        if every:
            self.base = self.used()["cpu"]

    def used(self) -> dict:
        """Return what is used here altogether, since the program began."""
        from usage import used  # type: ignore[import-not-found]

        found: dict = used()
        found["cpu"] -= self.base
        return found

    def report(self, *, now: bool = False) -> None:
        """Say what is used, as often as a host wants that cannot count it, and when much more is; `now`: in any case."""
        moment = time.monotonic()
        if not self.every or not (now or moment - self.looked >= LOOK_SECONDS):
            return
        self.looked = moment
        found = self.used()
        if now or moment - self.said >= self.every or found["memory"] - self.told > GROWN:
            send(b"U", plain_json.dumps(found))
            self.said, self.told = moment, found["memory"]

    def run(self, *, alone: bool) -> None:
        """Carry until the program has ended and what it printed has been sent; `alone`: and nothing else runs."""
        while self.status is None:
            poller = select.poll()
            heard = -1 if self.cells is None or self.cells.closed else self.cells.handle
            for handle in (*self.outputs, self.wakeup, self.marks, heard):
                if handle >= 0:
                    poller.register(handle, select.POLLIN)
            # With a network nothing that comes exceeds its window, and input that nobody reads must not hold up the rest.
            if self.network is not None or len(self.pending) < PENDING_STDIN:
                poller.register(0, select.POLLIN)
            if self.network is not None:
                self.network.register(poller)
            if self.pending:
                both = select.POLLIN if self.terminal else 0
                poller.register(self.stdin, select.POLLOUT | both)
            self.report()
            for handle, event in poller.poll(LOOK_SECONDS * 1000 if self.every else None):
                if handle == self.stdin and event & select.POLLOUT:
                    self.feed()
                if handle in self.outputs:
                    if event & ~select.POLLOUT:
                        self.output(handle)
                elif handle == self.wakeup:
                    os.read(handle, 512)
                    self.reap()
                elif handle == self.marks:
                    self.mark()
                elif self.cells is not None and handle == heard:
                    self.cells.heard()
                elif handle == 0:
                    self.host()
                elif handle == self.stdin and event & ~select.POLLOUT:
                    self.feed()  # the program closed it
                elif self.network is not None:
                    self.network.handle(handle)
        if alone:
            end_everybody()
        self.report(now=True)
        for handle in list(self.outputs):
            os.set_blocking(handle, False)
            while self.output(handle):
                pass

    def mark(self) -> None:
        """Take note of what the child says about its build."""
        try:
            said = os.read(self.marks, 1) if self.marks >= 0 else b""
        except BlockingIOError:
            return
        self.unbuilt = self.unbuilt or said == b"B"
        if said == b"D":
            self.report(now=True)
        if said == b"D" and self.staged:
            send(b"B")
        elif said == b"D":
            self.go_on()
        if not said:  # the program has begun, or has ended
            self.marks = -1

    def go_on(self) -> None:
        """Let the program begin, which has been built; what it may reach it reaches from now on."""
        if self.network is not None:
            self.network.open()
        os.write(self.gate, b"G")

    def output(self, handle: int) -> int:
        """Pass one chunk on; returns its size, with none there is no more just now."""
        try:
            data = os.read(handle, CHUNK)
        except BlockingIOError:
            return 0
        except OSError:  # a terminal that nobody has open any more
            data = b""
        if not data:
            del self.outputs[handle]
            if self.cells is not None:
                os.close(handle)
            return 0
        kind, head = self.outputs[handle]
        send(kind, head + data)
        return len(data)

    def host(self) -> None:
        """Take what the host sent: frames of stdin."""
        data = os.read(0, CHUNK)
        if not data:
            os._exit(0)  # the host is gone, and with process 1 everything here
        self.incoming += data
        while len(self.incoming) >= HEADER.size:
            length, kind = HEADER.unpack_from(self.incoming)
            end = HEADER.size + length
            if len(self.incoming) < end:
                break
            if kind == ord("I") and self.stdin >= 0:
                self.pending += self.incoming[HEADER.size : end]
            elif kind == ord("I"):
                self.took(length)  # nobody has it open
            elif kind == ord("C"):
                if self.terminal:
                    self.pending += b"\4"  # what Ctrl+D types
                else:
                    self.closing = True
            elif kind == ord("B"):
                self.go_on()
            elif kind == ord("K") and length:
                self.signal(self.incoming[HEADER.size])
            elif kind in b"THVZ" and self.network is not None:
                self.network.take(kind, bytes(self.incoming[HEADER.size : end]))
            elif kind in b"FMDG":
                self.place(kind, bytes(self.incoming[HEADER.size : end]))
            elif kind == ord("y") and self.cells is not None:
                self.cells.add(bytes(self.incoming[HEADER.size : end]))
            elif kind == ord("j") and self.cells is not None:
                self.cells.interrupt(bytes(self.incoming[HEADER.size : end]))
            elif kind == ord("Q") and self.wanted is not None:
                collect.collect(WORK, self.wanted, self.laid, send, live=True)
            elif kind == ord("W") and self.terminal and length == 4:
                import terminals  # type: ignore[import-not-found]

                terminals.set_window(self.stdin, *WINDOW.unpack(self.incoming[HEADER.size : end]))
            del self.incoming[:end]
        self.feed()

    def place(self, kind: int, payload: bytes) -> None:
        """Bring files of the working folder up to date while the program runs; a failure is shown and harms nothing else."""
        try:
            if kind == ord("M"):
                if self.placing is not None:
                    self.placing.write(payload)
                    self.laid.add(payload)
                return
            done, self.placing = self.placing, None
            if done is not None:
                done.finish(keep=True)
                self.laid.end()
            if kind == ord("F"):
                size = PATH_SIZE.unpack_from(payload)[0]
                path, data = payload[2 : 2 + size].decode(), payload[2 + size :]
                self.placing = Placing(WORK, path)
                self.placing.write(data)
                self.laid.begin(path, data)
            elif kind == ord("D"):
                path = payload.decode()
                self.laid.forget(path)
                try:
                    os.unlink(f"{WORK}/{path}")
                except (FileNotFoundError, NotADirectoryError):
                    pass
        except (OSError, ValueError) as error:
            if self.placing is not None:
                broken, self.placing = self.placing, None
                try:
                    broken.finish(keep=False)
                except OSError:
                    pass
            why = getattr(error, "strerror", None) or str(error)
            send(b"O", f"\r\n[A file of the session could not be brought here: {why}]\r\n".encode())

    def signal(self, number: int) -> None:
        """Send a signal to the program and what it started in its own process group; in a terminal, to what is in front."""
        try:
            os.killpg(os.tcgetpgrp(self.stdin) if self.terminal else self.pid, number)
        except OSError:
            pass  # it has ended, or there is no such signal

    def feed(self) -> None:
        """Write what stdin takes now."""
        try:
            while self.pending:
                count = os.write(self.stdin, self.pending[:CHUNK])
                del self.pending[:count]
                self.took(count)
        except BlockingIOError:
            return
        except OSError:  # the program closed its stdin
            self.closing = True
            self.took(len(self.pending))
            self.pending.clear()
        if self.closing and self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def took(self, count: int) -> None:
        """Tell the host how much input has gone, where that has a window."""
        if self.network is not None:
            self.network.took(count)

    def reap(self) -> None:
        """Collect every child that ended: orphans fall to process 1."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.status = status


def kill_everybody(*_: object) -> None:
    """Kill all processes but this one, in one step: none can fork away from it."""
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        pass


def end_everybody() -> None:
    """Kill all processes but this one and wait until each is gone: they are its children, or become so."""
    kill_everybody()
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return
