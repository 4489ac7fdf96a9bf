"""The way out of a sandbox: a listener on its loopback, whose connections the host carries on.

The sandbox has no network but its own loopback. Each connection that the program makes to the listener becomes one of the
agent's stream, as bytes that nobody here reads; the host is the proxy and decides what becomes of it. Each has a window in
either direction, so that neither a program that floods nor one that does not read holds up anything else: what has no room
stays in the program's own socket. Standard library only; imported when a program is to have it.
"""

from __future__ import annotations

import ctypes
import select
import socket
import struct
from collections.abc import Callable

NUMBER = struct.Struct(">I")
BACKLOG = 128  # what is beyond the connections at once waits here
DUMPABLE = 4  # PR_SET_DUMPABLE


def hide() -> None:
    """Keep the program, which is the same user, from this process's memory and descriptors in /proc."""
    ctypes.CDLL(None).prctl(DUMPABLE, 0, 0, 0, 0)


class Connection:
    """One connection of the program's."""

    __slots__ = ("credit", "ended", "ending", "given", "number", "shut", "socket", "waiting")

    def __init__(self, number: int, connected: socket.socket, window: int) -> None:
        self.number = number
        self.socket = connected
        self.credit = window  # bytes that the host takes
        self.waiting = bytearray()  # for the program
        self.given = 0  # to the program, since the host was last told
        self.ended = False  # the program sends no more
        self.ending = False  # the host sends no more
        self.shut = False  # and the program has been told


class Network:
    """All connections of one program. `send` writes a frame; `wanted` is the spec's."""

    def __init__(self, wanted: dict, send: Callable[..., None]) -> None:
        hide()
        self.wanted = wanted
        self.window = wanted["window"]
        self.send = send
        self.listener: socket.socket | None = None
        self.connections: dict[int, Connection] = {}
        self.handles: dict[int, Connection] = {}
        self.last = 0
        self.stdin_taken = 0

    def open(self) -> None:
        """Listen from now on."""
        if self.listener is None:
            self.listener = socket.create_server(("127.0.0.1", self.wanted["port"]), backlog=BACKLOG)
            self.listener.setblocking(False)

    def register(self, poller: select.poll) -> None:
        """Wait for what can be carried now, and for nothing else."""
        if self.listener is not None and len(self.connections) < self.wanted["connections"]:
            poller.register(self.listener, select.POLLIN)
        for handle, one in self.handles.items():
            events = select.POLLIN if one.credit and not one.ended else 0
            if one.waiting:
                events |= select.POLLOUT
            if events:
                poller.register(handle, events)

    def handle(self, handle: int) -> None:
        """Do what has become possible; a descriptor that has been closed meanwhile is passed over."""
        if self.listener is not None and handle == self.listener.fileno():
            self.accept()
        elif (one := self.handles.get(handle)) is not None:
            if one.credit and not one.ended:
                self.read(one)
            if one.waiting and one.number in self.connections:
                self.write(one)

    def accept(self) -> None:
        """Take one connection and say so."""
        assert self.listener is not None
        try:
            connected, _ = self.listener.accept()
        except OSError:  # it was given up before it was taken
            return
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.last += 1
        one = Connection(self.last, connected, self.window)
        self.connections[one.number] = self.handles[connected.fileno()] = one
        self.send(b"J", NUMBER.pack(one.number))

    def read(self, one: Connection) -> None:
        """Pass on what the program sends, as far as the host takes it."""
        try:
            data = one.socket.recv(min(one.credit, 64 * 1024))
        except BlockingIOError:
            return
        except OSError:
            self.reset(one)
            return
        if data:
            one.credit -= len(data)
            self.send(b"T", NUMBER.pack(one.number) + data)
        else:
            one.ended = True
            self.send(b"H", NUMBER.pack(one.number))
            self.finish(one)

    def write(self, one: Connection) -> None:
        """Give the program what its socket takes now, and tell the host how much that was."""
        try:
            while one.waiting:
                count = one.socket.send(one.waiting)
                del one.waiting[:count]
                one.given += count
        except BlockingIOError:
            pass
        except OSError:  # the program has closed it
            self.reset(one)
            return
        if one.given * 2 >= self.window and not one.ending:
            self.send(b"V", NUMBER.pack(one.number) + NUMBER.pack(one.given))
            one.given = 0
        self.finish(one)

    def take(self, kind: int, payload: bytes) -> None:
        """Do what the host says of one connection; it may not know yet that it has ended."""
        one = self.connections.get(NUMBER.unpack_from(payload)[0])
        if one is None:
            return
        if kind == ord("T"):
            one.waiting += payload[NUMBER.size :]
            self.write(one)
        elif kind == ord("V"):
            one.credit += NUMBER.unpack_from(payload, NUMBER.size)[0]
        elif kind == ord("H"):
            one.ending = True
            self.finish(one)
        elif kind == ord("Z"):
            self.forget(one)

    def took(self, count: int) -> None:
        """Tell the host that the program has been given so much of its standard input, which has a window like the others."""
        self.stdin_taken += count
        if self.stdin_taken * 2 >= self.window:
            self.send(b"V", NUMBER.pack(0) + NUMBER.pack(self.stdin_taken))
            self.stdin_taken = 0

    def finish(self, one: Connection) -> None:
        """Tell the program that no more comes, once it has what came; forget what has ended on both sides."""
        if one.ending and not one.waiting and not one.shut:
            one.shut = True
            try:
                one.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass
        if one.shut and one.ended:
            self.forget(one)

    def reset(self, one: Connection) -> None:
        """End a connection that broke."""
        self.send(b"Z", NUMBER.pack(one.number))
        self.forget(one)

    def forget(self, one: Connection) -> None:
        del self.connections[one.number]
        del self.handles[one.socket.fileno()]
        one.socket.close()


def begin(spec: dict, send: Callable[..., None]) -> Network:
    """Open the way out of a spec that has one; what has to be built first is built without it."""
    network = Network(spec["network"], send)
    if not spec["build"]:
        network.open()
    return network
