"""What may be reached and what not: every way to write an inner address, and names that change their answer."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from ipaddress import ip_address

import pytest
import trustme

from atelier.egress import Egress, is_own, is_public, look_up, place_of
from atelier.errors import AtelierError, Unavailable


def answering(*answers: Sequence[str]) -> tuple[Egress, list[str]]:
    """An egress whose resolver gives one answer after the other, and the list of what it was asked."""
    asked: list[str] = []

    async def resolve(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return Egress(resolve=resolve), asked


PRIVATE = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1",
    "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1",
    "2002:7f00:1::", "2002:808:808::", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0",
    "fec0::1", "ff02::1", "2606:4700::1%eth0",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700:4700::1111", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", PRIVATE)
async def test_an_address_inside_is_refused_however_it_was_named(address: str) -> None:
    assert not is_public(ip_address(address))
    egress, _ = answering([address])
    with pytest.raises(AtelierError) as refused:
        await egress.addresses("looks.example.com", 443)
    assert refused.value.code == "host_not_public"
    assert address not in refused.value.detail


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_one(address: str) -> None:
    assert is_public(ip_address(address))


async def test_one_bad_answer_among_good_ones_spoils_them() -> None:
    egress, _ = answering(["8.8.8.8", "10.0.0.1"])
    with pytest.raises(AtelierError, match="not an address of the public internet"):
        await egress.addresses("example.com", 443)


def test_this_machines_own_address_is_known() -> None:
    assert is_own(ip_address("127.0.0.1"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 9))
        except OSError:
            pytest.skip("this machine has no way out")
        assert is_own(ip_address(probe.getsockname()[0]))
    assert not is_own(ip_address("8.8.8.8"))


REFUSED = {
    "url_not_https": [
        "http://example.com/", "HTTP://example.com", "ftp://example.com", "file:///etc/passwd", "git://example.com/r",
        "ssh://example.com/r", "example.com/r", "//example.com/r", "", "javascript:alert(1)", "gopher://127.0.0.1:6379/_x",
    ],
    "url_has_login": [
        "https://user@example.com/", "https://user:pw@example.com/", "https://example.com@127.0.0.1/", "https://@example.com/",
        "https://127.0.0.1%2f@example.com/", "https://:@example.com/",
    ],
    "url_invalid": [
        "https://", "https:///r", "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://127.1/",
        "https://0177.0.0.1/", "https://127.0.0.01/", "https://127.0.0.1.0x1/", "https://1.2.3.4.5/", "https://256.1.1.1/",
        "https://[::1/", "https://[fe80::1%25eth0]/", "https://[fe80::1%eth0]/", "https://[v1.x]/", "https://[127.0.0.1]/",
        "https://example.com:0/", "https://example.com:99999/", "https://example.com:x/", "https://exa mple.com/",
        "https://example.com\\@127.0.0.1/", "https://example.com/\r\nHost: x", "https://example.com/\t", " https://example.com",
        "https://exa\0mple.com/", "https://.example.com/", "https://example..com/", "https://%31%32%37.0.0.1/",
        "https://example.com/é", "https://" + "a" * 64 + ".com/", "https://example.com/" + "a" * 2_000, "https://a,b/",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("code", "url"), [(code, url) for code, urls in REFUSED.items() for url in urls])
def test_an_address_that_can_be_read_in_two_ways_is_refused(code: str, url: str) -> None:
    with pytest.raises(AtelierError) as refused:
        place_of(url)
    assert refused.value.code == code
    assert "pw" not in refused.value.detail


@pytest.mark.parametrize(
    ("url", "host", "port", "shown"),
    [
        ("https://Example.COM/a/b.git?x=1#y", "example.com", 443, "https://example.com/a/b.git?x=1"),
        ("https://example.com.:443/", "example.com", 443, "https://example.com/"),
        ("https://example.com", "example.com", 443, "https://example.com/"),
        ("https://bücher.example/", "xn--bcher-kva.example", 443, "https://xn--bcher-kva.example/"),
        ("https://１２７.０.０.１/", "127.0.0.1", 443, "https://127.0.0.1/"),
        ("https://127。0。0。1/", "127.0.0.1", 443, "https://127.0.0.1/"),
        ("https://[::FFFF:127.0.0.1]:8443/", "::ffff:7f00:1", 8443, "https://[::ffff:7f00:1]:8443/"),
        ("https://[0:0:0:0:0:0:0:1]/", "::1", 443, "https://[::1]/"),
    ],
)
def test_an_address_has_one_form(url: str, host: str, port: int, shown: str) -> None:
    place = place_of(url)
    assert (place.host, place.port, place.url) == (host, port, shown)


async def test_the_systems_resolver_finds_numbers_and_names_inside() -> None:
    egress = Egress()
    for host in ("127.0.0.1", "::1", "localhost", "169.254.169.254"):
        with pytest.raises(AtelierError, match="not an address of the public internet"):
            await egress.addresses(host, 443)
    with pytest.raises(AtelierError) as unknown:
        await egress.addresses("nothing.invalid", 443)
    assert unknown.value.code == "host_unknown"


async def test_only_the_usual_port_unless_it_is_listed() -> None:
    egress, asked = answering(["8.8.8.8"])
    with pytest.raises(AtelierError) as refused:
        await egress.addresses("example.com", 6379)
    assert refused.value.code == "port_forbidden"
    assert asked == []


async def test_a_list_lets_in_what_it_names_and_nothing_else() -> None:
    async def inside(_host: str, _port: int) -> Sequence[str]:
        return ["10.0.0.7"]

    egress = Egress("git.example.com, GIT.inner.:8443", inside)
    assert await egress.addresses("git.example.com", 443) == [ip_address("10.0.0.7")]
    assert await egress.addresses("git.inner", 8443) == [ip_address("10.0.0.7")]
    for host, port in (
        ("example.com", 443),
        ("git.example.com", 8443),
        ("git.inner", 443),
        ("10.0.0.7", 443),
    ):
        with pytest.raises(AtelierError) as refused:
            await egress.addresses(host, port)
        assert refused.value.code == "host_not_listed"


def test_a_list_that_cannot_be_read_is_refused_at_the_start() -> None:
    with pytest.raises(AtelierError):
        Egress("git.example.com,0x7f.1")


async def test_a_connection_goes_to_what_was_checked_though_the_name_answers_differently_later() -> None:
    """The first answer is public and nobody is there, the second is this machine: it is never connected to."""
    reached = asyncio.Event()

    async def arrived(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        writer.close()

    inside = await asyncio.start_server(arrived, "127.0.0.1", 0)
    async with inside:
        egress, asked = answering(["192.0.2.1"], ["127.0.0.1"])
        async with egress.pool(ssl.create_default_context()) as pool:
            for _ in range(2):  # each connection looks the name up once, and is checked by that answer
                with pytest.raises(AtelierError, match="not an address of the public internet"):
                    await pool.request("GET", "https://rebind.example.com/")
    assert asked == ["rebind.example.com"] * 2
    assert not reached.is_set()


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to() -> None:
    """By name it would be somewhere else: the resolver's answer counts, and TLS asks for the name."""
    names: list[str | None] = []

    def hello(_socket: object, name: str | None, _context: object) -> None:
        names.append(name)

    authority, context, trusting = (
        trustme.CA(),
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ssl.create_default_context(),
    )
    authority.issue_cert("nowhere.invalid").configure_cert(context)
    authority.configure_trust(trusting)
    context.sni_callback = hello
    asked: list[str] = []

    async def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        writer.close()

    async def resolve(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    server = await asyncio.start_server(arrived, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server, Egress(f"nowhere.invalid:{port}", resolve).pool(trusting) as pool:
        answer = await pool.request("GET", f"https://nowhere.invalid:{port}/")
    assert (answer.content, asked, names) == (b"hello", ["nowhere.invalid"], ["nowhere.invalid"])


async def test_nobody_there_is_said_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with Egress(f"localhost:{port}", look_up).pool(ssl.create_default_context()) as pool:
            with pytest.raises(Unavailable, match="does not answer"):
                await pool.request("GET", f"https://localhost:{port}/")
