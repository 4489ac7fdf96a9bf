"""Programs that have a network: what they reach goes through the proxy, over each carrier; without one nothing listens."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from atelier_runner import (
    Backend,
    BuildLimits,
    Changed,
    Collect,
    Exited,
    Limits,
    Network,
    Output,
    Reason,
    Spec,
    SpecInvalid,
    Window,
    open_docker,
    open_local,
)

from .outside import PUBLIC, Outside, echo, show

LIMITS = Limits(wall_seconds=20, cpu_seconds=8, memory_mb=192, processes=32, disk_mb=16, output_bytes=4 << 20)
pytestmark = pytest.mark.asyncio(loop_scope="module")
# Speaks with the proxy without any library's help.
OPENING = """
import socket, sys
def through(target, first=b""):
    s = socket.create_connection(("127.0.0.1", 3128), 10)
    s.sendall(f"CONNECT {target} HTTP/1.1\\r\\n\\r\\n".encode() + first)
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        part = s.recv(1)
        if not part: break
        head += part
    return s, head.split(b"\\r\\n")[0].decode()
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def outside() -> AsyncIterator[Outside]:
    found = Outside()
    yield found
    await found.close()


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["local", pytest.param("docker", marks=pytest.mark.docker)]
)
async def backend(request: pytest.FixtureRequest, outside: Outside) -> AsyncIterator[Backend]:
    outside.serve(show)
    outside.serve(echo, port=443)
    if request.param == "local":
        async with open_local(limits=LIMITS, outward=outside.outward) as opened:
            yield opened
    else:
        path = request.getfixturevalue("docker_socket")
        async with open_docker(path, limits=LIMITS, outward=outside.outward) as opened:
            yield opened


async def run(backend: Backend, program: str, **spec: Any) -> tuple[str, Exited]:
    """Run a program with a network to its end; returns what it printed on both streams, and its result."""
    given = Spec("python", "m.py", {"m.py": program.encode()}, LIMITS, stdin=b"", network=Network())
    printed = bytearray()
    async for event in backend.events(await backend.start(replace(given, **spec))):
        if isinstance(event, Output):
            printed += event.data
        elif isinstance(event, Exited):
            return printed.decode(errors="replace"), event
    raise AssertionError("no result")


async def test_a_library_finds_the_way_by_itself(backend: Backend) -> None:
    program = "import urllib.request\nprint(urllib.request.urlopen('http://example.org/a?b').read().decode())"
    printed, result = await run(backend, program)
    assert printed.startswith("GET /a?b HTTP/1.1\r\nHost: example.org\r\n"), printed
    assert result.code == 0


async def test_a_refusal_can_be_read_in_what_a_program_prints(backend: Backend, outside: Outside) -> None:
    outside.names["inside.example"] = [["169.254.169.254"]]
    program = "import urllib.request\nurllib.request.urlopen('https://inside.example/')"
    printed, result = await run(backend, program)
    assert "Atelier: inside.example is not on the public internet" in printed
    assert result.code == 1


async def test_what_a_program_serves_itself_it_reaches_without_the_proxy(backend: Backend) -> None:
    program = """
import http.server, threading, urllib.request
server = http.server.HTTPServer(("127.0.0.1", 8000), type("H", (http.server.BaseHTTPRequestHandler,), {
    "do_GET": lambda self: (self.send_response(204), self.end_headers()), "log_message": lambda *a: None}))
threading.Thread(target=server.serve_forever, daemon=True).start()
print(urllib.request.urlopen("http://127.0.0.1:8000/").status)
"""
    assert (await run(backend, program))[0] == "204\n"


async def test_much_goes_both_ways_at_once_and_arrives_as_it_was(backend: Backend) -> None:
    program = (
        OPENING
        + """
import hashlib, threading, os
def one(number):
    s, line = through("example.org:443")
    data, back = os.urandom(1 << 20), bytearray()
    sending = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)))
    sending.start()
    while part := s.recv(1 << 16): back += part
    sending.join()
    results[number] = line.split()[1] == "200" and bytes(back) == data
results = {}
threads = [threading.Thread(target=one, args=(n,)) for n in range(6)]
for t in threads: t.start()
for t in threads: t.join()
print(results)
"""
    )
    printed, result = await run(backend, program)
    assert printed == str(dict.fromkeys(range(6), True)) + "\n" or eval(printed) == dict.fromkeys(
        range(6), True
    )
    assert result.reason is Reason.EXITED


async def test_a_connection_that_nobody_reads_and_input_that_nobody_reads_hold_nothing_up(
    backend: Backend,
) -> None:
    given = bytes(range(256)) * 16384
    program = (
        OPENING
        + """
import hashlib, os, threading
idle, _ = through("example.org:443")
idle.setblocking(False)
try:
    while True: idle.send(bytes(1 << 16))
except BlockingIOError: pass
s, line = through("example.org:443")
s.sendall(b"hello"); print(s.recv(5))
print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())
print("x" * 1000000)
s.sendall(b"again"); print(s.recv(5))
"""
    )
    printed, _ = await run(backend, program, stdin=given)
    expected = f"b'hello'\n{hashlib.sha256(given).hexdigest()}\n{'x' * 1000000}\nb'again'\n"
    assert printed == expected


async def test_input_that_a_program_never_reads_is_no_error(backend: Backend) -> None:
    program = "import os, time, urllib.request\nos.close(0)\nprint(urllib.request.urlopen('http://example.org/').status)"
    assert (await run(backend, program, stdin=bytes(4 << 20)))[0] == "200\n"


async def test_without_a_network_nothing_listens_and_nothing_is_said_of_one(backend: Backend) -> None:
    program = """
import os, socket
print([name for name in os.environ if "proxy" in name.lower()])
listening = [line.split()[1] for name in ("tcp", "tcp6") if os.path.exists(f"/proc/net/{name}")
             for line in open(f"/proc/net/{name}").readlines()[1:] if line.split()[3] == "0A"]
print(listening)
try: socket.create_connection(("127.0.0.1", 3128), 1)
except OSError as error: print(error.strerror)
"""
    assert (await run(backend, program, network=None))[0] == "[]\n[]\nConnection refused\n"


async def test_with_one_there_is_still_no_other_way(backend: Backend) -> None:
    program = """
import socket
for family, address in ((socket.AF_INET, ("1.1.1.1", 53)), (socket.AF_INET, ("169.254.169.254", 80)), (socket.AF_INET6, ("2600::1", 80))):
    try: socket.socket(family).connect(address); print("ESCAPED")
    except OSError as error: print(error.strerror)
try: socket.getaddrinfo("example.org", 80); print("ESCAPED")
except OSError: print("no names")
print([name for _, name in socket.if_nameindex()] if hasattr(socket, "if_nameindex") else [])
"""
    printed, _ = await run(backend, program)
    assert "ESCAPED" not in printed
    assert printed.count("unreachable") == 3 or printed.count("assign") + printed.count("unreachable") == 3, (
        printed
    )


async def test_the_agent_s_stream_is_out_of_a_program_s_reach(backend: Backend, outside: Outside) -> None:
    """Frames spoken in the agent's place would meet the same proxy; they cannot even be spoken."""
    outside.connected.clear()
    program = """
import ctypes, os
opened = []
for name in ("fd/0", "fd/1", "mem", "environ"):
    for mode in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        try: opened.append((name, os.open("/proc/1/" + name, mode)))
        except OSError: pass
try: opened += [("listing", name) for name in os.listdir("/proc/1/fd")]
except OSError: pass
libc = ctypes.CDLL(None)
pidfd = libc.syscall(434, 1, 0)
opened += [("pidfd_getfd", n) for n in (0, 1) if libc.syscall(438, pidfd, n, 0) >= 0]
opened += [("own", n) for n in range(3, 64) if os.path.exists(f"/proc/self/fd/{n}") and n != pidfd and "pidfd" not in os.readlink(f"/proc/self/fd/{n}")]
print(opened)
"""
    printed, result = await run(backend, program)
    assert printed == "[]\n"
    assert result.code == 0
    assert outside.connected == []


async def test_files_come_back_from_a_program_that_has_a_network(backend: Backend) -> None:
    spec = Spec(
        "python", "m.py", {"m.py": b"open('made', 'w').write('x')"}, LIMITS, stdin=b"", network=Network(), collect=Collect(),
    )  # fmt: skip
    events = [event async for event in backend.events(await backend.start(spec))]
    assert [event.path for event in events if isinstance(event, Changed)] == ["made"]


async def test_a_terminal_has_it_too(backend: Backend) -> None:
    spec = Spec("python", "m.py", {"m.py": b"import urllib.request\ninput()\nprint(urllib.request.urlopen('http://example.org/').status)"},
                LIMITS, terminal=Window(80, 24), network=Network())  # fmt: skip
    started = await backend.start(spec)
    await backend.write(started, b"\n")
    shown = bytearray()
    async for event in backend.events(started):
        if isinstance(event, Output):
            shown += event.data
    assert b"200" in shown


CHECKED = """
#include <stdio.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>
int main() {
    char answer[64] = {0};
    struct sockaddr_in to = {AF_INET, htons(3128), {htonl(INADDR_LOOPBACK)}, {0}};
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s, (struct sockaddr *)&to, sizeof to)) return 7;
    write(s, "CONNECT example.org:443 HTTP/1.1\\r\\n\\r\\n", 36);
    if (read(s, answer, 12) < 12) return 8;
    puts(answer);
}
"""


@pytest.mark.language("c")
@pytest.mark.parametrize("build", [None, BuildLimits()])
async def test_a_compiled_program_has_it(backend: Backend, build: BuildLimits | None) -> None:
    files = {"m.c": CHECKED.encode()}
    printed, result = await run(backend, "", language="c", entry="m.c", files=files, build=build)
    assert (printed, result.code) == ("HTTP/1.1 200\n", 0)


async def test_exactly_the_hosts_that_are_named_are_reached(backend: Backend, outside: Outside) -> None:
    outside.names["other.example"] = [[PUBLIC]]
    targets = ["example.org:80", "EXAMPLE.org.:80", "example.org:443", "other.example:80", f"{PUBLIC}:80"]
    program = OPENING + f"\nfor target in {targets}: print(through(target)[1].split()[1])"
    printed, _ = await run(backend, program, network=Network(hosts=("example.org:80",)))
    assert printed.split() == ["200", "200", "403", "403", "403"]


async def test_named_hosts_may_be_private_where_the_runner_says_so(
    backend: Backend, outside: Outside
) -> None:
    outside.names["index.local"] = [["10.1.2.3"]]
    outside.serve(show, "10.1.2.3", 8080)
    program = (
        OPENING + "\nprint(through('index.local:8080')[1].split()[1], through('10.1.2.3:8080')[1].split()[1])"
    )
    network = Network(hosts=("index.local:8080",), private=True)
    assert (await run(backend, program, network=network))[0] == "200 403\n"
    assert (await run(backend, program, network=replace(network, private=False)))[0] == "403 403\n"


@pytest.mark.parametrize(
    "network",
    [
        Network(private=True), Network(hosts=("example.org",)), Network(hosts=("example.org:0",)), Network(hosts=("a b:1",)),
        Network(hosts=("http://a:80",)), Network(hosts=("a:80",) * 65),
    ],
)  # fmt: skip
async def test_what_is_no_list_of_hosts_is_refused(backend: Backend, network: Network) -> None:
    with pytest.raises(SpecInvalid) as refused:
        await run(backend, "", network=network)
    assert refused.value.code == "host_invalid"


async def test_more_connections_than_may_be_open_wait_for_their_turn(backend: Backend) -> None:
    program = (
        OPENING
        + """
import threading
held = [through("example.org:443")[0] for _ in range(64)]
done = []
def late(): s, line = through("example.org:443"); done.append(line.split()[1])
threading.Thread(target=late).start()
import time; time.sleep(0.3)
print(done)
held.pop().close()
while not done: time.sleep(0.01)
print(done)
"""
    )
    assert (await run(backend, program))[0] == "[]\n['200']\n"


async def test_a_flood_of_connections_costs_its_own_run_only(backend: Backend, outside: Outside) -> None:
    flood = """
import socket
held = []
while True:
    try:
        s = socket.socket(); s.setblocking(False); s.connect_ex(("127.0.0.1", 3128)); held.append(s)
        try: s.send(b"CONNECT example.org:1 HTTP/1.1\\r\\n\\r\\n")
        except OSError: pass
    except OSError: held.clear()
"""
    limits = replace(LIMITS, wall_seconds=2, cpu_seconds=30)
    spec = Spec("python", "m.py", {"m.py": flood.encode()}, limits, stdin=b"", network=Network())
    flooding = await backend.start(spec)
    calm = "import urllib.request\nprint([urllib.request.urlopen('http://example.org/').status for _ in range(5)])"
    assert (await run(backend, calm))[0] == "[200, 200, 200, 200, 200]\n"
    last = [event async for event in backend.events(flooding)][-1]
    assert isinstance(last, Exited)
    assert last.reason is Reason.WALL_TIME
    assert outside.outward.refused["port"] < 200


async def test_nothing_is_open_once_the_runs_have_ended(backend: Backend, outside: Outside) -> None:
    program = (
        OPENING
        + "\nimport time\nheld = [through('example.org:443') for _ in range(20)]\nprint('up', flush=True); time.sleep(60)"
    )
    started = await backend.start(
        Spec("python", "m.py", {"m.py": program.encode()}, LIMITS, network=Network())
    )
    async for event in backend.events(started):
        if isinstance(event, Output) and b"up" in event.data:
            assert outside.outward.open >= 20
            await backend.cancel(started)
    async with asyncio.timeout(5):
        while outside.outward.open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.skipif(not os.path.exists("/etc/ssl/certs/ca-certificates.crt"), reason="no certificates here")
async def test_certificates_are_there_to_check_whom_one_speaks_with(backend: Backend) -> None:
    program = "import os\nprint(os.path.getsize('/etc/ssl/certs/ca-certificates.crt') > 1000)"
    assert (await run(backend, program))[0] == "True\n"
