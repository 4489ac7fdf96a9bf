"""The service over real HTTP and WebSockets: what it refuses, what it bounds, and how its events resume."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import uvicorn
import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Origin

from atelier_runner import Backend, Control, Exited, Limits, Output, Reason, Spec, Started, open_local
from atelier_runner.service import HostedRuns, Options, create_app
from atelier_runner.service.command import configured, listen
from atelier_runner.wire import Cut, Told, pack, read_event, spec_blobs, spec_head, unpack

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRET = "a secret of the tests"
LIMITS = Limits(wall_seconds=20, cpu_seconds=8, memory_mb=128, processes=16, disk_mb=8, output_bytes=32 << 20)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend() -> AsyncIterator[Backend]:
    """The local backend of this machine."""
    async with open_local(limits=LIMITS) as opened:
        yield opened


class Client:
    """Speaks the protocol without any help."""

    def __init__(self, port: int) -> None:
        self.url = f"127.0.0.1:{port}"
        self.bearer = {"Authorization": f"Bearer {SECRET}"}
        self.http = httpx2.AsyncClient(base_url=f"http://{self.url}", headers=self.bearer, timeout=30)

    async def start(
        self, program: str, *, files: dict[str, bytes] | None = None, **head: Any
    ) -> httpx2.Response:
        spec = Spec(
            "python", "m.py", {"m.py": program.encode(), **(files or {})}, head.pop("limits", LIMITS),
            stdin=head.pop("stdin", b""),
        )  # fmt: skip
        return await self.http.post(
            "/v1/runs", content=pack({**spec_head(spec), **head}) + b"".join(spec_blobs(spec))
        )

    async def begin(self, program: str, **head: Any) -> str:
        answer = await self.start(program, **head)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def line(self, run: str, after: int = 0) -> connect:
        return connect(
            f"ws://{self.url}/v1/runs/{run}/events?after={after}", additional_headers=self.bearer, proxy=None
        )

    async def events(self, run: str, after: int = 0, most: int = 1 << 30) -> list[Told]:
        async with self.line(run, after) as line:
            return await read(line, most)

    async def refused(self, status: int, code: str, answer: httpx2.Response) -> dict[str, Any]:
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        problem: dict[str, Any] = answer.json()
        assert (answer.status_code, problem["code"]) == (status, code), problem
        return problem


async def read(line: ClientConnection, most: int = 1 << 30) -> list[Told]:
    """Read and confirm events up to the end, or a number of them."""
    found: list[Told] = []
    while len(found) < most and not (found and isinstance(found[-1], Exited)):
        head, body = unpack(bytes(await line.recv(decode=False)))
        if head["type"] != "taken":
            found.append(read_event(head, body))
            await line.send(pack({"type": "confirm", "seq": found[-1].seq}))
    return found


def printed(events: list[Told]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Output))


@asynccontextmanager
async def serving(backend: Any, **options: Any) -> AsyncIterator[Client]:
    """Serve on a free port."""
    chosen = replace(Options(secret=SECRET), **options)
    async with HostedRuns(backend, chosen) as runs:
        listener = listen(replace(chosen, port=0))
        listener.listen()
        server = uvicorn.Server(configured(create_app(runs, chosen), chosen))
        task = asyncio.create_task(
            server._serve([listener])
        )  # listens from the start: nobody need wait for it
        client = Client(listener.getsockname()[1])
        try:
            yield client
        finally:
            await client.http.aclose()
            server.should_exit = True
            await task


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(backend: Backend) -> AsyncIterator[Client]:
    """A client of a service with the usual options."""
    async with serving(backend, runs=16) as opened:
        yield opened


async def test_a_run_is_told_numbered_from_started_to_exited(client: Client) -> None:
    events = await client.events(await client.begin("print('hello')"))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert isinstance(events[0], Started)
    assert printed(events) == b"hello\n"
    last = events[-1]
    assert isinstance(last, Exited)
    assert (last.reason, last.code) == (Reason.EXITED, 0)


async def test_reading_resumes_after_any_number_and_a_forgotten_one_is_said_to_be_gone(
    client: Client,
) -> None:
    run = await client.begin("for n in range(40): print(n, flush=True); __import__('time').sleep(0.005)")
    seen: list[Told] = []
    while not seen or not isinstance(seen[-1], Exited):
        seen += await client.events(run, seen[-1].seq if seen else 0, most=3)
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert printed(seen) == b"".join(b"%d\n" % n for n in range(40))
    await client.refused(404, "run_not_found", await client.http.get(f"/v1/runs/{run}"))
    big = await client.begin("print('x' * 3_000_000)")
    async with client.line(big) as line:
        await read(line, 40)
        with pytest.raises(websockets.InvalidStatus) as refused:
            await client.events(big, 1)
        assert refused.value.response.status_code == 410
        assert b"events_gone" in (refused.value.response.body or b"")
    await client.http.delete(f"/v1/runs/{big}")


async def test_a_name_is_begun_once_and_one_of_another_process_is_refused(client: Client) -> None:
    first = await client.start("print(1)", id="chosen-by-me-1")
    again = await client.start("print(2)", id="chosen-by-me-1")
    assert (first.status_code, again.status_code) == (201, 200)
    assert printed(await client.events("chosen-by-me-1")) == b"1\n"
    await client.refused(409, "runner_restarted", await client.start("print(1)", instance="another"))
    both = await asyncio.gather(*(client.start("print(1)", id="chosen-by-me-2") for _ in range(5)))
    assert sorted(answer.status_code for answer in both) == [200, 200, 200, 200, 201]
    await client.events("chosen-by-me-2")


async def test_input_that_is_said_again_is_taken_once(client: Client) -> None:
    run = await client.begin("import sys; print(sys.stdin.read())", stdin=None)
    async with client.line(run) as line:
        for number, text, close in (
            (1, b"a", False),
            (2, b"b", False),
            (1, b"a", False),
            (2, b"b", False),
            (3, b"c", True),
        ):
            await line.send(pack({"type": "input", "number": number, "close": close}, text))
        assert printed(await read(line)) == b"abc\n"


@pytest.mark.parametrize(
    "message", [b"", b"\0\0\0\x09{}", pack({"type": "sing"}), pack({"type": "input", "number": 7}), pack({"type": "confirm", "seq": -1})]
)  # fmt: skip
async def test_what_makes_no_sense_ends_the_line_and_not_the_run(client: Client, message: bytes) -> None:
    run = await client.begin("import sys; sys.stdin.read(); print('on')", stdin=None)
    async with client.line(run) as line:
        await line.send(message)
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            while True:
                await line.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4400
    async with client.line(run) as line:
        await line.send(pack({"type": "input", "number": 1, "close": True}))
        assert printed(await read(line)) == b"on\n"


async def test_without_a_reader_a_run_waits_and_is_given_up_after_its_grace(client: Client) -> None:
    flood = "import sys\nwhile True: sys.stdout.write('x' * 999 + '\\n')"
    run = await client.begin(flood, grace_seconds=0.5)
    for _ in range(100):
        shown = (await client.http.get(f"/v1/runs/{run}")).json()
        if shown["state"] == "ended":
            break
        await asyncio.sleep(0.05)
    assert shown["result"]["reason"] == "cancelled"
    events = await client.events(run)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert 256 * 1024 <= len(printed(events)) <= 1024 * 1024


async def test_a_run_that_is_to_be_kept_goes_on_without_a_reader_and_the_cut_is_shown(client: Client) -> None:
    program = "import sys\nfor n in range(20000): sys.stdout.write(f'{n:09}' + 'x' * 90 + '\\n')"
    run = await client.begin(program, disconnect="keep", grace_seconds=0)
    for _ in range(200):
        shown = (await client.http.get(f"/v1/runs/{run}")).json()
        if shown["state"] == "ended":
            break
        await asyncio.sleep(0.05)
    assert shown["result"]["code"] == 0
    events = await client.events(run)
    cuts = [event for event in events if isinstance(event, Cut)]
    assert len(cuts) == 1
    assert len(printed(events)) + cuts[0].size == 20_000 * 100
    assert printed(events).startswith(b"000000000x")
    assert printed(events).endswith(b"x\n")


async def test_a_second_reader_takes_the_place_of_the_first(client: Client) -> None:
    run = await client.begin("import sys; sys.stdin.read()", stdin=None)
    async with client.line(run) as first, client.line(run) as second:
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            while True:
                await first.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4409
        await second.send(pack({"type": "cancel"}))
        last = (await read(second))[-1]
        assert isinstance(last, Exited)
        assert last.reason is Reason.CANCELLED


async def test_signals_and_cancel_over_http(client: Client) -> None:
    run = await client.begin("import time; time.sleep(60)")
    await client.refused(
        422, "signal_unknown", await client.http.post(f"/v1/runs/{run}/signal", json={"signal": "RTMIN"})
    )
    await client.refused(400, "bad_request", await client.http.post(f"/v1/runs/{run}/signal", content=b"["))
    await client.refused(
        413, "too_large", await client.http.post(f"/v1/runs/{run}/signal", content=b" " * 5000)
    )
    assert (await client.http.post(f"/v1/runs/{run}/signal", json={"signal": "TERM"})).status_code == 204
    last = (await client.events(run))[-1]
    assert isinstance(last, Exited)
    assert last.signal == "SIGTERM"
    await client.refused(404, "run_not_found", await client.http.delete(f"/v1/runs/{run}"))
    run = await client.begin("import time; time.sleep(60)")
    assert (await client.http.delete(f"/v1/runs/{run}")).status_code == 204
    last = (await client.events(run))[-1]
    assert isinstance(last, Exited)
    assert last.reason is Reason.CANCELLED


HEAD: dict[str, Any] = {"language": "python", "entry": "m.py", "files": [["m.py", 2]], "stdin": None}


def surrogate(name: str) -> bytes:
    """Return a request with half a surrogate pair, which JSON can name and UTF-8 cannot."""
    values = {"args": ["\ud800"], "files": [["\ud800", 2]]}
    text = json.dumps({**HEAD, name: values[name]}).encode()
    return len(text).to_bytes(4, "big") + text + b"12"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "bad_request"),
        (b"\xff\xff\xff\xff", 413, "too_large"),
        (pack(HEAD), 400, "bad_request"),
        (pack(HEAD, b"12345"), 400, "bad_request"),
        (pack({**HEAD, "files": [["m.py", -1]]}), 400, "bad_request"),
        (pack({**HEAD, "files": [["m.py", 2], ["m.py", 2]]}, b"1234"), 400, "bad_request"),
        (pack({**HEAD, "files": [["m.py", 1 << 40]]}), 422, "files_too_large"),
        (pack({**HEAD, "stdin": 1 << 40}), 413, "too_large"),
        (pack({**HEAD, "files": [["../m.py", 2]]}, b"12"), 422, "path_invalid"),
        (pack({**HEAD, "entry": "x"}, b"12"), 422, "entry_not_found"),
        (pack({**HEAD, "language": "cobol"}, b"12"), 422, "language_unknown"),
        (pack({**HEAD, "limits": {"wall_seconds": float("inf")}}, b"12"), 422, "limit_invalid"),
        (pack({**HEAD, "limits": {"memory_mb": 1 << 30}}, b"12"), 422, "limit_too_high"),
        (pack({**HEAD, "limits": {"memory_mb": 0.5}}, b"12"), 400, "bad_request"),
        (pack({**HEAD, "limits": {"speed": 1}}, b"12"), 400, "bad_request"),
        (pack({**HEAD, "disconnect": "sulk"}, b"12"), 422, "policy_unknown"),
        (pack({**HEAD, "grace_seconds": 1e9}, b"12"), 422, "limit_invalid"),
        (pack({**HEAD, "args": [1]}, b"12"), 400, "bad_request"),
        (pack({**HEAD, "args": ["\0"]}, b"12"), 422, "argument_invalid"),
        (surrogate("args"), 400, "bad_request"),
        (surrogate("files"), 422, "path_invalid"),
        (pack({**HEAD, "id": "../../etc"}, b"12"), 400, "bad_request"),
    ],
)  # fmt: skip
async def test_bad_requests_are_refused_by_name(client: Client, body: bytes, status: int, code: str) -> None:
    await client.refused(status, code, await client.http.post("/v1/runs", content=body))


async def test_random_bytes_are_refused_and_never_an_error_of_ours(client: Client) -> None:
    chance = random.Random(5)
    good = bytearray(pack(HEAD, b"12"))
    for _ in range(100):
        body = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        answer = await client.http.post("/v1/runs", content=bytes(body))
        assert answer.status_code in (201, 400, 413, 422), answer.text
        if answer.status_code == 201:
            await client.http.delete(f"/v1/runs/{answer.json()['id']}")
            await client.events(answer.json()["id"])


async def test_nobody_gets_in_without_the_secret(client: Client) -> None:
    async with httpx2.AsyncClient(base_url=f"http://{client.url}") as stranger:
        assert (await stranger.get("/v1/health")).json()["status"] == "ok"
        for method, path in (
            ("GET", "/v1/doctor"),
            ("POST", "/v1/runs"),
            ("GET", "/metrics"),
            ("DELETE", "/v1/runs/x"),
            ("GET", "/none"),
        ):
            for bearer in ({}, {"Authorization": f"Bearer {SECRET}x"}, {"Authorization": SECRET}):
                await client.refused(
                    401, "unauthenticated", await stranger.request(method, path, headers=bearer)
                )
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(f"ws://{client.url}/v1/runs/12345678/events", proxy=None)
        assert refused.value.response.status_code == 401


async def test_a_web_page_may_not_speak_with_a_runner(backend: Backend) -> None:
    async with serving(backend, secret="") as client:
        client.bearer.clear()
        page = {"Origin": "https://elsewhere.example"}
        body = pack({**HEAD}, b"12")
        await client.refused(
            403, "cross_site", await client.http.post("/v1/runs", content=body, headers=page)
        )
        run = await client.begin("print(1)")
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(
                f"ws://{client.url}/v1/runs/{run}/events",
                origin=Origin("https://elsewhere.example"),
                proxy=None,
            )
        assert refused.value.response.status_code == 403
        assert printed(await client.events(run)) == b"1\n"


async def test_a_full_runner_refuses_with_a_time(backend: Backend) -> None:
    async with serving(backend, runs=1, held_mb=4) as client:
        run = await client.begin("import time; time.sleep(60)")
        answer = await client.start("print(1)")
        await client.refused(503, "runner_full", answer)
        assert answer.headers["Retry-After"] == "1"
        await client.http.delete(f"/v1/runs/{run}")
        await client.events(run)
        problem = await client.refused(
            503, "runner_full", await client.start("", files={"x": bytes(5 << 20)})
        )
        assert "MiB" in problem["detail"]
        await client.events(await client.begin("", files={"x": bytes(3 << 20)}))
        await client.events(await client.begin("", files={"x": bytes(3 << 20)}))


async def test_a_request_that_never_ends_is_given_up(backend: Backend) -> None:
    async with serving(backend, body_seconds=0.3) as client:
        reader, writer = await asyncio.open_connection(*client.url.split(":"))
        writer.write(
            f"POST /v1/runs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET}\r\nContent-Length: 999\r\n\r\n".encode()
            + pack({**HEAD, "files": [["m.py", 500]]}, b"1")
        )
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_a_line_on_which_nothing_is_said_is_closed_and_one_that_is_used_is_not(
    backend: Backend,
) -> None:
    async with serving(backend, head_seconds=0.3) as client:
        run = await client.begin("import time; time.sleep(1); print('on')")
        reader, writer = await asyncio.open_connection(*client.url.split(":"))
        writer.write(b"GET /v1/health HT")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        assert printed(await client.events(run)) == b"on\n"


async def test_more_connections_than_there_may_be_are_turned_away(backend: Backend) -> None:
    async with serving(backend, connections=3) as client:
        lines = [await asyncio.open_connection(*client.url.split(":")) for _ in range(4)]
        answer = await client.http.get("/v1/health")
        assert answer.status_code == 503
        for _, writer in lines:
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(5):
            while (await client.http.get("/v1/health")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_a_head_of_a_request_is_bounded(client: Client) -> None:
    reader, writer = await asyncio.open_connection(*client.url.split(":"))
    with contextlib.suppress(ConnectionError):
        writer.write(b"GET /v1/health HTTP/1.1\r\nX: " + b"x" * 200_000)
        await writer.drain()
        assert b" 400 " in await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def test_small_messages_are_sent_at_once() -> None:
    listener = listen(Options(port=0))
    held: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def take(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        held.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async with await asyncio.start_server(take, sock=listener) as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await held == 1
        writer.close()
        await writer.wait_closed()


async def test_the_doctor_s_findings_and_metrics_are_served(client: Client, backend: Backend) -> None:
    found = (await client.http.get("/v1/doctor")).json()
    assert found["available"]
    assert {control["name"] for control in found["controls"]} >= {"network", "memory", "system calls"}
    await client.events(await client.begin("print(1)"))
    await backend.warm()
    metrics = (await client.http.get("/metrics")).text
    values = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("atelier_runner"))
    assert float(values["atelier_runner_pool_sandboxes"]) == float(values["atelier_runner_pool_wanted"]) >= 2
    assert float(values['atelier_runner_taken_sandboxes{how="warm"}']) >= 1
    assert float(values["atelier_runner_pool_memory_bytes"]) > 1e6
    assert float(values['atelier_runner_ended_total{reason="exited"}']) >= 1
    assert float(values["atelier_runner_start_seconds_count"]) >= 1
    assert float(values["atelier_runner_running"]) == 0


async def test_where_a_control_is_absent_untrusted_programs_are_refused() -> None:
    async with open_local(limits=LIMITS, untrusted=True) as backend:
        found = await backend.capabilities()
        absent = (Control("network", "absent", "as if"), *found.controls[1:])
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.set_result(replace(found, controls=absent))
        backend._examination = done  # type: ignore[assignment]
        async with serving(backend) as client:
            problem = await client.refused(503, "sandbox_unavailable", await client.start("print(1)"))
            assert "network" in problem["detail"]


async def test_every_code_is_in_the_protocol_s_description() -> None:
    root = Path(__file__).parents[1]
    text = (root / "PROTOCOL.md").read_text()
    for path in (root / "atelier_runner").rglob("*.py"):
        for code in re.findall(
            r"""(?:ServiceRefused\(\s*\d+,|SpecInvalid\()\s*"([a-z_]+)""", path.read_text()
        ):
            assert f"`{code}`" in text, code


async def test_a_run_may_be_given_a_network_and_never_private_addresses(backend: Backend) -> None:
    program = "import os\nprint(os.environ.get('HTTPS_PROXY'))"
    async with serving(backend) as client:
        assert printed(await client.events(await client.begin(program))) == b"None\n"
        given = await client.begin(program, network={"hosts": None})
        assert printed(await client.events(given)) == b"http://127.0.0.1:3128\n"
        named = await client.begin(program, network={"hosts": ["example.org:443"]})
        assert printed(await client.events(named)) == b"http://127.0.0.1:3128\n"
        wrong: list[Any] = [
            {"hosts": ["a:80"], "private": True},
            {},
            [],
            "all",
            {"hosts": "a:80"},
            {"hosts": [1]},
        ]
        for network in wrong:
            await client.refused(400, "bad_request", await client.start(program, network=network))
        await client.refused(422, "host_invalid", await client.start(program, network={"hosts": ["a"]}))
        figures = (await client.http.get("/metrics")).text
        assert "atelier_runner_network_connections 0.0" in figures
