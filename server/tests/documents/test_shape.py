"""What is refused before it is decoded, since decoding it would end the process or take its memory."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from atelier.documents import check_state, map_of, validate
from atelier.documents.edits import read_map
from atelier.documents.shape import DEEPEST, is_sane
from atelier.errors import Invalid
from atelier.log import Edit, open_log

HUGE = b"\xff\xff\xff\xff\x0f"
SIMPLE = (
    st.none()
    | st.booleans()
    | st.integers(-(2**31), 2**31)
    | st.floats(allow_nan=False)
    | st.text("uvé漢", max_size=9)
)
VALUES = st.recursive(
    SIMPLE, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text("uv", max_size=3), v, max_size=4)
)


def with_value(value: bytes) -> bytes:
    """An update that sets one entry of the map `files` to a value as lib0 encodes it."""
    return b"\x01\x01\x05\x00\x28\x01\x05files\x01k\x01" + value + b"\x00"


def nested(levels: int, opening: bytes) -> bytes:
    return with_value(opening * levels + b"\x7e")


@pytest.mark.parametrize("opening", [b"\x75\x01", b"\x76\x01\x00", b"\x75\x02\x7e", b"\x76\x02\x00\x7e\x01u"])
def test_values_that_nest_without_end_are_refused(opening: bytes) -> None:
    for levels in (1_000, 20_000, 1_000_000):
        with pytest.raises(Invalid) as refused:
            validate(nested(levels, opening))
        assert refused.value.code == "poison_update"


@pytest.mark.parametrize("opening", [b"\x75\x01", b"\x76\x01\x00", b"\x75\x02\x7e"])
def test_a_few_levels_are_fine(opening: bytes) -> None:
    many_letters = b"\x01\x02\x05\x00\x04\x01\x01c" + b"\xd0\x0f" + b"u" * 2_000
    for levels in (1, DEEPEST - 1):
        value = opening * levels + b"\x7e"
        validate(with_value(value))
        validate(many_letters + with_value(value)[4:])


@pytest.mark.parametrize(
    "bomb",
    [
        HUGE, b"\xff\xff\xff\x7f", HUGE + bytes(9), b"\xff\xff\xff\xff\x01" + bytes(9), b"\x05" + bytes(9),
        with_value(b"\x76\xff\xff\xff\x7f"), with_value(b"\x75\x01\x76\xff\xff\x7f"),
    ],
)  # fmt: skip
def test_more_entries_than_bytes_are_refused_at_once(bomb: bytes) -> None:
    begun = time.perf_counter()
    with pytest.raises(Invalid):
        validate(bomb)
    assert time.perf_counter() - begun < 0.05


@pytest.mark.parametrize("state", [b"", HUGE, b"\xff\xff\xff\x7f", b"\x02\x01\x01"])
def test_a_state_vector_of_more_clients_than_bytes_is_refused(state: bytes) -> None:
    begun = time.perf_counter()
    with pytest.raises(Invalid) as refused:
        check_state(state)
    assert refused.value.code == "bad_state_vector"
    assert time.perf_counter() - begun < 0.05


@given(st.lists(VALUES, min_size=1, max_size=5), st.integers(0, 10**6))
def test_everything_that_yjs_writes_passes_the_walk(values: list[Any], seed: int) -> None:
    doc: Doc[Any] = Doc(client_id=seed)
    text, kept, array = doc.get("content", type=Text), doc.get("files", type=Map), doc.get("a", type=Array)
    tree = doc.get("x", type=XmlFragment)
    dice = random.Random(seed)
    with doc.transaction():
        text.insert(0, "uv" * 600, {"bold": True})  # enough of both letters for the whole walk
        text.insert(3, "é漢😀v漢")
        for n, value in enumerate(values):
            kept[str(n)] = value
            array.append(value)
        kept["nested"] = Map({"in": Array([Text("uv"), Map({"v": 1})])})
        kept["raw"] = bytes(20)
        tree.children.append(XmlElement("p", {"u": "v"}, [XmlText("v漢漢")]))
        for _ in range(5):
            at = dice.randrange(30, 900)
            del text[at : at + 1]
        del array[0]
        kept["doc"] = Doc()
    update = bytes(doc.get_update())
    assert update.count(b"u") + update.count(b"v") > 1_000
    assert is_sane(update)
    validate(update)


@given(st.binary(max_size=300))
def test_no_bytes_end_the_walk_in_another_way(data: bytes) -> None:
    assert is_sane(data) in (True, False)
    assert is_sane(b"\x01\x01\x05\x00" + data + b"\x75" * 1_000) in (True, False)


def nested_types(levels: int) -> bytes:
    """Shared maps, each inside the one before: small structs that are all fine by themselves."""
    structs = [b"\x27\x01\x05files\x01k\x01"]
    for n in range(levels - 1):
        clock = bytes((n & 0x7F | 0x80, n >> 7 & 0x7F | 0x80, n >> 14))
        structs.append(b"\x27\x00\x05" + clock + b"\x01k\x01")
    return (
        b"\x01"
        + bytes((levels & 0x7F | 0x80, levels >> 7 & 0x7F | 0x80, levels >> 14))
        + b"\x05\x00"
        + b"".join(structs)
        + b"\x00"
    )


async def test_shared_types_that_nest_without_end_hide_nothing_else(tmp_path: object) -> None:
    deep = nested_types(50_000)
    validate(deep)
    assert read_map(deep, "files") == {"k": {}}
    async with open_log(f"sqlite:///{tmp_path}/log.db") as log:
        await log.append("ses_a:tree", [Edit(deep, "usr_a", 1)])
        assert await map_of(log, "ses_a:tree", "files") == {"k": {}}
