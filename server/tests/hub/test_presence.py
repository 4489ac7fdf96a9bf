"""Presence: nobody poses as somebody else, nobody hides somebody else, and who is gone is shown as gone."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, rule

from atelier.documents import sized, uint
from atelier.errors import BadRequest, TooMany
from atelier.hub import protocol
from atelier.hub.presence import Identity, Presence

ADA, BOB = Identity("usr_a", "Ada"), Identity("usr_b", "Bob")


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


def test_one_whose_connection_begins_at_the_clock_of_the_one_before_is_asked_to_say_it_anew() -> None:
    presence = new()
    presence.receive("old", ADA, said(7, 4, "{}"))
    assert presence.receive("new", BOB, said(7, 4, "{}"), first=True).probe is None
    assert presence.receive("new", ADA, said(7, 4, "{}"), first=True).probe == said(7, 4, "null")
    assert presence.receive("new", ADA, said(7, 5, "{}")).changed == {7}


def test_what_another_process_tells_is_shown_and_not_told_on() -> None:
    here, there = new(), new()
    there.receive("a", ADA, said(7, 1, '{"cursor":1}'))
    here.receive("b", BOB, said(8, 1, "{}"))
    assert here.hear(b"there", there.news([7])) == {7}
    assert here.hear(b"there", there.news([7])) == frozenset()
    assert here.everybody() != there.everybody()
    assert here.own() == [8]
    assert there.hear(b"here", here.news([7, 8])) == {8}  # of its own it knows better
    there.leave("a")
    assert here.hear(b"there", there.news([7])) == {7}
    assert heard(here, [7]) == [(7, 1, "null")]
    assert here.hear(b"there", said(7, 1, '{"user":{"id":"usr_a"}}')) == frozenset()  # said before it left


def test_one_who_comes_back_at_another_process_is_taken_over_and_told_gone_by_nobody() -> None:
    here, there = new(), new()
    there.receive("old", ADA, said(7, 3, "{}"))
    here.hear(b"there", there.news([7]))
    assert here.receive("new", ADA, said(7, 3, "{}"), first=True).probe == said(7, 3, "null")
    assert here.receive("new", ADA, said(7, 4, "{}")).changed == {7}
    assert there.hear(b"here", here.news([7])) == {7}
    assert there.leave("old") == frozenset()
    assert here.hear(b"there", said(7, 3, "null")) == frozenset()
    assert here.own() == [7]
    assert there.own() == []


def test_nobody_is_hidden_by_another_process_that_says_the_same_id_of_somebody_else() -> None:
    presence = new()
    presence.receive("a", ADA, said(7, 1, "{}"))
    assert presence.hear(b"there", said(7, 9, '{"user":{"id":"usr_b"}}')) == frozenset()
    assert presence.own() == [7]


def test_what_goes_to_other_processes_is_cut_into_parts_that_hold_everything() -> None:
    presence = Presence(most_clients=100, most_bytes=2000)
    state = json.dumps({"x": "y" * 900})
    for client in range(100):
        presence.receive("a", ADA, said(client, 1, state))
    parts = presence.parts(range(100), 8_000)
    assert len(parts) > 10
    assert max(map(len, parts)) < 9_100
    other = new()
    assert sum(len(other.hear(b"there", part)) for part in parts) == 100
    assert presence.parts([], 8_000) == []


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


@pytest.mark.parametrize("state", ['{"x":NaN}', '{"x":[Infinity]}', '{"x":1e999}'])
def test_what_no_json_parser_in_a_browser_takes_is_refused(state: str) -> None:
    with pytest.raises(BadRequest) as refused:
        new().receive("a", ADA, said(1, 1, state))
    assert refused.value.code == "bad_presence"


@pytest.mark.parametrize("entry", [uint(2**53) + uint(1), uint(1) + uint(2**53)])
def test_numbers_that_javascript_cannot_hold_are_refused(entry: bytes) -> None:
    with pytest.raises(BadRequest):
        new().receive("a", ADA, uint(1) + entry + sized(b"{}"))


def test_lone_surrogates_are_passed_on_as_ascii() -> None:
    presence = new()
    presence.receive("a", ADA, said(1, 1, '{"x":"\\ud800"}'))
    assert presence.everybody().isascii()


def test_one_who_comes_back_is_admitted_at_any_clock_once_the_gone_are_forgotten() -> None:
    presence = Presence(most_clients=10_000, most_bytes=200)
    for n in range(5_000):
        presence.receive("a", ADA, said(n, 1, "{}"))
    assert len(presence.leave("a")) == 5_000
    assert presence.receive("a", ADA, said(1, 1, "{}")).probe is None
    assert presence.receive("a", ADA, said(4_999, 1, "{}")).probe == said(4_999, 1, "null")


class Peer:
    """What y-protocols does with awareness updates, y-websocket's sending back of every change included."""

    def __init__(self, own: int, person: Identity) -> None:
        self.own, self.person = own, person
        self.clocks = {own: 0}
        self.states: dict[int, str] = {}
        self.coming: deque[bytes] = deque()
        self.going: deque[bytes] = deque()

    def say(self) -> None:
        self.clocks[self.own] += 1
        self.states[self.own] = json.dumps({"at": self.clocks[self.own]})
        self.send([self.own])

    def send(self, clients: Iterable[int]) -> None:
        """Send the present state of these clients."""
        entries = [
            uint(c) + uint(self.clocks[c]) + sized(self.states.get(c, "null").encode()) for c in clients
        ]
        self.going.append(uint(len(entries)) + b"".join(entries))

    def hear(self) -> None:
        """Take in the next update and send back what changed by it."""
        reader = protocol.Reader(self.coming.popleft())
        changed = []
        for _ in range(reader.uint()):
            client, clock, state = reader.uint(), reader.uint(), reader.string()
            known = self.clocks.get(client, 0)
            if known < clock or (known == clock and state == "null" and client in self.states):
                if state != "null":
                    self.states[client] = state
                elif client == self.own:
                    clock += 1
                else:
                    self.states.pop(client, None)
                self.clocks[client] = clock
                changed.append(client)
        if changed:
            self.send(changed)


class Room(RuleBasedStateMachine):
    """A room of y-websocket clients whose frames take their time."""

    peers = Bundle("peers")

    def __init__(self) -> None:
        super().__init__()
        self.presence = Presence(most_clients=50, most_bytes=200)
        self.here: list[Peer] = []
        self.count = 0

    def tell(self, clients: frozenset[int]) -> None:
        """Everybody will hear the newest state of these clients."""
        for peer in self.here if clients else ():
            peer.coming.append(self.presence.news(clients))

    def take(self, peer: Peer) -> None:
        """The server receives the peer's oldest frame."""
        outcome = self.presence.receive(peer, peer.person, peer.going.popleft())
        if outcome.probe is not None:
            peer.coming.append(outcome.probe)
        self.tell(outcome.changed)

    @rule(target=peers, person=st.sampled_from([ADA, BOB]))
    def come(self, person: Identity) -> Peer:
        self.count += 1
        peer = Peer(self.count, person)
        peer.coming.append(self.presence.everybody())
        self.here.append(peer)
        peer.say()
        return peer

    @rule(peer=peers)
    def say(self, peer: Peer) -> None:
        peer.say()

    @rule(peer=peers)
    def arrive_there(self, peer: Peer) -> None:
        if peer.going:
            self.take(peer)

    @rule(peer=peers)
    def arrive_here(self, peer: Peer) -> None:
        if peer.coming:
            peer.hear()

    @rule(peer=consumes(peers))
    def leave(self, peer: Peer) -> None:
        self.go(peer)

    def go(self, peer: Peer) -> None:
        self.here.remove(peer)
        self.tell(self.presence.leave(peer))

    def settle(self) -> None:
        """Once all frames have arrived, everybody sees exactly those who are there, as themselves."""
        for _ in range(1_000):
            for peer in self.here:
                while peer.going:
                    self.take(peer)
            if not any(peer.coming for peer in self.here):
                break
            for peer in self.here:
                while peer.coming:
                    peer.hear()
        else:
            pytest.fail("the echoes never end")
        names = {peer.own: peer.person.name for peer in self.here}
        shown = {
            client: json.loads(state) for client, _, state in heard(self.presence, names) if state != "null"
        }
        assert len(self.presence) == len(names)
        assert {client: state["user"]["name"] for client, state in shown.items()} == names
        for peer in self.here:
            others = {
                client: json.loads(state)["user"]["name"]
                for client, state in peer.states.items()
                if client != peer.own
            }
            assert others == {client: name for client, name in names.items() if client != peer.own}

    def teardown(self) -> None:
        """They leave one after the other, the first ones first."""
        self.settle()
        while self.here:
            self.go(self.here[0])
            self.settle()


TestRoom = Room.TestCase
TestRoom.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
