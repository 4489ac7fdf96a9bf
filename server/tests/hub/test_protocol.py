"""Frames, presence and deletions as bytes: what decodes, what is refused, and that nothing else ever happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.errors import AtelierError, BadRequest, TooMany
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
    sized,
    split_envelope,
    uint,
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


@pytest.mark.parametrize("frame", ["", "00", "0003", "0002ff", "06", "0b", "000205", "ff" * 12, "0200ff"])
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


def said(client: int, clock: int, state: str) -> bytes:
    return uint(1) + uint(client) + uint(clock) + sized(state.encode())


def heard(presence: Presence, clients: object) -> list[tuple[int, int, str]]:
    reader = protocol.Reader(presence.news(clients))  # type: ignore[arg-type]
    return [(reader.uint(), reader.uint(), reader.string()) for _ in range(reader.uint())]


def new() -> Presence:
    return Presence(most_clients=2, most_bytes=200)


def test_the_server_says_who_somebody_is() -> None:
    presence = new()
    outcome = presence.receive("a", ADA, said(7, 1, '{"user":{"name":"Bob"},"cursor":1}'))
    ((client, clock, state),) = heard(presence, outcome.changed)
    assert (client, clock) == (7, 1)
    assert '"name":"Ada"' in state
    assert '"cursor":1' in state


def test_a_foreign_client_id_is_ignored_since_clients_send_back_what_they_hear() -> None:
    presence = new()
    presence.receive("a", ADA, said(7, 1, "{}"))
    for state in ('{"user":{}}', "null"):
        assert presence.receive("b", BOB, said(7, 9, state)).changed == frozenset()
    assert len(presence) == 1


def test_one_s_other_connection_takes_an_id_over_at_a_higher_clock_only() -> None:
    presence = new()
    presence.receive("old", ADA, said(7, 1, "{}"))
    assert presence.receive("new", ADA, said(7, 1, "{}")).changed == frozenset()  # sent back, no claim
    assert presence.receive("new", ADA, said(7, 2, "{}")).changed == {7}
    assert presence.leave("old") == frozenset()
    assert presence.leave("new") == {7}


def test_a_removal_goes_out_at_the_same_clock() -> None:
    presence = new()
    presence.receive("a", ADA, said(7, 5, "{}"))
    assert heard(presence, presence.leave("a")) == [(7, 5, "null")]


def test_who_comes_back_at_a_clock_that_the_others_saw_as_gone_is_asked_to_say_it_anew() -> None:
    presence = new()
    presence.receive("a", ADA, said(7, 5, "{}"))
    presence.leave("a")
    probe = presence.receive("a2", ADA, said(7, 5, "{}")).probe
    assert probe == said(7, 5, "null")
    assert presence.receive("a2", ADA, said(7, 6, "{}")).probe is None


def test_what_is_silent_for_thirty_seconds_goes_and_renewals_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("atelier.hub.presence.time.monotonic", lambda: clock[0])
    presence = new()
    presence.receive("a", ADA, said(7, 1, "{}"))
    presence.receive("b", BOB, said(8, 1, "{}"))
    clock[0] += 20
    presence.receive("a", ADA, said(7, 1, "{}"))
    clock[0] += 15
    assert presence.expire() == {8}


@pytest.mark.parametrize("state", ["[]", "1", "{", '"x"', '{"x":"' + "y" * 300 + '"}', "[" * 100_000])
def test_states_that_are_no_small_object_are_refused(state: str) -> None:
    with pytest.raises(BadRequest):
        new().receive("a", ADA, said(1, 1, state))


def test_a_flood_of_made_up_clients_is_refused() -> None:
    presence = new()
    with pytest.raises(TooMany):
        presence.receive("a", ADA, uint(3) + b"".join(said(n, 1, "{}")[1:] for n in range(3)))
    with pytest.raises(BadRequest):
        presence.receive("a", ADA, uint(100_000))


def test_deletions_are_read_and_compared() -> None:
    known = deletions(bytes.fromhex("00" + "01" + "05" + "02" + "0003" + "0302"))
    assert known == {5: [(0, 5)]}
    assert covers(known, {5: [(1, 4)]})
    assert not covers(known, {5: [(4, 6)]})
    assert not covers(known, {6: [(0, 1)]})
    assert only_deletions(b"\x00\x00")
    assert deletions(b"\x00\x01") is None
