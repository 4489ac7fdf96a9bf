"""Finds out what this machine enforces by trying each control in a real sandbox.

A control is `enforced` when the attempt was stopped exactly, `partial` when it was stopped by a weaker means (the
detail says which), and `absent` when it went through.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

from atelier_runner.carrier import Means
from atelier_runner.errors import RunnerError
from atelier_runner.model import MIB, Control, Exited, Limits, Reason, Spec

Try = Callable[[Spec], Awaitable[tuple[bytes, Exited]]]
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
PROCESSES = 12

# Runs inside; prints what it could do as one JSON object.
LOOK = """
import ctypes, json, os, signal, socket, sys
found = {}
found["namespaces"] = {name: os.readlink(f"/proc/self/ns/{name}") for name in %s}
found["uid"] = os.getuid()
found["interfaces"] = sorted(line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:])
for address in [("192.0.2.1", 9)] + [(host, int(port)) for host, port in zip(sys.argv[1::2], sys.argv[2::2])]:
    try:
        socket.create_connection(address, 0.5).close()
        found["network"] = "connected to " + address[0]
        break
    except OSError as error:
        found["network"] = type(error).__name__ + ": " + str(error.strerror or error)
libc = ctypes.CDLL(None, use_errno=True)
def succeeds(call):
    pid = os.fork()  # what went through must not change this process
    if not pid:
        os._exit(0 if call() == 0 else 1)
    return os.waitpid(pid, 0)[1] == 0
found["calls"] = {name: succeeds(call) for name, call in {
    "unshare": lambda: libc.unshare(0x10000000), "ptrace": lambda: libc.ptrace(0, 0, 0, 0),
}.items()}
try:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()
    found["calls"]["netlink"] = True
except OSError:
    found["calls"]["netlink"] = False
found["there"] = [path for path in ("/etc/shadow", "/root", "/home", "/var", "/sys", "/boot") if os.path.exists(path)]
found["writable"] = [path for path in ("/", "/usr", "/etc", "/dev", "/opt") if os.access(path, os.W_OK)]
children = []
try:
    while len(children) < 40:
        pid = os.fork()
        if not pid:
            signal.pause()
        children.append(pid)
except OSError:
    pass
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
found["processes"] = len(children) + 1
found["disk"] = {}
for folder in ("/work", "/tmp"):
    size = 0
    try:
        with open(folder + "/fill", "wb", buffering=0) as file:
            while size < 1 << 30:
                size += file.write(bytes(1 << 20))
    except OSError:
        pass
    found["disk"][folder] = size
    os.unlink(folder + "/fill")
print(json.dumps(found))
""" % (NAMESPACES,)  # noqa: UP031 - it is a program full of braces


async def examine(attempt: Try, means_of: Callable[[], Means]) -> tuple[tuple[Control, ...], str | None]:
    """Try every control; returns them, and why nothing can run when nothing can."""
    try:
        limits = Limits(wall_seconds=20, processes=PROCESSES)
        printed, result = await attempt(_spec(LOOK, limits, means_of().reach))
        found = json.loads(printed) if result.code == 0 else None
        if not isinstance(found, dict):
            return (
                (),
                f"A first program did not run as it should: {result.reason} {result.detail} {printed[-200:]!r}",
            )
        _, memory = await attempt(_spec("held = bytearray(256 << 20)", Limits(wall_seconds=20, memory_mb=48)))
        _, cpu = await attempt(_spec("while True: pass", Limits(wall_seconds=20, cpu_seconds=0.1)))
        _, wall = await attempt(_spec("import time; time.sleep(60)", Limits(wall_seconds=0.1)))
        kept, output = await attempt(_spec("print('x' * 5000)", Limits(wall_seconds=20, output_bytes=1000)))
    except RunnerError as error:
        return (), f"{error.detail} {error.hint}".strip()
    means = means_of()
    return (
        _namespaces(found, means), _files(found, means), _network(found, means), _calls(found, means),
        _held("identity", found["uid"] != 0, means.identity, means),
        _held("memory", memory.reason == Reason.MEMORY, means.memory, means),
        _held(
            "processes", found["processes"] <= PROCESSES,
            f"{found['processes']} of {PROCESSES} started; {means.processes}", means,
        ),
        _held("cpu time", cpu.reason == Reason.CPU_TIME, means.cpu, means),
        _disk(found),
        _stopped("wall time", wall, Reason.WALL_TIME, "by this server's clock"),
        _stopped("output", output, Reason.OUTPUT, f"the first {len(kept)} of 1000 bytes were kept"),
    ), None  # fmt: skip


def _spec(program: str, limits: Limits, reach: tuple[str, int] | None = None) -> Spec:
    args = () if reach is None else tuple(map(str, reach))
    return Spec("python", "probe.py", {"probe.py": program.encode()}, limits, args, stdin=b"")


def _control(name: str, good: bool, detail: str, *, partial: bool = False) -> Control:
    return Control(name, "absent" if not good else "partial" if partial else "enforced", detail)


def _namespaces(found: dict[str, Any], means: Means) -> Control:
    shared = [
        name for name in NAMESPACES if found["namespaces"][name] == os.readlink(f"/proc/self/ns/{name}")
    ]
    detail = (
        f"shared with this machine: {', '.join(shared)}" if shared else f"its own {', '.join(NAMESPACES)}"
    )
    return _control("namespaces", means.shared.issuperset(shared), detail, partial=bool(shared))


def _files(found: dict[str, Any], means: Means) -> Control:
    bad = [f"{path} is visible" for path in found["there"] if path in means.hidden] + [
        f"{path} is writable" for path in found["writable"]
    ]
    return _control("files", not bad, "; ".join(bad) or "only read-only system folders, /work and /tmp")


def _network(found: dict[str, Any], means: Means) -> Control:
    """Judge by what can be reached. Interfaces of its own are borne, as partial, where one was tried that would answer."""
    connected = found["network"].startswith("connected")
    alone = found["interfaces"] == ["lo"]
    detail = f"interfaces: {', '.join(found['interfaces'])}; a connection outwards: {found['network']}"
    return _control(
        "network", not connected and (alone or means.reach is not None), detail, partial=not alone
    )


def _calls(found: dict[str, Any], means: Means) -> Control:
    through = [name for name, passed in found["calls"].items() if passed]
    if not means.calls:
        return _control("system calls", False, f"no filter for {os.uname().machine}")
    return _control(
        "system calls",
        not through,
        f"went through: {', '.join(through)}" if through else means.calls,
    )


def _held(name: str, good: bool, detail: str, means: Means) -> Control:
    """Say how a control did, and what is weaker about it here."""
    weaker = means.partial.get(name)
    return _control(name, good, weaker or detail, partial=weaker is not None)


def _disk(found: dict[str, Any]) -> Control:
    most = max(found["disk"].values())
    detail = ", ".join(f"{folder} took {size // MIB} MiB" for folder, size in found["disk"].items())
    return _control("disk", most <= Limits().disk_mb * MIB, f"{detail}, then was full")


def _stopped(name: str, result: Exited, reason: Reason, detail: str) -> Control:
    return _control(
        name, result.reason == reason, detail if result.reason == reason else f"ended as {result.reason}"
    )
