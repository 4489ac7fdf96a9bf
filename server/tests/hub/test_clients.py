"""Unmodified clients of both dialects, through kills, roles and revocations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from pycrdt import Doc, Provider, Text

from .clients import World, world
from .python_peer import Channel
from .test_sockets import y_socket

pytestmark = pytest.mark.node
DIALECTS = ["y-websocket", "hocuspocus"]
OLDER = ["y-websocket-1", "y-websocket-2", "hocuspocus-2", "hocuspocus-3"]


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[World]:
    """A server with a session of Ada's, and Bob who may edit."""
    async with world(tmp_path) as made:
        await made.guest("Bob", "edit")
        yield made


async def test_both_dialects_and_the_files_api_converge(place: World) -> None:
    document = await place.put("Ada", "a.txt", "héllo 😀\n")
    ada = await place.open("Ada", "y-websocket", document)
    bob = await place.open("Bob", "hocuspocus", document)
    for peer in (ada, bob):
        await peer.until(lambda s: s["text"] == "héllo 😀\n")
    await ada.do("insert", at=0, text="A😀")
    await bob.do("insert", at=10_000, text="Bé")
    await ada.until(lambda s: s["text"] == "A😀héllo 😀\nBé")
    await bob.until(lambda s: s["text"] == "A😀héllo 😀\nBé" and s["saved"])
    await place.put("Ada", "a.txt", "A😀hello\nBé!")
    states = [await peer.until(lambda s: s["text"] == "A😀hello\nBé!") for peer in (ada, bob)]
    assert states[0]["vector"] == states[1]["vector"]
    assert await place.text("Bob", "a.txt") == "A😀hello\nBé!"


async def test_many_documents_share_one_hocuspocus_socket(place: World) -> None:
    one, two = await place.put("Ada", "1.txt", "one"), await place.put("Ada", "2.txt", "two")
    peers = [await place.open("Bob", "hocuspocus", document) for document in (one, two, "tree")]
    await peers[0].do("insert", at=0, text="1")
    assert (await peers[0].until(lambda s: s["saved"]))["text"] == "1one"
    assert (await peers[1].state())["text"] == "two"
    assert sorted(f["path"] for f in (await peers[2].state())["files"].values()) == ["1.txt", "2.txt"]
    async with asyncio.timeout(5):
        assert (
            'atelier_hub_connections{dialect="hocuspocus"} 1.0'
            in (await place.http.get(f"{place.server.url}/metrics")).text
        )


@pytest.mark.parametrize("dialect", [*DIALECTS, *OLDER])
async def test_presence_has_the_server_s_identity_and_goes_with_its_owner(place: World, dialect: str) -> None:
    document = await place.put("Ada", "a.txt", "x")
    ada, bob = await place.open("Ada", "hocuspocus", document), await place.open("Bob", dialect, document)
    await bob.do("presence", state={"user": {"name": "Ada", "color": "red"}, "cursor": {"anchor": 1}})
    state = await ada.until(lambda s: any(not p["own"] and "cursor" in p for p in s["people"]))
    shown = next(p for p in state["people"] if not p["own"])
    assert shown["user"]["name"] == "Bob"
    assert shown["cursor"] == {"anchor": 1}
    await bob.do("destroy")
    await ada.until(lambda s: all(p["own"] for p in s["people"]), seconds=2)


@pytest.mark.parametrize("dialect", [*DIALECTS, *OLDER])
async def test_a_role_without_edit_reads_and_its_edits_go_nowhere(place: World, dialect: str) -> None:
    document = await place.put("Ada", "a.txt", "x")
    await place.guest("Vera", "view")
    ada, vera = await place.open("Ada", "hocuspocus", document), await place.open("Vera", dialect, document)
    await vera.do("insert", at=0, text="intruder")
    await ada.do("insert", at=0, text="ada ")
    await vera.until(lambda s: "ada " in s["text"])
    await ada.until(lambda s: s["saved"])
    assert await place.text("Ada", "a.txt") == "ada x"
    if dialect.startswith("hocuspocus"):
        state = await vera.state()
        assert state["scope"] == "readonly"
        assert not state["saved"]


@pytest.mark.parametrize("dialect", [*DIALECTS, *OLDER])
async def test_a_revoked_link_ends_live_sockets_within_a_second(place: World, dialect: str) -> None:
    document = await place.put("Ada", "a.txt", "x")
    bob = await place.open("Bob", dialect, document)
    links = (await place.call("Ada", "GET", f"/sessions/{place.session}/links")).json()["items"]
    begun = time.monotonic()
    await place.call("Ada", "DELETE", f"/sessions/{place.session}/links/{links[0]['id']}")
    state = await bob.until(lambda s: s["closed"] is not None, seconds=1)
    assert time.monotonic() - begun < 1
    assert state["closed"]["code"] in (4403, 4404)
    await bob.do("insert", at=0, text="late")
    assert await place.text("Ada", "a.txt") == "x"


@pytest.mark.parametrize("dialect", [*DIALECTS, *OLDER])
async def test_what_somebody_has_seen_survives_a_kill(place: World, dialect: str) -> None:
    document = await place.put("Ada", "a.txt", "")
    ada, bob = await place.open("Ada", dialect, document), await place.open("Bob", dialect, document)
    for round_ in range(3):
        for n in range(20):
            await ada.do("insert", at=0, text=f"<{round_}.{n}>")
        await bob.until(lambda s, last=f"<{round_}.19>": last in s["text"])  # type: ignore[misc]
        await place.server.end()
        for peer in (ada, bob):
            await peer.do("disconnect")
        await place.server.start()
        text = await place.text("Ada", "a.txt")
        assert all(f"<{round_}.{n}>" in text for n in range(20))
        for peer in (ada, bob):
            await peer.do("connect")
            await peer.until(lambda s: bool(s["synced"]))


@pytest.mark.parametrize("dialect", [*DIALECTS, *OLDER])
async def test_offline_edits_merge_on_return(place: World, dialect: str) -> None:
    document = await place.put("Ada", "a.txt", "middle")
    ada, bob = await place.open("Ada", dialect, document), await place.open("Bob", dialect, document)
    await ada.do("disconnect")
    await ada.do("insert", at=0, text="ada ")
    await bob.do("insert", at=10_000, text=" bob")
    await ada.do("connect")
    for peer in (ada, bob):
        await peer.until(lambda s: s["text"] == "ada middle bob")


async def test_reconnecting_with_nothing_new_does_not_grow_the_log(place: World) -> None:
    document = await place.put("Ada", "a.txt", "some text that is deleted in part")
    ada = await place.open("Ada", "y-websocket", document)
    await ada.do("remove", at=3, length=10)
    await ada.until(lambda s: bool(s["saved"]))

    async def appended() -> str:
        metrics = (await place.http.get(f"{place.server.url}/metrics")).text
        return next(line for line in metrics.splitlines() if line.startswith("atelier_hub_appended_total"))

    bob = await place.open("Bob", "hocuspocus", document)
    await bob.until(lambda s: "deleted" in s["text"] or len(s["text"]) < 30)
    before = await appended()
    for peer in (ada, bob, ada, bob):
        await peer.do("disconnect")
        await peer.do("connect")
        await peer.until(lambda s: bool(s["synced"]))
    assert await appended() == before


async def test_pycrdt_s_own_provider_converges_with_the_others(place: World) -> None:
    document = await place.put("Ada", "a.txt", "start é😀\n")
    bob = await place.open("Bob", "y-websocket", document)
    doc: Doc[Text] = Doc()
    async with y_socket(place, document) as line, Provider(doc, Channel(line)) as provider:
        await asyncio.wait_for(provider.synced.wait(), 10)
        content = doc.get("content", type=Text)
        assert str(content) == "start é😀\n"
        content += "from Python 漢"
        await bob.until(lambda s: s["text"] == "start é😀\nfrom Python 漢")
        await bob.do("insert", at=0, text="from Node ")
        deadline = time.monotonic() + 10
        while str(content) != "from Node start é😀\nfrom Python 漢":
            assert time.monotonic() < deadline, str(content)
            await asyncio.sleep(0.02)
    assert await place.text("Ada", "a.txt") == "from Node start é😀\nfrom Python 漢"
