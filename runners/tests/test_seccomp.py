"""The filter as a program: run here by a small interpreter of its own, instruction by instruction."""

from __future__ import annotations

import struct

import pytest

from atelier_runner import seccomp
from atelier_runner.syscalls import ARCHITECTURES

X86_64 = 0xC000003E
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


def verdict(program: bytes, number: int, architecture: int = X86_64, *arguments: int) -> int:
    """Run a classic BPF program over a seccomp_data; returns its verdict."""
    data = struct.pack("<iIQ6Q", number, architecture, 0, *(list(arguments) + [0] * 6)[:6])
    code = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    while True:
        operation, yes, no, value = code[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif operation in (0x15, 0x35, 0x25, 0x45):
            holds = {
                0x15: accumulator == value,
                0x35: accumulator >= value,
                0x25: accumulator > value,
                0x45: bool(accumulator & value),
            }
            at += yes if holds[operation] else no
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x05:
            at += value
        elif operation == 0x06:
            return int(value)
        else:
            raise AssertionError(hex(operation))


@pytest.fixture(scope="module")
def program() -> bytes:
    """The filter for x86-64."""
    return seccomp.compile_filter(ARCHITECTURES["x86_64"])


@pytest.mark.parametrize("number", [0, 1, 2, 9, 39, 59, 60, 231])
def test_ordinary_calls_pass(program: bytes, number: int) -> None:
    assert verdict(program, number) == ALLOW


@pytest.mark.parametrize(
    "number", [101, 165, 166, 250, 272, 298, 308, 321, 323, 425, 426, 427, 155, 175, 313, 246, 304]
)
def test_dangerous_calls_do_not(program: bytes, number: int) -> None:
    assert verdict(program, number) != ALLOW


@pytest.mark.parametrize(
    ("family", "passes"),
    [(1, True), (2, True), (10, True), (16, False), (17, False), (38, False), (40, False)],
)
def test_only_three_socket_families_pass(program: bytes, family: int, passes: bool) -> None:
    assert (verdict(program, 41, X86_64, family) == ALLOW) == passes


def test_foreign_architectures_and_x32_end_the_process_or_fail(program: bytes) -> None:
    assert verdict(program, 1, 0x40000003) != ALLOW
    assert verdict(program, 0x40000000 | 1) != ALLOW


def test_new_user_namespaces_by_clone_fail_and_threads_do_not(program: bytes) -> None:
    assert verdict(program, 56, X86_64, 0x10000000) != ALLOW
    assert verdict(program, 56, X86_64, 0x003D0F00) == ALLOW
    assert verdict(program, 435) != ALLOW
