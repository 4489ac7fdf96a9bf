"""Finds out what this machine enforces by trying each control in a real sandbox.

A control is `enforced` when the attempt was stopped exactly, `partial` when it was stopped by a weaker means (the
detail says which), and `absent` when it went through.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

from atelier_runner.errors import RunnerError
from atelier_runner.model import MIB, Control, Exited, Limits, Reason, Spec
from atelier_runner.sandbox import Setup

Try = Callable[[Spec], Awaitable[tuple[bytes, Exited]]]
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
PROCESSES = 12

# Runs inside; prints what it could do as one JSON object.
LOOK = """
import ctypes, json, os, signal, socket
found = {}
found["namespaces"] = {name: os.readlink(f"/proc/self/ns/{name}") for name in %s}
found["uid"] = os.getuid()
found["interfaces"] = sorted(line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:])
try:
    with socket.socket() as one:
        one.settimeout(0.2)
        one.connect(("192.0.2.1", 9))
    found["network"] = "connected"
except OSError as error:
    found["network"] = type(error).__name__ + ": " + str(error.strerror)
libc = ctypes.CDLL(None, use_errno=True)
found["calls"] = {name: call() == 0 for name, call in {
    "unshare": lambda: libc.unshare(0x10000000), "ptrace": lambda: libc.ptrace(0, 0, 0, 0),
}.items()}
try:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()
    found["calls"]["netlink"] = True
except OSError:
    found["calls"]["netlink"] = False
found["visible"] = [path for path in ("/etc/shadow", "/root", "/home", "/var", "/sys", "/boot") if os.path.exists(path)]
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


async def examine(attempt: Try, setup: Setup) -> tuple[tuple[Control, ...], str | None]:
    """Try every control; returns them, and why nothing can run when nothing can."""
    try:
        printed, result = await attempt(_spec(LOOK, Limits(wall_seconds=20, processes=PROCESSES)))
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
    return (
        _namespaces(found), _files(found), _network(found), _calls(found, setup), _identity(found, setup),
        _memory(memory, setup), _processes(found, setup), _cpu(cpu, setup), _disk(found),
        _stopped("wall time", wall, Reason.WALL_TIME, "by this server's clock"),
        _stopped("output", output, Reason.OUTPUT, f"the first {len(kept)} of 1000 bytes were kept"),
    ), None  # fmt: skip


def _spec(program: str, limits: Limits) -> Spec:
    return Spec("python", "probe.py", {"probe.py": program.encode()}, limits, stdin=b"")


def _control(name: str, good: bool, detail: str, *, partial: bool = False) -> Control:
    return Control(name, "absent" if not good else "partial" if partial else "enforced", detail)


def _namespaces(found: dict[str, Any]) -> Control:
    shared = [
        name for name in NAMESPACES if found["namespaces"][name] == os.readlink(f"/proc/self/ns/{name}")
    ]
    detail = (
        f"shared with this machine: {', '.join(shared)}" if shared else f"its own {', '.join(NAMESPACES)}"
    )
    return _control("namespaces", shared in ([], ["cgroup"]), detail, partial=bool(shared))


def _files(found: dict[str, Any]) -> Control:
    bad = [f"{path} is visible" for path in found["visible"]] + [
        f"{path} is writable" for path in found["writable"]
    ]
    return _control("files", not bad, "; ".join(bad) or "only read-only system folders, /work and /tmp")


def _network(found: dict[str, Any]) -> Control:
    good = found["network"] != "connected" and found["interfaces"] == ["lo"]
    return _control(
        "network",
        good,
        f"interfaces: {', '.join(found['interfaces'])}; a connection outwards: {found['network']}",
    )


def _calls(found: dict[str, Any], setup: Setup) -> Control:
    through = [name for name, passed in found["calls"].items() if passed]
    if setup.seccomp is None:
        return _control("system calls", False, f"no filter for {os.uname().machine}")
    return _control(
        "system calls",
        not through,
        f"went through: {', '.join(through)}" if through else "filtered by seccomp",
    )


def _identity(found: dict[str, Any], setup: Setup) -> Control:
    if setup.dedicated_uids:
        return _control("identity", found["uid"] != 0, "each sandbox is a user of its own who owns nothing")
    if setup.spare_uid is not None:
        return _control("identity", found["uid"] != 0, "sandboxes share the user nobody", partial=True)
    detail = (
        "outside, a sandbox is the server's own user; its namespaces hide that user's files and processes"
    )
    return _control("identity", found["uid"] != 0, detail, partial=True)


def _memory(result: Exited, setup: Setup) -> Control:
    if (version := setup.groups.controllers.get("memory")) is not None:
        return _control("memory", result.reason == Reason.MEMORY, f"by cgroup v{version}")
    why = setup.groups.missing.get("memory", "")
    return _control(
        "memory",
        result.reason == Reason.MEMORY,
        f"watched ten times a second: no memory cgroup ({why})",
        partial=True,
    )


def _processes(found: dict[str, Any], setup: Setup) -> Control:
    version = setup.groups.controllers.get("pids")
    means = (
        f"by cgroup v{version}" if version is not None else "by RLIMIT_NPROC in the sandbox's user namespace"
    )
    return _control(
        "processes", found["processes"] <= PROCESSES, f"{found['processes']} of {PROCESSES} started; {means}"
    )


def _cpu(result: Exited, setup: Setup) -> Control:
    if (version := setup.groups.controllers.get("cpuacct")) is not None:
        return _control(
            "cpu time",
            result.reason == Reason.CPU_TIME,
            f"of all processes together, counted by cgroup v{version}",
        )
    why = setup.groups.missing.get("cpuacct", "")
    return _control(
        "cpu time",
        result.reason == Reason.CPU_TIME,
        f"added up from /proc: no cgroup counts it ({why})",
        partial=True,
    )


def _disk(found: dict[str, Any]) -> Control:
    most = max(found["disk"].values())
    detail = ", ".join(f"{folder} took {size // MIB} MiB" for folder, size in found["disk"].items())
    return _control("disk", most <= Limits().disk_mb * MIB, f"{detail}, then was full")


def _stopped(name: str, result: Exited, reason: Reason, detail: str) -> Control:
    return _control(
        name, result.reason == reason, detail if result.reason == reason else f"ended as {result.reason}"
    )
