"""The system-call filter of `seccomp` once more, as the JSON profile that a container engine takes.

Both come from the same lists and refuse the same calls (`tests/test_seccomp.py` holds them against each other). A profile
can only name arguments that are to be refused, by equality under a mask; "every family but these" therefore becomes
the masks that together match every other number.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import Any, Final

from atelier_runner.seccomp import CLONE_NEW, PERSONALITIES, SOCKET_FAMILIES, TERMINAL_INJECTION
from atelier_runner.syscalls import DENIED

WORD: Final = 0xFFFFFFFF
"""These arguments are 32 bits wide; the kernel ignores the upper half of the register, and so must the filter."""


def profile() -> dict[str, Any]:
    """Return the profile. Calls through a foreign architecture kill, since it names none but the machine's own."""
    rules = [
        _rule(DENIED, errno.EPERM),
        # Its flags lie in memory that a filter cannot read; libc then falls back to `clone`, whose flags it can.
        _rule(["clone3"], errno.ENOSYS),
        *(_rule(["clone"], errno.EPERM, 0, 1 << bit, 1 << bit) for bit in range(32) if CLONE_NEW >> bit & 1),
        *(_rule(["ioctl"], errno.EPERM, 1, WORD, request) for request in TERMINAL_INJECTION),
        *(
            _rule(["socket", "socketpair"], errno.EAFNOSUPPORT, 0, mask, value)
            for mask, value in others(SOCKET_FAMILIES)
        ),
        *(_rule(["personality"], errno.EPERM, 0, mask, value) for mask, value in others(PERSONALITIES)),
    ]
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}


def others(values: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield (mask, value) pairs that together match every 32-bit number but `values`.

    Going down from the highest bit, a prefix that leaves those of all `values` is matched as a whole.
    """
    kept = set(values)
    for bit in reversed(range(32)):
        prefixes = {value >> bit for value in kept}
        for parent in {value >> (bit + 1) for value in kept}:
            for prefix in (parent << 1, parent << 1 | 1):
                if prefix not in prefixes:
                    yield WORD << bit & WORD, prefix << bit


def _rule(
    names: Iterable[str], error: int, index: int | None = None, mask: int = 0, value: int = 0
) -> dict[str, Any]:
    condition = {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
    args = [] if index is None else [condition]
    return {"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": error, "args": args}
