"""Builds the system-call filter of a sandbox as a classic BPF program; bubblewrap loads it (`--seccomp FD`).

A deny list: programs of any language must run, so what is refused is what reaches past the process itself (see
`syscalls.DENIED`). Calls made through a foreign architecture or the x32 ABI kill the process, since their numbers mean
something else. `clone3` is answered with ENOSYS because its flags lie in memory that a filter cannot read; libc then
falls back to `clone`, whose flags it can.
"""

from __future__ import annotations

import errno
import platform
import struct
from typing import Final

from atelier_runner.syscalls import ARCHITECTURES, DENIED, Architecture

# Opcodes of linux/bpf_common.h, return values of linux/seccomp.h, offsets in struct seccomp_data.
LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
JUMP_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JUMP_GREATER_EQUAL: Final = 0x35
JUMP_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
RETURN: Final = 0x06
ALLOW: Final = 0x7FFF0000
KILL_PROCESS: Final = 0x80000000
ERRNO: Final = 0x00050000
NUMBER_OFFSET: Final = 0
ARCHITECTURE_OFFSET: Final = 4
ARGUMENTS_OFFSET: Final = 16

X32_BIT: Final = 0x40000000
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. NEWTIME's bit is part of clone's signal number.
CLONE_NEW: Final = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
SOCKET_FAMILIES: Final = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6
TERMINAL_INJECTION: Final = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: typing into the terminal of somebody else
PERSONALITIES: Final = (0, 0xFFFFFFFF)  # PER_LINUX, and the query

Instruction = tuple[int, int, int, int]
"""(opcode, jump if true, jump if false, constant)"""


def machine() -> Architecture | None:
    """Return this machine's architecture, or None when there is no filter for it."""
    return ARCHITECTURES.get(
        {"amd64": "x86_64", "arm64": "aarch64"}.get(name := platform.machine().lower(), name)
    )


def program(architecture: Architecture) -> list[Instruction]:
    """Return the filter's instructions."""
    number = architecture.numbers
    refuse = _refuse(errno.EPERM)
    code: list[Instruction] = [
        (LOAD, 0, 0, ARCHITECTURE_OFFSET),
        (JUMP_EQUAL, 1, 0, architecture.audit),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, NUMBER_OFFSET),
    ]
    if architecture.x32:
        code += [(JUMP_GREATER_EQUAL, 0, 1, X32_BIT), (RETURN, 0, 0, KILL_PROCESS)]
    for name in DENIED:
        if name in number:
            code += [(JUMP_EQUAL, 0, 1, number[name]), refuse]
    code += [(JUMP_EQUAL, 0, 1, number["clone3"]), _refuse(errno.ENOSYS)]
    code += _when(number["clone"], 0, [(JUMP_ANY_BIT, 0, 1, CLONE_NEW), refuse])
    code += _when(
        number["ioctl"], 1, [line for bad in TERMINAL_INJECTION for line in ((JUMP_EQUAL, 0, 1, bad), refuse)]
    )
    for call in ("socket", "socketpair"):
        code += _when(number[call], 0, _only(SOCKET_FAMILIES, errno.EAFNOSUPPORT))
    code += _when(number["personality"], 0, _only(PERSONALITIES, errno.EPERM))
    return [*code, (RETURN, 0, 0, ALLOW)]


def compile_filter(architecture: Architecture) -> bytes:
    """Return the filter as `struct sock_filter[]` in this machine's byte order."""
    return b"".join(struct.pack("=HBBI", *line) for line in program(architecture))


def _refuse(error: int) -> Instruction:
    return (RETURN, 0, 0, ERRNO | error)


def _only(values: tuple[int, ...], error: int) -> list[Instruction]:
    """Allow the argument's `values` and refuse every other; ends the program either way."""
    last = len(values)
    return [
        *((JUMP_EQUAL, last - at, 0, value) for at, value in enumerate(values)),
        _refuse(error),
        (RETURN, 0, 0, ALLOW),
    ]


def _when(number: int, argument: int, body: list[Instruction]) -> list[Instruction]:
    """Run `body` on the low half of an argument of one call; what falls through is allowed (the number is gone)."""
    load = (LOAD, 0, 0, ARGUMENTS_OFFSET + 8 * argument)
    block = [load, *body, (RETURN, 0, 0, ALLOW)]
    return [(JUMP_EQUAL, 0, len(block), number), *block]
