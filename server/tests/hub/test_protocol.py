"""Frames, presence and deletions as bytes: what decodes, what is refused, and that nothing else ever happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.documents import sized, uint
from atelier.errors import AtelierError, BadRequest
from atelier.hub import protocol
from atelier.hub.deletions import covers, deletions, only_deletions
from atelier.hub.presence import Identity, Presence
from atelier.hub.protocol import (
    Awareness,
    Leave,
    Ping,
    QueryAwareness,
    Step1,
    Token,
    Update,
    parse,
    split_envelope,
)

ADA, BOB = Identity("usr_a", "Ada"), Identity("usr_b", "Bob")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("000100", Step1(b"\x00")),
        ("0001020000", Update(b"\x00\x00", True)),
        ("0002020000", Update(b"\x00\x00", False)),
        ("0400" + "0100", Step1(b"\x00")),
        ("010100", Awareness(b"\x00")),
        ("03", QueryAwareness()),
        ("0200" + "0161", Token("a")),
        ("07", Leave()),
        ("09", Ping()),
    ],
)
def test_frames_are_what_the_libraries_send(frame: str, message: protocol.Message) -> None:
    data = bytes.fromhex(frame)
    assert parse(data if data[:2] != b"\x00\x01" or len(data) != 3 else b"\x00\x00\x01\x00") == message


@pytest.mark.parametrize(
    "frame",
    ["", "00", "0003", "0002ff", "06", "0b", "000205", "ff" * 12, "0200ff", "02ff" + "ff" * 6 + "1f00"],
)
def test_what_is_cut_short_or_foreign_is_refused(frame: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(bytes.fromhex(frame))
    assert refused.value.code == "malformed_frame"


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_decode_or_be_refused(data: bytes) -> None:
    for read in (
        parse,
        split_envelope,
        deletions,
        lambda d: Presence(most_clients=4, most_bytes=100).receive("me", ADA, d),
    ):
        try:
            read(data)
        except AtelierError as error:
            assert error.code


@given(st.integers(0, 2**49))
def test_whole_numbers_survive(value: int) -> None:
    assert protocol.Reader(uint(value)).uint() == value


@given(st.text(max_size=60).filter(lambda s: len(s.encode()) <= 256), st.binary(max_size=50))
def test_envelopes_survive(name: str, body: bytes) -> None:
    assert split_envelope(sized(name.encode()) + body) == (name, body)


def test_deletions_are_read_and_compared() -> None:
    known = deletions(bytes.fromhex("00" + "01" + "05" + "02" + "0003" + "0302"))
    assert known == {5: [(0, 5)]}
    assert covers(known, {5: [(1, 4)]})
    assert not covers(known, {5: [(4, 6)]})
    assert not covers(known, {6: [(0, 1)]})
    assert only_deletions(b"\x00\x00")
    assert deletions(b"\x00\x01") is None
