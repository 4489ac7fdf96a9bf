"""The engine's profile decides every call as the filter does that the local carrier loads."""

from __future__ import annotations

import random
from typing import Any

import pytest

from atelier_runner import seccomp
from atelier_runner.seccomp_profile import others, profile
from atelier_runner.syscalls import ARCHITECTURES

from .test_seccomp import ALLOW, ERRNO, verdict

ARCHITECTURE = ARCHITECTURES["x86_64"]
PROFILE: dict[str, Any] = profile()


def decided(name: str, *arguments: int) -> int:
    """Read the profile as an engine does; returns the filter's word for what becomes of the call."""
    for rule in PROFILE["syscalls"]:
        if name in rule["names"] and all(
            arguments[arg["index"]] & arg["value"] == arg["valueTwo"] for arg in rule["args"]
        ):
            return ERRNO | int(rule["errnoRet"])
    assert PROFILE["defaultAction"] == "SCMP_ACT_ALLOW"
    return ALLOW


NUMBERS = [
    *range(64), *(1 << bit for bit in range(32)), *((1 << bit) - 1 for bit in range(33)), 0x5412, 0x541C, 0x541D,
    0x003D0F00, 0x01200011, 0xFFFFFFFE,
]  # fmt: skip


@pytest.mark.parametrize("name", sorted(ARCHITECTURE.numbers))
def test_both_decide_alike(name: str) -> None:
    code = seccomp.compile_filter(ARCHITECTURE)
    chance = random.Random(name)
    for number in [*NUMBERS, *(chance.getrandbits(32) for _ in range(200))]:
        for upper in (0, 1 << 32, 0xFFFFFFFF << 32):  # the kernel does not look there
            arguments = (number | upper, number | upper)
            expected = verdict(code, ARCHITECTURE.numbers[name], ARCHITECTURE.audit, *arguments)
            assert decided(name, *arguments) == expected, (name, hex(arguments[0]))


@pytest.mark.parametrize("values", [{0}, {0xFFFFFFFF}, {0, 0xFFFFFFFF}, {1, 2, 10}, {5, 6, 7, 1 << 31}])
def test_the_masks_match_every_number_but_those(values: set[int]) -> None:
    masks = list(others(values))
    chance = random.Random(len(values))
    for number in [*NUMBERS, *values, *(chance.getrandbits(32) for _ in range(2000))]:
        found = sum(number & mask == value for mask, value in masks)
        assert found == (0 if number & 0xFFFFFFFF in values else 1)
