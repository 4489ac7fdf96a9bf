"""The agent's side of a kept interpreter: hands it cells, one at a time, each with streams of its own.

What the interpreter says over the socket counts only with the token that it was given before any cell ran, so that a
cell which writes into every descriptor says nothing. Which cell runs, and that it has ended, is known here and not there.

Standard library only, like the agent, beside which it lies.
"""

from __future__ import annotations

import _socket
import json
import os
import signal
import struct
import sys
import time
from collections import deque
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NUMBER = struct.Struct(">I")
MESSAGE = 192 * 1024
TOKEN = 16
KINDS = b"vuz"
LEAVES = b"X"
DYING = (
    0.0,
    0.005,
    0.02,
    0.1,
)  # seconds until a process whose end of the line is closed has ended, if it does
OPEN = 96  # read ends of pipes; what still writes into the oldest is cut off
DRAINED = 1 << 20  # as much as a pipe can hold


def fork(spec: dict, become: Callable[[dict, int, int, int], None]) -> tuple[int, _socket.socket]:
    """Fork the interpreter, which was not parked since nobody else needs its socket; returns its pid and our end of that."""
    line, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    specs, specs_write = os.pipe()
    nothing = os.open(os.devnull, os.O_RDWR)
    pid = os.fork()
    if pid == 0:
        os.close(specs_write)
        become(spec, specs, theirs.fileno(), nothing)
        sys.exit()
    theirs.close()
    os.close(nothing)
    os.close(specs)
    with open(specs_write, "wb") as file:
        file.write(json.dumps(spec).encode())
    return pid, line


class Cells:
    """The cells of one interpreter; `carrier` is the agent's, whose outputs and input follow the cell that runs."""

    def __init__(self, line: _socket.socket, carrier: Any, send: Callable[[bytes, bytes], None]) -> None:
        self.line, self.carrier, self.send = line, carrier, send
        self.handle = line.fileno()
        self.token = os.urandom(TOKEN)
        self.waiting: deque[bytes] = deque()
        self.running = 0
        self.before: set[str] = set()
        """Processes that were there when the cell began: an interrupt is not for them."""
        self.closed = False
        self.leaving = False
        self.cut_off = False
        line.send(self.token)

    def add(self, cell: bytes) -> None:
        """Queue a cell: its number, and what the interpreter needs."""
        self.waiting.append(cell)
        self.next()

    def next(self) -> None:
        """Hand over the next cell, unless one runs."""
        if self.running or not self.waiting or self.closed:
            return
        cell = self.waiting.popleft()
        number = cell[: NUMBER.size]
        self.running = NUMBER.unpack(number)[0]
        stdin_read, stdin = os.pipe()
        stdout, stdout_write = os.pipe()
        stderr, stderr_write = os.pipe()
        theirs = (stdin_read, stdout_write, stderr_write)
        for handle in (stdin, stdout, stderr):
            os.set_blocking(handle, False)
        self.before = set(os.listdir("/proc"))
        self.send(b"y", number)
        try:
            rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("3i", *theirs))
            self.line.sendmsg([cell], [rights])
        except OSError:
            self.close()
        for handle in theirs:
            os.close(handle)
        self.carrier.stdin, self.carrier.closing = stdin, False
        outputs = self.carrier.outputs
        outputs[stdout] = (b"t", number + b"o")
        outputs[stderr] = (b"t", number + b"e")
        while len(outputs) > OPEN:
            oldest = next(iter(outputs))
            self.carrier.output(oldest)
            if outputs.pop(oldest, None) is not None:
                os.close(oldest)

    def interrupt(self, payload: bytes) -> None:
        """Interrupt a cell, if it is the one that runs, and the processes of its group that it has started."""
        if len(payload) != NUMBER.size or not NUMBER.unpack(payload)[0] == self.running != 0:
            return
        pid = self.carrier.pid
        started = [int(name) for name in os.listdir("/proc") if name.isdigit() and name not in self.before]
        for process in (pid, *started):
            try:
                if os.getpgid(process) == pid:
                    os.kill(process, signal.SIGINT)
            except OSError:
                pass  # it has ended

    def heard(self) -> None:
        """Take one message of the interpreter; what is none is nobody's."""
        try:
            message = self.line.recv(MESSAGE)
        except OSError:
            message = b""
        if not message:
            self.close()
            return
        if not message.startswith(self.token) or len(message) < TOKEN + 1 + NUMBER.size:
            return
        kind, payload = message[TOKEN : TOKEN + 1], message[TOKEN + 1 :]
        self.leaving = self.leaving or kind == LEAVES
        if kind not in KINDS:
            return
        number = payload[: NUMBER.size]
        if kind == b"z" and NUMBER.unpack(number)[0] != self.running:
            return
        self.drain(number)
        if kind == b"z":
            self.end_input()
            self.running = 0
        self.send(kind, payload)
        self.next()

    def drain(self, number: bytes) -> None:
        """Pass on what a cell has printed before it said something else."""
        outputs = self.carrier.outputs
        for handle in [handle for handle, (_, whose) in outputs.items() if whose[: NUMBER.size] == number]:
            left = DRAINED
            while left > 0 and (size := self.carrier.output(handle)):
                left -= size

    def end_input(self) -> None:
        """What was typed for a cell and not read is nobody else's."""
        self.carrier.pending.clear()
        if self.carrier.stdin >= 0:
            os.close(self.carrier.stdin)
            self.carrier.stdin = -1

    def close(self) -> None:
        """The interpreter cannot be spoken with any more: it has ended, or does so by itself, or is ended."""
        if self.closed:
            return
        self.closed = True
        self.line.close()
        if self.leaving:
            return
        for seconds in DYING:
            time.sleep(seconds)
            self.carrier.reap()
            if self.carrier.status is not None:
                return
        self.cut_off = True
        try:
            os.kill(self.carrier.pid, signal.SIGKILL)
        except OSError:
            pass
