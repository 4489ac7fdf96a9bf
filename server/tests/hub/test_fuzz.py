"""Fuzzing: bytes near to what is right, fed to every decoder for a stated time.

Each decodes or refuses by name, within bounded time and memory; what an update's check lets pass, everything behind it
can work with. `--fuzz-seconds N` feeds each decoder for so long; a failure prints the bytes.
"""

from __future__ import annotations

import base64
import os
import random
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from pycrdt import Array, Doc, Map, Text

from atelier.documents import EMPTY_UPDATE, check_state, fold, is_valid, ranges, sized, text_in, uint
from atelier.documents.compact import compacted
from atelier.errors import AtelierError
from atelier.hub.deletions import deletions
from atelier.hub.presence import Identity, Presence
from atelier.hub.protocol import parse, split_envelope
from atelier.hub.shelf import Shelf
from atelier.log import NOTHING, Edit, Entry, Stored
from atelier.log.streams import told

from .clients import node

pytestmark = pytest.mark.timeout(0)
ADA = Identity("usr_a", "Ada")
MOST_GROWTH = 200 * 1024 * 1024  # bytes
SLOWEST = 2.0  # seconds for one input of at most some kilobytes


def updates() -> list[bytes]:
    """Real updates of every kind of content."""
    doc: Doc[Any] = Doc()
    made: list[bytes] = []
    keep = doc.observe(lambda event: made.append(bytes(event.update)))
    text = doc.get("content", type=Text)
    for words in ("a", "hello é😀", "漢" * 50, "x" * 2000):
        text += words
    del text[0:5]
    doc.get("files", type=Map)["a"] = Map({"path": "b", "deep": Array([1, None, 2.5, {"x": [True]}])})
    doc.get("list", type=Array).extend([1, "two", b"three", {"four": 4}])
    assert keep is not None
    return [*made, bytes(doc.get_update()), EMPTY_UPDATE]


def mutated(draw: random.Random, seeds: list[bytes]) -> bytes:
    """Change a seed in one to eight places: flipped, cut, doubled, made huge, joined with another."""
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.randint(1, 8)):
        at = draw.randrange(len(data) + 1)
        match draw.randrange(7):
            case 0 if data:
                data[at % len(data)] ^= 1 << draw.randrange(8)
            case 1:
                del data[at : at + draw.randint(1, 8)]
            case 2:
                data[at:at] = data[at : at + draw.randint(1, 20)]
            case 3:
                data[at:at] = uint(draw.choice((0, 1, 127, 128, 2**31, 2**32 - 1, 2**53 - 1, 2**53, 2**63)))
            case 4:
                data[at:at] = draw.randbytes(draw.randint(1, 6))
            case 5:
                other = draw.choice(seeds)
                data[at:] = other[draw.randrange(len(other) + 1) :]
            case _:
                data[at:at] = b"\xff" * draw.randint(1, 12)
    return bytes(data[:8000])


def feed(request: pytest.FixtureRequest, seeds: list[bytes], decode: Callable[[bytes], object]) -> None:
    """Feed a decoder; says how much it was, and fails with the bytes."""
    seconds = float(request.config.getoption("--fuzz-seconds"))
    draw = random.Random(int(os.environ.get("ATELIER_SEED", "0")) or time.time_ns())
    process = psutil.Process()
    before, count, taken = process.memory_info().rss, 0, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutated(draw, seeds)
        began = time.monotonic()
        try:
            decode(data)
            taken += 1
        except AtelierError as error:
            assert error.code, data.hex()
        except BaseException as error:
            raise AssertionError(f"{type(error).__name__}: {error}: {data.hex()}") from error
        assert time.monotonic() - began < SLOWEST, data.hex()
        count += 1
    grown = process.memory_info().rss - before
    assert grown < MOST_GROWTH, f"{grown:,} bytes more"
    print(
        f"{request.node.name}: {count:,} inputs in {seconds:.0f} s, {taken:,} decoded, {grown // 1024:,} KiB more"
    )


@pytest.mark.parametrize("decode", [parse, split_envelope])
def test_frames(request: pytest.FixtureRequest, decode: Callable[[bytes], object]) -> None:
    frames = [
        b"\x00\x00" + sized(b"\x00"),
        b"\x01" + sized(b"\x00"),
        b"\x02\x00" + sized(b"token"),
        b"\x03",
        b"\x09",
    ]
    frames += [b"\x00" + bytes([step]) + sized(update) for update in updates() for step in (0, 1, 2)]
    feed(request, frames + [sized(b"doc_a") + frame for frame in frames], decode)


def test_presence(request: pytest.FixtureRequest) -> None:
    presence = Presence(most_clients=8, most_bytes=500)
    seeds = [
        uint(n) + b"".join(uint(client) + uint(2) + sized(state) for client in range(n))
        for n in (0, 1, 3)
        for state in (
            b"{}",
            b"null",
            b'{"user":{"name":"x"},"cursor":{"anchor":{"type":null}}}',
            '{"a":"😀"}'.encode(),
        )
    ]

    def decode(data: bytes) -> None:
        outcome = presence.receive("a", ADA, data)
        presence.news(outcome.changed)
        presence.everybody()

    feed(request, seeds, decode)


def test_state_vectors(request: pytest.FixtureRequest) -> None:
    docs = [
        uint(2) + uint(5) + uint(9) + uint(2**31) + uint(1),
        b"\x00",
        uint(1) + uint(2**32 - 1) + uint(2**31),
    ]
    feed(request, docs, check_state)


def test_deletions(request: pytest.FixtureRequest) -> None:
    feed(request, updates(), deletions)


def test_updates_that_pass_can_be_worked_with(request: pytest.FixtureRequest) -> None:
    good = Entry(1, Edit(updates()[-2], "usr_a", 1))

    def decode(data: bytes) -> None:
        if not is_valid(data):
            return
        ranges(data)
        stored = Stored(NOTHING, (good, Entry(2, Edit(data, "usr_b", 2))))
        snapshot = compacted(stored)
        text_in(fold([segment.update for segment in snapshot.segments]))
        shelf = Shelf(stored)
        list(shelf.updates_for(b"\x00"))
        shelf.whole_for(uint(1) + uint(1) + uint(1))

    feed(request, updates(), decode)


def test_what_redis_says(request: pytest.FixtureRequest) -> None:
    def decode(data: bytes) -> None:
        try:
            told(data)
        except (ValueError, IndexError):
            return
        except Exception as error:
            assert "unpack" in str(error), error

    feed(request, [bytes(12), bytes(7) + b"\x05" + bytes(3) + b"\x01" + b"\x00\x00\x00\x02ab"], decode)


@pytest.mark.node
async def test_no_browser_throws_on_what_is_passed_on_to_it(request: pytest.FixtureRequest) -> None:
    """Real Yjs, with the document open, takes every made-up update that our check lets pass."""
    seconds = float(request.config.getoption("--fuzz-seconds"))
    draw = random.Random(int(os.environ.get("ATELIER_SEED", "0")) or time.time_ns())
    seeds, count, passed = updates(), 0, 0
    document = base64.b64encode(seeds[-2]).decode()
    end = time.monotonic() + seconds
    async with node("histories.mjs") as yjs:
        while time.monotonic() < end:
            inputs = [mutated(draw, seeds) for _ in range(1000)]
            good = [data for data in inputs if is_valid(data)]
            count, passed = count + len(inputs), passed + len(good)
            encoded = [base64.b64encode(data).decode() for data in good]
            for data, error in zip(good, await yjs.ask("take", open=document, updates=encoded), strict=True):
                assert error is None, f"{error}: {data.hex()}"
    print(f"{count:,} inputs in {seconds:.0f} s, {passed:,} passed on, none of them threw in Yjs")
