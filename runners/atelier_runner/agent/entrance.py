"""The way into a pod: lays the agent down, takes the system-call filter upon this process, and becomes the agent.

Nodes of a cluster have no filter of ours, and the agent brings it along: a process that can gain no privileges may
restrict itself, and all that it starts, for good. `found` is what came over the stream before: the agent's files by
their path, and the filter for each machine type.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
INSTRUCTION_BYTES = 8


class Filter(ctypes.Structure):
    """The kernel's `struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def enter(found: dict) -> None:
    """Become the agent, or say on standard error why not and end."""
    for path, content in found["files"].items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    machine = os.uname().machine
    code = found["filters"].get(machine)
    if code is None:
        refuse(f"there is no system-call filter for {machine}")
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    loaded = Filter(len(code) // INSTRUCTION_BYTES, code)
    address = ctypes.addressof(loaded)
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, address, 0, 0):
        refuse(f"the kernel does not take the system-call filter: {os.strerror(ctypes.get_errno())}")
    os.execv(sys.executable, ["python3", found["agent"]])


def refuse(why: str) -> None:
    os.write(2, f"{why}\n".encode())
    os._exit(1)
