"""Which addresses a program may reach: everything that is not known to be public is refused."""

from __future__ import annotations

import ipaddress
import random

import pytest

from atelier_runner.addresses import is_public
from atelier_runner.http_request import BadRequest, read_target
from atelier_runner.outward import is_elsewhere

INSIDE = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "100.64.0.1", "100.100.100.200", "169.254.169.254", "169.254.170.2", "168.63.129.16", "192.0.0.192", "192.0.2.1",
    "192.88.99.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1",
    "2001:10::1", "2002:7f00:1::", "2002:808:808::1", "2620:4f:8000::1", "3fff::1", "5f00::1", "fc00::1", "fd00::1",
    "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "4000::1", "2600::1%1",
    "localhost", "", "1", "2130706433", "0x7f.1", "127.1", "0177.0.0.1", "8.8.8.8 ", "8.8.8.08", "example.org",
]  # fmt: skip
OUTSIDE = [
    "1.1.1.1", "8.8.8.8", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.0", "169.253.1.1",
    "223.255.255.255", "2600::1", "2606:4700::1111", "2a00:1450:4001::1", "64:ff9b::808:808",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_what_belongs_to_an_inside_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_what_is_anybodys_is(address: str) -> None:
    assert is_public(address)


def test_nothing_is_public_that_the_standard_library_knows_to_be_private() -> None:
    chance = random.Random(8)
    for _ in range(20_000):
        four = ipaddress.IPv4Address(chance.getrandbits(32))
        six = ipaddress.IPv6Address(chance.getrandbits(128) >> chance.choice((0, 1, 2, 3, 8, 32, 96)))
        for address in (four, six):
            if is_public(str(address)):
                assert not address.is_private, address
                assert not address.is_multicast
                assert not address.is_link_local
                assert not address.is_loopback
                assert not address.is_unspecified


@pytest.mark.parametrize(
    "text",
    [
        "2130706433:80", "0x7f000001:80", "0x7f.0.0.1:80", "0177.0.0.1:80", "127.1:80", "127.0.0.1.:80x", "1.2.3:80",
        "1.2.3.4.5:80", "256.1.1.1:80", "a.0x1:80", "08.8.8.8:80", "example.org", "example.org:", "example.org:0",
        "example.org:65536", "example.org:-1", "example.org:+80", "example.org:8 0", "example.org:\u0668", ":80", ".:80",
        "a..b:80", "[fe80::1%25eth0]:80", "[fe80::1%1]:80", "[::1:80", "::1:80", "[1.2.3.4]:80", "[]:80", "a b:80", "a\0b:80",
        "a/b:80", "user@host:80", "-a.org:80", "a" * 64 + ".org:80", "a." * 127 + "org:80", "\u2460.org:80", "example.org:080000",
    ],
)  # fmt: skip
def test_a_host_that_could_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        read_target(text, None)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Example.ORG.:443", "example.org:443"),
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("8.8.8.8.:80", "8.8.8.8:80"),
        ("[2600:0::0:1]:443", "2600::1:443"),
        ("_a.b-c.org:00443", "_a.b-c.org:443"),
        ("xn--bcher-kva.example:80", "xn--bcher-kva.example:80"),
    ],
)
def test_a_host_is_read_as_an_allow_list_has_it(text: str, named: str) -> None:
    assert read_target(text, None).named == named


def test_the_other_end_of_a_connection_is_another_machine() -> None:
    assert is_elsewhere(("93.184.216.34", 443), ("10.0.0.2", 50000))
    assert not is_elsewhere(("93.184.216.34", 443), ("93.184.216.34", 50000))
    assert not is_elsewhere(("10.0.0.3", 443), ("10.0.0.2", 50000))
    assert not is_elsewhere(None, ("10.0.0.2", 50000))
