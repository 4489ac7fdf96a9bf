"""Several processes serve the same documents: everybody meets, whoever is killed, cut off or told to end."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from deploy.stores import Postgres, Redis

from atelier.ids import document_key
from atelier.log import open_log
from atelier.settings import from_environment
from atelier.wiring import open_services

from .clients import LiveServer, Peer, World, node

pytestmark = [pytest.mark.node, pytest.mark.postgres, pytest.mark.timeout(180)]


class Cluster:
    """Processes on one PostgreSQL and one Redis; `at(n)` is the world as people see it through the n-th."""

    def __init__(self, folder: Path, postgres: str, redis: Redis, count: int) -> None:
        self.redis = redis
        self.shared = {
            "db_url": postgres,
            "log_url": redis.url,
            "bus_url": redis.url,
            "blobs_url": f"file://{folder}/blobs",
            "secret_key": "s" * 40,
        }
        self.servers: list[LiveServer] = []
        for n in range(count):
            (folder / str(n)).mkdir()
            self.servers.append(LiveServer(folder / str(n), own_clock=False, **self.shared))
        self.log_url = from_environment({}, **self.shared).log_url

    @asynccontextmanager
    async def worlds(self) -> AsyncIterator[list[World]]:
        """Start everything at once, with Ada as the owner of a session and Bob as an editor."""
        await asyncio.gather(*(server.start() for server in self.servers))
        try:
            async with node() as running, httpx2.AsyncClient(timeout=20) as http:
                worlds = [World(server, running, http) for server in self.servers]
                await worlds[0].guest("Ada")
                await worlds[0].guest("Bob", "edit")
                for other in worlds[1:]:
                    other.tokens, other.session = worlds[0].tokens, worlds[0].session
                yield worlds
        finally:
            await asyncio.gather(*(server.end(signal.SIGTERM) for server in self.servers))


@pytest_asyncio.fixture
async def cluster(tmp_path: Path, postgres_url: str, redis_url: str, redis_server: Redis) -> Cluster:
    return Cluster(tmp_path, postgres_url, redis_server, 2)


def names(state: dict[str, Any]) -> set[str]:
    """Return who else is there."""
    return {person["user"]["name"] for person in state["people"] if not person["own"]}


async def same(peers: list[Peer], *, seconds: float = 20) -> str:
    """Wait until all have the same and nothing is on its way; returns the text."""
    end = asyncio.get_running_loop().time() + seconds
    while True:
        states = [await peer.state() for peer in peers]
        vectors = {state["vector"] for state in states}
        if len(vectors) == 1 and all(state["synced"] and not state["unsynced"] for state in states):
            return str(states[0]["text"])
        assert asyncio.get_running_loop().time() < end, [
            (peer.name, s["synced"], s["unsynced"], s["closed"], s["text"][-40:])
            for peer, s in zip(peers, states, strict=True)
        ]
        await asyncio.sleep(0.02)


async def test_people_on_different_processes_write_and_see_each_other(cluster: Cluster) -> None:
    async with cluster.worlds() as (one, two):
        document = await one.put("Ada", "a.txt", "hello ")
        ada = await one.open("Ada", "hocuspocus", document)
        bob = await two.open("Bob", "y-websocket", document)
        await ada.do("presence", state={"cursor": 1})
        await bob.do("presence", state={"cursor": 2})
        await asyncio.gather(
            ada.until(lambda s: names(s) == {"Bob"}), bob.until(lambda s: names(s) == {"Ada"})
        )
        for n in range(30):
            await (ada, bob)[n % 2].do("insert", at=n, text=str(n % 10))
        text = await same([ada, bob])
        assert len(text) == 36
        assert await two.text("Ada", "a.txt") == text
        # One who comes later, at either, sees who is there at once.
        late = await two.open("Ada", "hocuspocus", document, name="late", line="late")
        await late.until(lambda s: {"Ada", "Bob"} <= names(s))
        await ada.do("destroy")
        await late.do("presence", state=None)
        await bob.until(lambda s: names(s) == set(), seconds=5)


async def test_one_who_moves_to_another_process_is_seen_again_at_once(cluster: Cluster) -> None:
    async with cluster.worlds() as (one, two):
        document = await one.put("Ada", "a.txt", "x")
        ada = await one.open("Ada", "y-websocket", document)
        bob = await two.open("Bob", "y-websocket", document)
        await ada.do("presence", state={"cursor": 1})
        await bob.until(lambda s: "Ada" in names(s))
        await ada.do("move", url=two.server.url)
        await ada.until(lambda s: bool(s["synced"]))
        await bob.until(lambda s: "Ada" in names(s), seconds=3)
        await bob.stays(lambda s: "Ada" in names(s), seconds=1)


async def test_a_role_that_changes_reaches_the_sockets_of_every_process_within_a_second(
    cluster: Cluster,
) -> None:
    async with cluster.worlds() as (one, two):
        document = await one.put("Ada", "a.txt", "x")
        bob = await two.open("Bob", "hocuspocus", document)
        me = (await two.call("Bob", "GET", "/me")).json()["id"]
        path = f"/sessions/{one.session}/members/{me}"
        assert (await one.call("Ada", "PATCH", path, json={"role": "view"})).is_success
        await bob.until(lambda s: s["scope"] == "readonly", seconds=1)
        assert (await one.call("Ada", "DELETE", path)).is_success
        await bob.until(lambda s: s["closed"] is not None and s["closed"]["code"] == 4403, seconds=1)


async def test_a_role_is_taken_also_when_the_database_was_away_and_another_process_says_nonsense(
    cluster: Cluster, postgres_server: Postgres
) -> None:
    async with cluster.worlds() as (one, two):
        document = await one.put("Ada", "a.txt", "x")
        bob = await two.open("Bob", "hocuspocus", document)
        me = (await two.call("Bob", "GET", "/me")).json()["id"]
        cluster.redis.say("PUBLISH", f"atelier:bus:presence:{one.session}", '"no-presence-at-all"')
        change = f"update members set role = 'view' where user_id = '{me}'"
        subprocess.run(["psql", "-qc", change, cluster.shared["db_url"]], check=True)
        await asyncio.to_thread(postgres_server.end, signal.SIGQUIT)
        try:
            cluster.redis.say("PUBLISH", f"atelier:bus:access:{one.session}", f"elsewhe.{me}")
            await bob.stays(lambda s: s["scope"] != "readonly", seconds=1)
        finally:
            await asyncio.to_thread(postgres_server.start)
        await bob.until(lambda s: s["scope"] == "readonly", seconds=5)
        ada = await one.open("Ada", "y-websocket", document)
        await ada.do("presence", state={"cursor": 1})
        await bob.until(lambda s: names(s) == {"Ada"})


async def test_a_process_that_is_killed_takes_nothing_with_it_that_was_seen(cluster: Cluster) -> None:
    async with cluster.worlds() as (one, two):
        document = await one.put("Ada", "a.txt", "")
        for n in range(5):
            ada = await one.open("Ada", "y-websocket", document, name=f"ada{n}")
            bob = await two.open("Bob", "y-websocket", document, name=f"bob{n}")
            for m in range(20):
                await ada.do("insert", at=0, text=chr(0x4E00 + n * 20 + m))
            await bob.until(lambda s, n=n: len(s["text"]) == 20 * (n + 1))  # type: ignore[misc]
            await one.server.end()
            await ada.do("destroy")
            assert len(await two.text("Bob", "a.txt")) == 20 * (n + 1)
            await bob.do("destroy")
            await one.server.start()


async def test_redis_and_postgresql_may_go_and_come_back(cluster: Cluster) -> None:
    async with cluster.worlds() as (one, two):
        document = await one.put("Ada", "a.txt", "")
        ada = await one.open("Ada", "hocuspocus", document)
        bob = await two.open("Bob", "y-websocket", document)
        await ada.do("insert", at=0, text="before ")
        await same([ada, bob])
        cluster.redis.end()
        try:
            await ada.do("insert", at=0, text="while ")
            await bob.do("insert", at=0, text="away ")
            state = await ada.until(lambda s: not s["saved"])
            assert "while" in state["text"]
            await ada.stays(lambda s: not s["saved"], seconds=1)
        finally:
            await asyncio.to_thread(cluster.redis.start)
        text = await same([ada, bob])
        assert all(word in text for word in ("before", "while", "away"))
        cluster.redis.say("CLIENT", "KILL", "TYPE", "normal")
        cluster.redis.say("CLIENT", "KILL", "TYPE", "pubsub")
        await ada.do("insert", at=0, text="cut ")
        assert "cut" in await same([ada, bob])


async def test_a_process_that_is_told_to_end_lets_everybody_go_over_to_another(cluster: Cluster) -> None:
    async with cluster.worlds() as (one, two):
        document = await one.put("Ada", "a.txt", "")
        ada = await one.open("Ada", "hocuspocus", document)
        bob = await two.open("Bob", "y-websocket", document)
        for n in range(20):
            await ada.do("insert", at=0, text=str(n % 10))
        loop = asyncio.get_running_loop()
        began = loop.time()
        await one.server.end(signal.SIGTERM)
        assert loop.time() - began < 10
        await ada.do("move", url=two.server.url)
        assert len(await same([ada, bob])) == 20


async def test_a_long_document_is_compacted_into_postgresql_while_people_write(cluster: Cluster) -> None:
    async with cluster.worlds() as (one, two):
        document = await one.put("Ada", "a.txt", "")
        ada = await one.open("Ada", "y-websocket", document)
        bob = await two.open("Bob", "hocuspocus", document)
        await asyncio.gather(*(peer.do("type", letters=600, pause=2) for peer in (ada, bob)))
        text = await same([ada, bob], seconds=60)
        assert len(text) == 1200
        async with open_log(cluster.log_url) as log:
            stored = await log.read(document_key(one.session, document))
            assert stored.snapshot.position > 0
            assert len(await log.history(document_key(one.session, document), limit=10_000)) >= 1200
        left = cluster.redis.say("XLEN", f"atelier:log:stream:{document_key(one.session, document)}")
        assert int(left[1:]) < 1200
        carol = await one.open("Ada", "hocuspocus", document, name="carol", line="carol")
        assert await same([ada, bob, carol]) == text


async def test_a_run_is_seen_fed_and_stopped_from_another_process_and_outlives_one_that_starts(
    cluster: Cluster,
) -> None:
    async with cluster.worlds() as (one, two):
        await one.put("Ada", "echo.py", "print('hello ' + input())\nwhile True: pass\n")
        runs = f"/sessions/{one.session}/runs"
        run = (await one.call("Ada", "POST", runs, json={"entry": "echo.py"})).json()["id"]
        await two.server.end()
        await two.server.start()  # ends nothing that another process holds
        assert (await two.call("Bob", "POST", f"{runs}/{run}/stdin", json={"data": "Bob\n"})).is_success

        async def printed() -> str:
            found = []
            async with two.http.stream(
                "GET",
                f"{two.server.url}/api/v1{runs}/{run}/events",
                headers={"Authorization": f"Bearer {two.tokens['Bob']}"},
            ) as lines:
                async for line in lines.aiter_lines():
                    found.append(line)
                    if "hello" in line:
                        assert (await two.call("Bob", "DELETE", f"{runs}/{run}")).is_success
                    if line == "event: exited":
                        break
            return "\n".join(found)

        assert "hello Bob" in await asyncio.wait_for(printed(), 30)
        ended = (await two.call("Bob", "GET", f"{runs}/{run}")).json()
        assert ended["result"]["reason"] == "cancelled"


@pytest.mark.parametrize(
    ("missing", "word"),
    [("db_url", "ATELIER_DB_URL"), ("bus_url", "memory://"), ("secret_key", "ATELIER_SECRET_KEY")],
)
async def test_a_mix_of_settings_that_would_split_people_is_refused(
    missing: str, word: str, tmp_path: Path
) -> None:
    safe = {
        "db_url": "postgresql://x/y",
        "log_url": "redis://x",
        "bus_url": "redis://x",
        "secret_key": "s" * 40,
    }
    with pytest.raises(RuntimeError, match=word):
        async with open_services(from_environment({}, **{**safe, "data": tmp_path, missing: None})):
            pass
