"""Terminals over the API: shared, resumed, resized, fed with the session's files, bounded, ended; through one process or two."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from deploy.stores import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from ..hub.clients import LiveServer, World, live_server, two_servers
from ..runner_service import SECRET, runner_service

pytestmark = pytest.mark.timeout(90)


@asynccontextmanager
async def peopled(server: LiveServer) -> AsyncIterator[World]:
    """Ada owns a session, Bob may edit it, Rik may run, Vic may look."""
    async with httpx2.AsyncClient(timeout=20) as http:
        world = World(server, None, http)  # type: ignore[arg-type]
        await world.guest("Ada")
        for name, role in (("Bob", "edit"), ("Rik", "run"), ("Vic", "view")):
            await world.guest(name, role)
        yield world


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with live_server(tmp_path) as server, peopled(server) as opened:
        yield opened


class Seat:
    """One person's connection to a terminal, as the editor's: what it is shown is acknowledged."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.shown = b""
        self.all = bytearray()
        self.place = 0
        self.starts: list[int] = []
        self.state: dict[str, Any] = {}
        self.closed: ConnectionClosed | None = None
        self.acknowledges = True
        self._more = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for message in self.socket:
                if isinstance(message, bytes):
                    self.shown += message
                    self.all += message
                    self.place += len(message)
                    if self.acknowledges:
                        await self.socket.send(json.dumps({"type": "shown", "place": self.place}))
                else:
                    said = json.loads(message)
                    if said["type"] == "from":
                        self.place = said["place"]
                        self.starts.append(self.place)
                    elif said["type"] == "state":
                        self.state = said
                self._more.set()
        except ConnectionClosed as error:
            self.closed = error
        self._more.set()

    async def until(self, text: str, seconds: float = 15) -> None:
        """Wait for a text, and take all up to it away."""
        await self._wait(lambda: text.encode() in self.shown, text, seconds)
        self.shown = self.shown.split(text.encode(), 1)[1]

    async def until_state(self, condition: Any, seconds: float = 15) -> None:
        await self._wait(lambda: bool(self.state) and condition(self.state), "a state", seconds)

    async def until_place(self, place: int) -> None:
        await self._wait(lambda: self.place >= place, f"place {place}", 30)

    async def _wait(self, condition: Any, what: str, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"{what!r} never came: {self.shown[-2000:]!r} {self.state}") from None

    async def type(self, keys: str) -> None:
        await self.socket.send(keys.encode())

    async def resize(self, columns: int, rows: int) -> None:
        await self.socket.send(json.dumps({"type": "resize", "columns": columns, "rows": rows}))

    async def ended(self) -> int:
        """Wait for the close; returns its code."""
        await asyncio.wait_for(self._reading, 15)
        return self.socket.close_code or 0


async def open_terminal(world: World, who: str = "Ada", **body: Any) -> dict[str, Any]:
    answer = await world.call(who, "POST", f"/sessions/{world.session}/terminals", json=body)
    assert answer.status_code == 201, answer.text
    terminal: dict[str, Any] = answer.json()
    return terminal


@asynccontextmanager
async def seat(
    world: World, who: str, terminal: dict[str, Any], after: int | None = None
) -> AsyncIterator[Seat]:
    address = (
        world.server.url.replace("http", "ws")
        + f"/api/v1/sessions/{world.session}/terminals/{terminal['id']}"
    )
    more = "" if after is None else f"&after={after}"
    async with connect(f"{address}/socket?token={world.tokens[who]}{more}", max_size=None) as socket:
        yield Seat(socket)


async def listed(world: World, who: str = "Ada") -> list[str]:
    answer = await world.call(who, "GET", f"/sessions/{world.session}/terminals")
    return [item["id"] for item in answer.json()["items"]]


async def until_none(world: World) -> None:
    end = asyncio.get_running_loop().time() + 15
    while await listed(world):
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.2)


async def refused(world: World, who: str, method: str, path: str, **options: Any) -> tuple[int, str]:
    answer = await world.call(who, method, f"/sessions/{world.session}/terminals{path}", **options)
    return answer.status_code, answer.json()["code"]


async def test_two_people_share_a_shell_and_a_third_looks(world: World) -> None:
    terminal = await open_terminal(world, columns=90, rows=20)
    assert (terminal["title"], terminal["user_name"]) == ("Shell", "Ada")
    async with seat(world, "Ada", terminal) as ada, seat(world, "Bob", terminal) as bob:
        async with seat(world, "Vic", terminal) as vic:
            await ada.type("stty size; x=41\n")
            for person in (ada, bob, vic):
                await person.until("20 90\r\n")
            await bob.type("echo $((x + 1))\n")
            await ada.until("42\r\n")
            await vic.until("42\r\n")
            await vic.type("echo into''ded\n")
            await vic.resize(10, 10)
            await ada.type("echo done; stty size\n")
            await ada.until("done\r\n20 90")
            assert b"intoded" not in ada.all
            await ada.until_state(lambda state: [p["name"] for p in state["people"]] == ["Ada", "Bob", "Vic"])
        await ada.until_state(lambda state: [p["name"] for p in state["people"]] == ["Ada", "Bob"])
    assert await listed(world, "Vic") == [terminal["id"]]


async def test_a_command_finds_the_files_as_they_are_in_the_editor_at_that_moment(world: World) -> None:
    await world.put("Ada", "main.py", "print('one')\n")
    await world.put("Ada", "gone.txt", "x")
    terminal = await open_terminal(world)
    async with seat(world, "Ada", terminal) as ada:
        await ada.type("python3 main.py\n")
        await ada.until("one\r\n")
        await world.put("Bob", "main.py", "print('two')\n")
        await world.put("Bob", "pkg/new.py", "print('three')\n")
        await world.call("Bob", "DELETE", f"/sessions/{world.session}/files/gone.txt")
        await world.call("Bob", "PUT", f"/sessions/{world.session}/files/raw.bin", content=b"\0\1\2")
        await ada.type("python3 main.py; python3 pkg/new.py; ls; wc -c < raw.bin\n")
        await ada.until("two\r\nthree\r\n")
        await ada.until("3\r\n")
        assert b"gone.txt" not in ada.all
        await ada.type("echo mine > main.py; cat main.py\n")
        await ada.until("mine\r\n")


async def until_text(world: World, path: str, text: str | None) -> None:
    """Wait until a file of the session is as said; None: gone."""
    end = asyncio.get_running_loop().time() + 15
    while True:
        answer = await world.call("Ada", "GET", f"/sessions/{world.session}/files/{path}")
        found = answer.text if answer.is_success else None
        if found == text:
            return
        assert asyncio.get_running_loop().time() < end, (path, found)
        await asyncio.sleep(0.05)


async def test_what_a_terminal_writes_is_in_the_session_and_merges_with_what_others_type(
    world: World,
) -> None:
    await world.put("Ada", "shared.txt", "one\ntwo\nthree\n")
    await world.put("Ada", "gone.txt", "x")
    terminal = await open_terminal(world)
    async with seat(world, "Ada", terminal) as ada, seat(world, "Bob", terminal) as bob:
        await bob.type("mkdir -p out; echo made > out/new.txt; rm gone.txt; head -c 9 /dev/zero > out/raw\n")
        await until_text(world, "out/new.txt", "made\n")
        await until_text(world, "gone.txt", None)
        await until_text(world, "out/raw", "\0" * 9)
        await bob.type("echo again >> out/new.txt\n")
        await until_text(world, "out/new.txt", "made\nagain\n")
        # Both at once, in different lines: both are there, here and there.
        await world.put("Ada", "shared.txt", "one\ntwo\nthree by Ada\n")
        await bob.type("sed -i 's/one/one by Bob/' shared.txt; cat shared.txt\n")
        await bob.until("one by Bob\r\ntwo\r\nthree by Ada\r\n")
        await until_text(world, "shared.txt", "one by Bob\ntwo\nthree by Ada\n")
        await ada.type("echo 'last word' > last.txt; exit\n")
        await ada.ended()
        await until_text(world, "last.txt", "last word\n")
    files = (await world.call("Ada", "GET", f"/sessions/{world.session}/files")).json()["items"]
    document = next(item["document_id"] for item in files if item["path"] == "out/new.txt")
    past = await world.call("Ada", "GET", f"/sessions/{world.session}/documents/{document}/history")
    assert "Bob" in past.text


async def test_edits_typed_all_the_while_meet_a_program_that_writes_the_same_file(world: World) -> None:
    await world.put("Ada", "both.txt", "editor 0\n-\n-\n-\nprogram 0\n")
    terminal = await open_terminal(world)
    async with seat(world, "Bob", terminal) as bob:
        await bob.type(
            "for n in $(seq 12); do sed -i \"s/program .*/program $n/\" both.txt; sleep 0.3; done; echo fin''ished\n"
        )
        for n in range(1, 30):
            # Not the whole file: that would put back what the program changed since it was read.
            edit = {"q": f"editor {n - 1}", "replacement": f"editor {n}"}
            answer = await world.call("Ada", "POST", f"/sessions/{world.session}/replacements", json=edit)
            assert answer.is_success, answer.text
            await asyncio.sleep(0.1)
        await bob.until("finished")
        await until_text(world, "both.txt", "editor 29\n-\n-\n-\nprogram 12\n")
        await bob.type("cat both.txt\n")
        await bob.until("editor 29\r\n-\r\n-\r\n-\r\nprogram 12\r\n")


async def test_who_may_run_but_not_edit_changes_nothing_in_the_session(world: World) -> None:
    await world.put("Ada", "main.py", "print('safe')\n")
    terminal = await open_terminal(world)
    async with seat(world, "Ada", terminal) as ada, seat(world, "Rik", terminal) as rik:
        await ada.type("echo by Ada > ada.txt\n")
        await ada.until("ada.txt\r\n")
        await rik.type("echo bad > main.py; echo by Rik > rik.txt\n")
        await ada.until("stays here: Rik may run but not edit")
        await ada.type("echo later > later.txt; cat rik.txt\n")
        await ada.until("by Rik\r\n")
        await until_text(world, "ada.txt", "by Ada\n")
        await ada.type("exit\n")  # the last look at its files is over when it has ended
        await ada.ended()
        assert await world.text("Ada", "main.py") == "print('safe')\n"
        for path in ("rik.txt", "later.txt"):
            await until_text(world, path, None)
    own = await open_terminal(world, "Rik")
    async with seat(world, "Rik", own) as rik:
        await rik.type("echo x > own.txt; exit\n")
        await rik.ended()
    await until_text(world, "own.txt", None)


async def test_who_comes_back_gets_what_is_missing_and_who_comes_late_all_that_is_kept(world: World) -> None:
    terminal = await open_terminal(world)
    async with seat(world, "Ada", terminal) as ada:
        await ada.type("echo fir''st\n")
        await ada.until("first\r\n")
        place = ada.place
        async with seat(world, "Bob", terminal) as bob:
            await bob.type("echo sec''ond\n")
            await bob.until("second\r\n")
            assert bob.starts[0] == 0
            assert b"first\r\n" in bob.all
    async with seat(world, "Ada", terminal, after=place) as ada:
        await ada.until("second\r\n")
        assert ada.starts == [place]
        assert b"first" not in ada.all
    async with seat(world, "Ada", terminal, after=10**9) as ada:
        await ada.until("first\r\n")
        assert ada.starts == [0]


async def test_a_size_from_any_window_reaches_the_program_and_everyone(world: World) -> None:
    terminal = await open_terminal(world)
    async with seat(world, "Ada", terminal) as ada, seat(world, "Bob", terminal) as bob:
        await bob.resize(111, 37)
        await ada.until_state(lambda state: (state["columns"], state["rows"]) == (111, 37))
        await ada.type("stty size\n")
        await ada.until("37 111\r\n")


async def test_a_flood_stays_bounded_and_a_key_ends_it(world: World) -> None:
    terminal = await open_terminal(world)
    async with seat(world, "Ada", terminal) as ada, seat(world, "Bob", terminal) as frozen:
        frozen.acknowledges = False
        await ada.type("yes 0123456789012345678901234567890123456789\n")
        await ada.until_place(3_000_000)
        await ada.type("\x03")
        await ada.type("echo sto''pped\n")
        await ada.until("stopped\r\n")
        assert len(frozen.all) <= 300_000
        async with seat(world, "Rik", terminal) as late:
            await late.until("stopped\r\n")
            assert len(late.all) <= 400_000
            assert late.starts[0] > 0


async def test_it_says_how_it_ended_and_is_gone(world: World) -> None:
    terminal = await open_terminal(world)
    async with seat(world, "Ada", terminal) as ada:
        await ada.type("exit 7\n")
        assert await ada.ended() == 1000
        assert (ada.state["ended"]["reason"], ada.state["ended"]["code"]) == ("exited", 7)
    assert await listed(world) == []
    with pytest.raises(ConnectionClosed) as closed:
        async with seat(world, "Ada", terminal) as ada:
            assert await ada.ended() == 4404
            raise ada.closed or ConnectionClosed(None, None)
    assert closed.value is not None


async def test_anyone_who_may_run_ends_it_with_all_that_runs_in_it(world: World) -> None:
    terminal = await open_terminal(world)
    async with seat(world, "Vic", terminal) as vic:
        assert await refused(world, "Vic", "DELETE", f"/{terminal['id']}") == (403, "role_forbids")
        answer = await world.call("Rik", "DELETE", f"/sessions/{world.session}/terminals/{terminal['id']}")
        assert answer.status_code == 204
        assert await vic.ended() == 1000
        assert vic.state["ended"]["reason"] == "cancelled"


async def test_who_loses_access_is_out_within_a_second_and_who_may_no_longer_run_types_nothing(
    world: World,
) -> None:
    terminal = await open_terminal(world)
    members = (await world.call("Ada", "GET", f"/sessions/{world.session}/members")).json()["items"]
    bob = next(member["user_id"] for member in members if member["display_name"] == "Bob")
    async with seat(world, "Ada", terminal) as ada, seat(world, "Bob", terminal) as other:
        await other.type("echo be''fore\n")
        await ada.until("before")
        answer = await world.call(
            "Ada", "PATCH", f"/sessions/{world.session}/members/{bob}", json={"role": "view"}
        )
        assert answer.is_success, answer.text
        await asyncio.sleep(0.5)
        await other.type("echo af''ter\n")
        await ada.type("echo che''ck\n")
        await ada.until("check")
        assert b"after\r\n" not in ada.all
        await world.call("Ada", "DELETE", f"/sessions/{world.session}/members/{bob}")
        assert await asyncio.wait_for(other.ended(), 1.5) == 4403


async def test_a_program_and_a_prompt_run_in_a_terminal(world: World) -> None:
    await world.put("Ada", "ask.py", "print('Hello', input('Name? '))\n")
    terminal = await open_terminal(world, entry="ask.py")
    assert (terminal["title"], terminal["language"]) == ("ask.py", "python")
    async with seat(world, "Ada", terminal) as ada:
        await ada.until("Name? ")
        await ada.type("Ada\n")
        await ada.until("Hello Ada\r\n")
        assert await ada.ended() == 1000
    prompt = await open_terminal(world, language="python")
    assert prompt["title"] == "Python"
    async with seat(world, "Ada", prompt) as ada:
        await ada.until(">>> ")
        await ada.type("6 * 7\n")
        await ada.until("42")


async def test_bad_requests_are_refused_by_name(world: World) -> None:
    assert await refused(world, "Vic", "POST", "", json={}) == (403, "role_forbids")
    assert await refused(world, "Ada", "POST", "", json={"language": "cobol"}) == (422, "language_unknown")
    assert await refused(world, "Ada", "POST", "", json={"language": "c"}) == (422, "language_unknown")
    assert await refused(world, "Ada", "POST", "", json={"entry": "none.py"}) == (404, "entry_not_found")
    assert (await refused(world, "Ada", "POST", "", json={"columns": 0}))[0] == 422
    assert await refused(world, "Ada", "DELETE", "/trm_none") == (404, "terminal_not_found")
    terminal = await open_terminal(world)
    for bad in (
        "{",
        '{"type":"resize","columns":"x","rows":1}',
        '{"type":"shown"}',
        "[]",
        '{"type":"shown","place":null}',
    ):
        async with seat(world, "Ada", terminal) as ada:
            await ada.socket.send(bad)
            assert await ada.ended() == 4400, bad
    async with seat(world, "Ada", terminal) as ada:
        await ada.resize(0, 24)
        assert await ada.ended() == 4422
    async with seat(world, "Ada", terminal) as ada:
        await ada.socket.send(b"x" * 70_000)
        assert await ada.ended() == 1009
    for _ in range(7):
        await open_terminal(world)
    assert await refused(world, "Ada", "POST", "", json={}) == (409, "too_many_terminals")


async def test_unused_and_left_behind_terminals_end(tmp_path: Path) -> None:
    server = LiveServer(tmp_path, limit_terminal_idle_seconds="1")
    await server.start()
    try:
        async with peopled(server) as world:
            terminal = await open_terminal(world)
            async with seat(world, "Ada", terminal) as ada:
                await asyncio.sleep(7)
                await ada.type("echo still he''re\n")
                await ada.until("still here")
                assert len(await listed(world)) == 1
            await until_none(world)
            await open_terminal(world)
            await server.end(signal.SIGKILL)
            await server.start()
            assert await listed(world) == []
    finally:
        await server.end(signal.SIGTERM)


@pytest.mark.postgres
async def test_a_terminal_of_one_process_is_used_through_another(
    tmp_path: Path, postgres_url: str, redis_url: str, redis_server: Redis
) -> None:
    async with (
        two_servers(tmp_path, postgres_url, redis_url) as servers,
        peopled(servers[0]) as world,
    ):
        other = World(servers[1], None, world.http)  # type: ignore[arg-type]
        other.tokens, other.session = world.tokens, world.session
        terminal = await open_terminal(world)
        async with seat(world, "Ada", terminal) as ada, contextlib.AsyncExitStack() as stack:
            await ada.type("echo be''fore\n")
            await ada.until("before\r\n")
            bob = await stack.enter_async_context(seat(other, "Bob", terminal))
            await bob.until("before\r\n")
            await bob.resize(101, 33)
            await ada.until_state(lambda state: state["columns"] == 101)
            await bob.type("stty size; seq 100000 | tail -c 200000 | cksum\n")
            await bob.until("33 101\r\n")
            await ada.type("seq 30000; echo l''ast\n")
            await ada.until("last\r\n", 30)
            await bob.until("last\r\n", 30)
            shown = [bytes(person.all).partition(b"last\r\n")[0][-100_000:] for person in (ada, bob)]
            assert shown[0] == shown[1]
            for person in (ada, bob):
                await person.until_state(lambda state: [p["name"] for p in state["people"]] == ["Ada", "Bob"])
            answer = await other.call(
                "Bob", "DELETE", f"/sessions/{world.session}/terminals/{terminal['id']}"
            )
            assert answer.status_code == 204
            assert await bob.ended() == 1000
            assert await ada.ended() == 1000


async def test_a_terminal_runs_at_a_runner_elsewhere(tmp_path: Path) -> None:
    with runner_service() as runner:
        server = LiveServer(tmp_path, sandbox_url=runner.url, runner_secret=SECRET)
        await server.start()
        try:
            async with peopled(server) as world:
                await world.put("Ada", "main.py", "print('one')\n")
                terminal = await open_terminal(world)
                async with seat(world, "Ada", terminal) as ada:
                    await ada.resize(100, 40)
                    await ada.until_state(lambda state: state["columns"] == 100)
                    await ada.type("python3 main.py; stty size\n")
                    await ada.until("one\r\n40 100\r\n")
                    await world.put("Bob", "main.py", "print('two')\n")
                    await ada.type("python3 main.py; echo back > made.txt\n")
                    await ada.until("two\r\n")
                    await until_text(world, "made.txt", "back\n")
                    await ada.type("exit\n")
                    assert await ada.ended() == 1000
        finally:
            await server.end(signal.SIGTERM)


async def test_a_terminal_has_the_internet_once_an_owner_says_so(tmp_path: Path) -> None:
    with runner_service() as runner:
        server = LiveServer(tmp_path, sandbox_url=runner.url, runner_secret=SECRET, egress="on")
        await server.start()
        try:
            async with peopled(server) as world:
                ask = 'echo "way:${https_proxy:-none}"; exit\n'
                before = await open_terminal(world)
                body = {
                    "email": "ada@example.org",
                    "password": "correct horse battery",
                    "display_name": "Ada",
                }
                made = await world.call("Ada", "POST", "/users", json=body)
                world.tokens["Ada"] = made.json()["access_token"]
                answer = await world.call(
                    "Ada", "PUT", f"/sessions/{world.session}/egress", json={"on": True}
                )
                assert answer.status_code == 200, answer.text
                after = await open_terminal(world, "Rik")
                for terminal, way in ((before, "way:none"), (after, "way:http://127.0.0.1:3128")):
                    async with seat(world, "Rik", terminal) as rik:
                        await rik.type(ask)
                        await rik.until(f"{way}\r\n")
        finally:
            await server.end(signal.SIGTERM)
