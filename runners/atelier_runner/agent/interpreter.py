"""A kept Python: runs the cells that it is sent, one after another, in one namespace.

Theory of operation. The agent (`cells.py`) sends a cell over a socket that keeps messages apart, and with it three
descriptors, streams of that cell alone, which become 0, 1 and 2. So what a process prints that a cell started belongs to that cell,
however late it comes; what a thread or a task of it prints is written to its streams too, while they are kept. Values and
the end go back over the socket; each message begins with a token that only this module knows, so what a cell writes
into every descriptor that it finds is nobody's message. A cell may do anything to this process: what is needed for the
next one is mended before it runs (streams, builtins, the recursion limit), and what cannot be ends the process, which the agent sees.

Standard library only, Python 3.9 or later.
"""

from __future__ import annotations

import builtins

# A cell may take builtins away; this module's functions have their own.
__builtins__ = dict(builtins.__dict__)  # type: ignore[assignment]

import __future__

import _socket
import _thread
import ast
import contextvars
import fcntl
import io
import json
import linecache
import os
import re
import signal
import struct
import sys
import traceback
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEAD = struct.Struct(">IH")
NUMBER = struct.Struct(">I")
MESSAGE = 160 * 1024
PIECE = 64 * 1024
TEXT = 64 * 1024  # characters of a value or a traceback
KEPT = 16  # cells whose streams stay open for their threads and tasks
RIGHTS = _socket.CMSG_LEN(3 * 4)
COROUTINE = 0x80
FUTURES = [getattr(__future__, name).compiler_flag for name in __future__.all_feature_names]
FIGURES = "/tmp/.atelier-figures"
MEDIA = {".png": "image/png", ".svg": "image/svg+xml", ".html": "text/html", ".jpg": "image/jpeg"}
FORMS = (
    ("_repr_html_", "text/html"),
    ("_repr_svg_", "image/svg+xml"),
    ("_repr_png_", "image/png"),
    ("_repr_jpeg_", "image/jpeg"),
)
CELL = contextvars.ContextVar("atelier_cell", default=0)
PLACE = re.compile(r'File "<cell (\d+)>", line')


class Bytes(io.RawIOBase):
    """The bytes beneath standard output or error: they go to the streams of the cell to which the writer belongs."""

    mode = "wb"

    def __init__(self, interpreter: Interpreter, number: int) -> None:
        self.interpreter, self.number = interpreter, number
        self.name = f"<{('stdin', 'stdout', 'stderr')[number]}>"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.number

    def write(self, data: Any) -> int:
        return os.write(self.interpreter.handle(self.number), data)


class Text(io.TextIOBase):
    """Standard output or error. Nothing waits in it: what waited would go wherever the next writer's goes."""

    encoding = "utf-8"
    errors = "surrogateescape"
    line_buffering = write_through = True
    mode = "w"

    def __init__(self, raw: Bytes, errors: str) -> None:
        self.buffer, self.errors, self.name = raw, errors, raw.name

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.buffer.fileno()

    def reconfigure(self, **_: object) -> None:
        """Nothing of it can be changed."""

    def close(self) -> None:
        """It stays: the next cell needs it."""

    def write(self, text: str) -> int:
        data = memoryview(text.encode("utf-8", self.errors))
        while data:
            data = data[self.buffer.write(data) :]
        return len(text)


class Interpreter:
    """One namespace and what it takes to run cells in it."""

    def __init__(self, control: int) -> None:
        self.line = _socket.socket(fileno=control)
        self.token = self.line.recv(64)
        self.pid = os.getpid()
        self.main = _thread.get_ident()
        self.sending = _thread.allocate_lock()
        self.number = 0
        self.running = False
        self.flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self.loop: Any = None
        self.kept: dict[int, tuple[int, int]] = {}
        self.recursion = sys.getrecursionlimit()
        self.sources = linecache.cache
        self.streams: Any = (
            [],
            Text(Bytes(self, 1), "surrogateescape"),
            Text(Bytes(self, 2), "backslashreplace"),
        )
        module = types.ModuleType("__main__")
        module.__dict__["__builtins__"] = builtins
        sys.modules["__main__"] = module
        self.names = module.__dict__
        builtins.__dict__["display"] = self.display
        self.builtins = dict(builtins.__dict__)
        os.environ["ATELIER_FIGURES"] = FIGURES
        os.register_at_fork(after_in_child=self.forked)

    def serve(self) -> None:
        """Run cells until the agent has no more; what leaves this ends the process."""
        while True:
            try:
                data, rights, _, _ = self.line.recvmsg(MESSAGE, RIGHTS, _socket.MSG_CMSG_CLOEXEC)
            except OSError:
                self.wait_for_the_end()
            if not data:
                os._exit(0)
            streams = struct.unpack("3i", rights[0][2])
            self.number, size = HEAD.unpack_from(data)
            path = data[HEAD.size : HEAD.size + size].decode()
            code = data[HEAD.size + size :].decode(errors="replace")
            self.take_on(streams)
            self.mend()
            self.cell(path, code)

    def wait_for_the_end(self) -> None:
        """A cell has closed the line: the agent notices, and ends this."""
        while True:
            signal.pause()

    # --- what a cell finds, whatever the one before has done

    def take_on(self, streams: tuple) -> None:
        """Make a cell's streams those of the process."""
        high = [
            fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, 10) for handle in streams
        ]  # 0 to 2 may have been closed
        for handle in streams:
            os.close(handle)
        for target, handle in enumerate(high):
            os.dup2(handle, target)
        os.close(high[0])
        self.kept[self.number] = (high[1], high[2])

    def mend(self) -> None:
        """Put right what a cell may have broken and the next one needs."""
        for name, value in self.builtins.items():
            builtins.__dict__.setdefault(name, value)
        if sys.getrecursionlimit() < self.recursion:
            sys.setrecursionlimit(self.recursion)
        signal.signal(signal.SIGINT, self.interrupted)
        source = io.BufferedReader(io.FileIO(0, closefd=False))
        stdin = io.TextIOWrapper(source, encoding="utf-8", errors="surrogateescape")
        self.streams[0].append(stdin)  # what a thread still reads from must not go away under it
        del self.streams[0][:-KEPT]
        sys.stdin = sys.__stdin__ = stdin
        sys.stdout = sys.__stdout__ = self.streams[1]
        sys.stderr = sys.__stderr__ = self.streams[2]

    def interrupted(self, *_: object) -> None:
        """End the cell that runs; between two cells nobody is meant."""
        if self.running:
            raise KeyboardInterrupt

    def forked(self) -> None:
        """In a process that a cell forked: it says nothing to the agent."""
        try:
            self.line.close()
        except OSError:
            pass

    # --- whose output it is

    def handle(self, which: int) -> int:
        """Return where the calling thread or task writes its output (1) or errors (2)."""
        number = self.writer()
        here = _thread.get_ident() == self.main and number == self.number
        # A thread must not be caught by the next cell's streams between this and its write.
        kept = None if here else self.kept.get(number)
        return which if kept is None else kept[which - 1]

    def writer(self) -> int:
        """Return the cell to which the calling thread or task belongs."""
        if _thread.get_ident() == self.main:
            return CELL.get()
        threading = sys.modules.get("threading")
        thread = None if threading is None else threading._active.get(_thread.get_ident())
        return getattr(thread, "_atelier_cell", self.number)

    def settle(self) -> None:
        """Note whose the threads are that go on, and close the streams of cells of which nothing does."""
        going = set()
        threading = sys.modules.get("threading")
        if threading is not None:
            for thread in threading.enumerate():
                if thread.ident != self.main:
                    going.add(thread.__dict__.setdefault("_atelier_cell", self.number))
        if self.loop is not None:
            asyncio = sys.modules["asyncio"]
            if asyncio.all_tasks(self.loop):
                going.update(self.kept)
        for number in sorted(self.kept):
            if number not in going or len(self.kept) > KEPT:
                for handle in self.kept.pop(number):
                    try:
                        os.close(handle)
                    except OSError:
                        pass

    # --- running

    def cell(self, path: str, code: str) -> None:
        """Run one cell and say how it ended."""
        CELL.set(self.number)
        outcome, error = "done", None
        try:
            try:
                self.running = True
                self.execute(path, code)
                self.flush_figures()
            finally:
                self.running = False
                if os.getpid() == self.pid:
                    self.mend_names()
        except KeyboardInterrupt as raised:
            outcome, error = "interrupted", self.describe(raised)
        except SystemExit:
            self.tell(b"X", NUMBER.pack(self.number))  # what comes now is the end
            raise
        except BaseException as raised:
            outcome, error = "error", self.describe(raised)
        for stream in (sys.stdout, sys.stderr):
            try:
                if stream is not None:
                    stream.flush()
            except BaseException as raised:  # it is the cell's, and may be anything
                if error is None:
                    outcome, error = "error", self.describe(raised)
        if (
            os.getpid() != self.pid
        ):  # the cell forked, and this is the child: there is nothing after a cell for it
            if error is not None:
                os.write(2, error["text"].encode(errors="replace") + b"\n")
            os._exit(0 if error is None else 1)
        self.settle()
        said = {"outcome": outcome, "error": error}
        self.tell(b"z", NUMBER.pack(self.number) + json.dumps(said).encode())

    def mend_names(self) -> None:
        """Put back the builtins that a cell took away."""
        for name, value in self.builtins.items():
            builtins.__dict__.setdefault(name, value)
        if sys.getrecursionlimit() < self.recursion:
            sys.setrecursionlimit(self.recursion)

    def execute(self, path: str, code: str) -> None:
        """Compile and run; the value of a last expression is shown, and kept as `_`."""
        name = f"<cell {self.number}>"
        self.sources[name] = (len(code), None, code.splitlines(keepends=True), name)
        linecache.cache = self.sources
        folder = os.path.dirname(path)
        sys.path[0] = f"/work/{folder}" if folder else "/work"
        if path:
            self.names["__file__"] = f"/work/{path}"
        else:
            self.names.pop("__file__", None)
        tree = compile(code, name, "exec", self.flags | ast.PyCF_ONLY_AST, dont_inherit=True)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr) and not code.rstrip().endswith(";"):
            last = ast.Expression(tree.body.pop().value)
        body = compile(tree, name, "exec", self.flags, dont_inherit=True)
        self.flags |= sum(flag for flag in FUTURES if body.co_flags & flag & ~self.flags)
        parts = [body] if last is None else [body, compile(last, name, "eval", self.flags, dont_inherit=True)]
        if any(part.co_flags & COROUTINE for part in parts):
            value = self.run_in_loop(parts)
        else:
            value = [eval(part, self.names) for part in parts][-1]
        if value is not None:
            builtins.__dict__["_"] = value
            self.show(value, "value")

    def run_in_loop(self, parts: list) -> object:
        """Run a cell that awaits something, in the interpreter's one event loop; returns what its last part is."""
        import asyncio

        async def run() -> object:
            value = None
            for part in parts:
                value = eval(part, self.names)
                if part.co_flags & COROUTINE:
                    value = await value
            return value

        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        task = self.loop.create_task(run())
        try:
            return self.loop.run_until_complete(task)
        except KeyboardInterrupt:
            if not task.done():
                task.cancel()
                try:
                    self.loop.run_until_complete(task)
                except asyncio.CancelledError:
                    pass
            raise

    def describe(self, error: BaseException) -> dict:
        """Say what went wrong, and in which line of which cell, whatever the cell has left intact."""
        try:
            return self.description(error)
        except BaseException:
            builtins.__dict__.update(self.builtins)
        try:
            return self.description(error)
        except BaseException:
            return {"name": type(error).__name__, "message": "", "text": type(error).__name__, "place": None}

    def description(self, error: BaseException) -> dict:
        """Return name, message, the traceback from the cell's first line on, and the innermost line that is a cell's."""
        trace = error.__traceback__
        while trace is not None and not trace.tb_frame.f_code.co_filename.startswith("<cell "):
            trace = trace.tb_next
        place = None
        step = trace
        while step is not None:
            name = step.tb_frame.f_code.co_filename
            if name.startswith("<cell "):
                place = [int(name[6:-1]), step.tb_lineno]
            if isinstance(error, KeyboardInterrupt) and step.tb_next is not None:
                if step.tb_next.tb_frame.f_code is self.interrupted.__code__:
                    step.tb_next = None
            step = step.tb_next
        where = str(error.filename) if isinstance(error, SyntaxError) else ""
        if where.startswith("<cell "):
            place = [int(where[6:-1]), getattr(error, "lineno", None) or 1]
        told = "".join(traceback.format_exception(type(error), error, trace))
        try:
            message = str(error)
        except Exception:
            message = ""
        text = shortened(PLACE.sub(r"Cell [\1], line", told).rstrip("\n"))
        return {"name": type(error).__name__, "message": message[:1000], "text": text, "place": place}

    # --- values

    def display(self, *values: object) -> None:
        """Show values as the last expression of a cell is shown; every cell finds this as `display`."""
        for value in values:
            self.show(value, "display")
        self.flush_figures()

    def show(self, value: object, role: str) -> None:
        """Send a value as text and, where it has one, in its richest form."""
        text = shortened(value if role == "display" and isinstance(value, str) else repr(value))
        rich = self.rich(value)
        self.send(role, "text/plain", text.encode(errors="replace"), instead=rich is not None)
        if rich is not None:
            self.send(role, *rich)

    def rich(self, value: object) -> tuple | None:
        """Return the media type and the bytes of the richest form of a value."""
        if type(value).__module__ == "matplotlib.figure" and hasattr(value, "savefig"):
            known = sys.modules.get("matplotlib._pylab_helpers")
            managers = [] if known is None else known.Gcf.get_all_fig_managers()
            if any(manager.canvas.figure is value for manager in managers):
                return None  # it is shown at the end of the cell
            picture = io.BytesIO()
            value.savefig(picture, format="png", dpi=144, bbox_inches="tight")
            return "image/png", picture.getvalue()
        for name, media in FORMS:
            method = getattr(type(value), name, None)
            if method is None:
                continue
            try:
                form = method(value)
            except Exception as error:
                sys.stderr.write(f"{name} failed: {type(error).__name__}: {error}\n")
                continue
            form = form[0] if isinstance(form, tuple) else form
            if form is not None:
                return media, form.encode(errors="replace") if isinstance(form, str) else bytes(form)
        return None

    def flush_figures(self) -> None:
        """Show the figures that are open, and send those that have been shown, in their order."""
        if os.getpid() != self.pid:
            return
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is not None and pyplot.get_fignums() and "atelier_matplotlib" in pyplot.get_backend():
            pyplot.show()
        try:
            names = sorted(os.listdir(FIGURES))
        except OSError:
            return
        for name in names:
            path = f"{FIGURES}/{name}"
            media = MEDIA.get(os.path.splitext(name)[1])
            if media is not None:
                with open(path, "rb") as file:
                    self.send("display", media, file.read())
            os.unlink(path)

    # --- to the agent

    def send(self, role: str, media: str, data: bytes, *, instead: bool = False) -> None:
        """Send one form of a value, in pieces."""
        head = json.dumps({"role": role, "type": media, "size": len(data), "instead": instead}).encode()
        number = NUMBER.pack(self.writer())
        with self.sending:
            self.tell(b"v", number + struct.pack(">H", len(head)) + head + data[:PIECE])
            for start in range(PIECE, len(data), PIECE):
                self.tell(b"u", number + data[start : start + PIECE])

    def tell(self, kind: bytes, payload: bytes) -> None:
        """Send one message; a process that a cell forked sends none."""
        if os.getpid() != self.pid:
            return
        try:
            self.line.sendall(self.token + kind + payload)
        except OSError:
            self.wait_for_the_end()


def shortened(text: str) -> str:
    """Return a text, its middle left out where it is too long."""
    if len(text) <= TEXT:
        return text
    half = TEXT // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters are left out …\n{text[-half:]}"
