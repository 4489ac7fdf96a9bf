"""The first process inside a sandbox: lays out files, runs one program, carries its streams, says how it ended.

Theory of operation. The agent is process 1 of its own pid namespace, so the program cannot kill it, orphans fall to
it, and when it exits the kernel kills whatever is left. It talks frames (see PROTOCOL.md) over descriptors 0 and 1.
It serves exactly one program. While it waits it has forked already: the child is `park`ed with its streams in place,
its pages its own; where a module's name was given to the agent, the child has imported it by then. `receive` reads spec and files until GO, then the child is told the spec and becomes the program (by
exec, or for Python by going on in this very interpreter: `become_python`); the parent `Carrier` carries until it ends.
The agent is inside the wall: nothing it says is trusted, and no limit depends on it alone.
When the host wants the program's files back, the agent ends whatever still runs, says how the program ended and then
sends what it wrote (`collect.py`); a SIGTERM from the host ends the program first.

Standard library only, Python 3.9 or later, no import beyond what a fork of it may cost.
"""

from __future__ import annotations

import sys

BASELINE = frozenset(sys.modules)  # what any interpreter has; a program must be able to shadow the rest

import _signal as signal  # type: ignore[import-not-found]  # the module itself brings enum along
import builtins
import errno
import io
import os
import resource
import select
from _frozen_importlib_external import SourceFileLoader  # type: ignore[attr-defined]
from _struct import Struct

import collect  # type: ignore[import-not-found]
import plain_json  # type: ignore[import-not-found]
from carrying import WORK, Carrier, kill_everybody  # type: ignore[import-not-found]
from placing import write_all  # type: ignore[import-not-found]
from preloading import is_as_new, preload  # type: ignore[import-not-found]
from stream import CHUNK, HEADER, send  # type: ignore[import-not-found]

PATH_SIZE = Struct(">H")
MARKS = 4  # where the child says that it has built (D) or could not (B); no program inherits it
GATE = 5  # where it waits for leave to go on after that
LIMITS = {
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "fsize": resource.RLIMIT_FSIZE,
    "cpu": resource.RLIMIT_CPU,
}


def stay() -> None:
    """Wait for the end, which the host brings, once the last frame has been sent.

    Exiting instead would reset the stream while input lies unread in it, and a reset can overtake what was sent.
    """
    while os.read(0, CHUNK):
        pass
    os._exit(0)


def fail(kind: str, detail: str) -> None:
    """Say why the program could not start."""
    send(b"P", plain_json.dumps({"kind": kind, "detail": detail}))
    stay()


def read_exactly(count: int) -> bytes:
    parts = []
    while count:
        part = os.read(0, min(count, 1 << 20))
        if not part:
            os._exit(0)  # the host is gone
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def receive() -> tuple[bytes, collect.Laid]:
    """Take the spec, lay out the files; returns the spec's JSON and what was laid out, at GO."""
    spec = b""
    laid = collect.Laid()
    wanted = False
    handle = -1
    folders = {""}
    while True:
        length, kind = HEADER.unpack(read_exactly(HEADER.size))
        payload = read_exactly(length)
        if kind == ord("S"):
            spec = payload
            wanted = plain_json.loads(spec)["collect"] is not None
        elif kind == ord("F"):
            if handle >= 0:
                os.close(handle)
            size = PATH_SIZE.unpack_from(payload)[0]
            path, data = payload[2 : 2 + size].decode(), payload[2 + size :]
            handle = create(path, folders)
            write_all(handle, data)
            if wanted:
                laid.begin(path, data)
        elif kind == ord("M"):
            write_all(handle, payload)
            if wanted:
                laid.add(payload)
        elif kind == ord("G"):
            if handle >= 0:
                os.close(handle)
            laid.end()
            return spec, laid


def create(path: str, folders: set[str]) -> int:
    """Make a new file beneath the working folder; a path that could leave it is refused here too."""
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"not a plain relative path: {path!r}")
    for at in range(1, len(parts)):
        folder = "/".join(parts[:at])
        if folder not in folders:
            os.mkdir(f"{WORK}/{folder}", 0o755)
            folders.add(folder)
    # The folder is new and empty, nobody else runs: no link can lie in the way, and O_EXCL follows none.
    return os.open(f"{WORK}/{path}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)


def disk_full() -> bool:
    """Say whether the working folder or /tmp has no room for another page."""
    for folder in (WORK, "/tmp"):
        try:
            state = os.statvfs(folder)
        except OSError:
            continue
        if state.f_blocks and state.f_bavail == 0:
            return True
    return False


def lower_limits(limits: dict) -> None:
    """Set hard limits of this process and those that follow. They back up the host's own, which count the whole tree."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, value in limits.items():
        hard = resource.getrlimit(LIMITS[name])[1]
        if name == "cpu":  # what was used to import modules is not the program's
            value += int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(
            LIMITS[name], (value, value + 1 if name == "cpu" else value)
        )  # a signal, then the end


def park(
    streams: tuple[int, int, int], specs: int, marks: int, gate: int, module: str
) -> tuple[dict, set[str] | None]:
    """In the forked child: do all that needs no spec, wait for the spec, take on its limits, folder and environment.

    Returns the spec, and the names of what has been imported for the program.
    """
    os.setsid()
    for target, handle in enumerate(streams):
        os.dup2(handle, target, inheritable=True)
    os.dup2(specs, 3)
    os.dup2(marks, MARKS, inheritable=False)
    os.dup2(gate, GATE, inheritable=False)
    os.closerange(GATE + 1, 64)
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("900")  # the program goes before the agent, so that the agent can still report
    except OSError:
        pass
    renew_signals()
    renew_interpreter()
    loaded = preload(module) if module else set()
    os.write(MARKS, b"R")
    with open(3, "rb", buffering=0) as file:
        spec: dict = plain_json.loads(file.readall() or b"{}")
    if not spec:
        os._exit(0)  # the agent is gone
    if spec["tty"]:
        # A session's leader that has none gets the first terminal that it opens as its controlling one.
        tty = os.open(spec["tty"], os.O_RDWR)
        for target in range(3):
            os.dup2(tty, target)
    lower_limits(spec["rlimits"])
    os.chdir(WORK)
    os.environ.clear()
    os.environ.update(spec["env"])
    return spec, loaded


def renew_signals() -> None:
    """Put back what a new session has: a server that was started in the background may ignore or block some of them."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # Python itself ignores these
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def renew_interpreter() -> None:
    """Put back what a new `python3 -u` has: its modules, its streams."""
    for name in [name for name in sys.modules if name not in BASELINE and name != "__main__"]:
        del sys.modules[name]
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        raw = io.FileIO(number, mode, closefd=False)
        raw.name = f"<{name}>"  # type: ignore[misc]
        carrier = io.BufferedReader(raw) if mode == "r" else raw
        errors = getattr(sys, name).errors  # depends on the locale, which is the same
        stream = io.TextIOWrapper(carrier, encoding="utf-8", errors=errors, write_through=mode == "w")  # type: ignore[type-var]
        stream.mode = mode
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def build(spec: dict) -> None:
    """Compile before the program runs; what that prints is an error's text. When it fails, this process ends as it did.

    A program that has limits of its own waits at the gate until the host has set them.
    """
    pid = os.fork()
    if pid == 0:
        lower_limits(spec["build_rlimits"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        become_program({"argv": spec["build"], "env": spec["env"]})
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        os.write(MARKS, b"B")
        os._exit(code if code > 0 else 128 - code)
    if spec["staged"] or spec["network"]:
        os.write(MARKS, b"D")
        os.read(GATE, 1)


def become_program(spec: dict) -> None:
    """Replace this process by the program; a failure is said on its standard error."""
    argv = spec["argv"]
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these; an exec would hand that on
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(argv[0], argv, spec["env"])
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(127 if error.errno == errno.ENOENT else 126)


def become_python(spec: dict) -> None:
    """Run the entry as `python3 -u entry args` would, in this interpreter, which is already warm.

    What still differs from a new interpreter is put right: arguments, path, `__main__`, tracebacks.
    """
    entry, args = spec["fork"], spec["argv"][3:]
    path = f"{WORK}/{entry}"
    if spec["python"] is not None:
        enter_environment(spec["python"])
    sys.argv = [entry, *args]
    sys.orig_argv = spec["argv"]
    sys.path[0] = os.path.dirname(path)
    module = type(sys)("__main__")
    module.__dict__.update(
        __file__=path,
        __cached__=None,
        __builtins__=builtins,
        __loader__=SourceFileLoader("__main__", path),
    )
    if "__annotations__" in globals():  # not in every version
        module.__annotations__ = {}
    sys.modules["__main__"] = module
    try:
        with io.open_code(path) as file:
            source = file.read()
        exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        # This frame is not part of the program. What a compile error carries is only this frame.
        trace = error.__traceback__.tb_next if error.__traceback__ else None
        error.__traceback__ = trace
        sys.excepthook(type(error), error, trace)
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        sys.exit(1)


def enter_environment(folder: str) -> None:
    """Find a virtual environment's modules as its own `python` does: behind the library, before the system's packages.

    Lines of its .pth files that are programs run here, as there: in the program's process, under its limits.
    """
    import site

    sys.executable = f"{folder}/bin/python"
    sys.prefix = sys.exec_prefix = folder
    before = sys.path[:]
    at = next((at for at, path in enumerate(before) if path.endswith("-packages")), len(before))
    sys.path[at:] = []
    site.addsitedir(f"{folder}/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")
    sys.path += [path for path in before[at:] if path not in sys.path]


def ready(marks: int) -> None:
    """Wait until the child waits for its spec; without it there is nothing to be had here."""
    poller = select.poll()
    poller.register(marks, select.POLLIN)
    poller.poll()
    if os.read(marks, 1) != b"R":
        os._exit(1)


def outcome(status: int) -> dict:
    """Say how the program ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = os.waitstatus_to_exitcode(status)
    return {
        "code": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
        "cpu": usage.ru_utime + usage.ru_stime,
        "memory": usage.ru_maxrss * 1024,
        "full": disk_full(),
    }


def become_interpreter(spec: dict, specs: int, control: int, nothing: int) -> None:
    """Be the Python that is sent cells over `control`, until it ends."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    park((nothing, nothing, nothing), specs, control, nothing, "")
    lower_limits(spec["program_rlimits"])
    os.close(GATE)
    import interpreter  # type: ignore[import-not-found]

    if spec["python"] is not None:
        enter_environment(spec["python"])
    interpreter.Interpreter(MARKS).serve()


def main() -> None:
    """Serve one program. In the forked child this returns when a Python program has ended."""
    module = sys.argv[1] if len(sys.argv) > 1 else ""
    compile("print(1)", "", "exec")  # what the compiler does once, it has done before there is a program
    os.umask(0o022)
    stdin_read, stdin = os.pipe()
    stdout, stdout_write = os.pipe()
    stderr, stderr_write = os.pipe()
    specs, specs_write = os.pipe()
    marks, marks_write = os.pipe()
    gate_read, gate = os.pipe()
    pid = os.fork()
    if pid == 0:
        spec, loaded = park((stdin_read, stdout_write, stderr_write), specs, marks_write, gate_read, module)
        if spec["build"]:
            build(spec)
        lower_limits(spec["program_rlimits"])
        if spec["fork"] is None or not is_as_new(loaded, os.path.dirname(f"{WORK}/{spec['fork']}")):
            become_program(spec)
        os.close(MARKS)
        os.close(GATE)
        become_python(spec)
        return
    outputs = {stdout: (b"O", b""), stderr: (b"E", b"")}
    for handle in (stdin_read, stdout_write, stderr_write, specs, marks_write, gate_read):
        os.close(handle)
    wakeup, wakeup_write = os.pipe()
    for handle in (wakeup_write, stdin, marks):
        os.set_blocking(handle, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    ready(marks)
    send(b"R", plain_json.dumps({"protocol": 1, "python": sys.version.split()[0]}))
    try:
        spec_json, laid = receive()
        spec = plain_json.loads(spec_json)
        lower_limits(spec["rlimits"])
        if spec["node_modules"] is not None:
            try:
                os.symlink(spec["node_modules"], f"{WORK}/node_modules")
            except FileExistsError:
                pass  # the session has its own
        if spec["terminal"]:
            import terminals  # type: ignore[import-not-found]

            stdin, spec["tty"] = terminals.open_terminal(spec["terminal"])
            outputs = {stdin: (b"O", b"")}
    except OSError as error:
        kind = "disk" if error.errno in (errno.ENOSPC, errno.EFBIG) else "layout"
        fail(kind, str(error))
    except ValueError as error:
        fail("layout", str(error))
    network = None
    if spec["network"] is not None:
        from network import begin  # type: ignore[import-not-found]

        network = begin(spec, send)
    wanted = spec["collect"]
    if wanted is not None:
        signal.signal(signal.SIGTERM, kill_everybody)
    every = spec.get("usage", 0)
    if spec["cells"]:
        os.close(specs_write)  # who waited for a program goes
        import cells  # type: ignore[import-not-found]

        pid, line = cells.fork(spec, become_interpreter)
        carrier = Carrier(pid, -1, {}, wakeup, (-1, -1), wanted, laid, network, every)
        carrier.cells = cells.Cells(line, carrier, send)
        if network is not None:
            network.open()
    else:
        carrier = Carrier(pid, stdin, outputs, wakeup, (marks, gate), wanted, laid, network, every)
        carrier.staged = spec["staged"]
        write_all(specs_write, plain_json.dumps(spec))
        os.close(specs_write)
    carrier.run(alone=wanted is not None)
    carrier.mark()
    assert carrier.status is not None
    said = {**outcome(carrier.status), "built": not carrier.unbuilt}
    if carrier.cells is not None:
        said["cut_off"] = carrier.cells.cut_off
    send(b"X", plain_json.dumps(said))
    if wanted is not None:
        collect.collect(WORK, wanted, laid, send)
    stay()


if __name__ == "__main__":
    main()
