"""What this server may reach when somebody else says where: checked by the address that is really connected to.

Theory of operation. A URL from outside is a request in this server's name, from inside its network. So three things
hold. `place_of` reads the URL strictly: https, a host, nothing that two readers could read differently. `Egress` looks
the name up once per connection and refuses unless every answer is a public address; names decide nothing, so neither a
number in disguise nor a name that answers differently the second time gets through. The connection goes to the address
that was checked, while TLS still asks for the name. Redirects are not followed here: whoever follows one calls
`place_of` again and makes a new connection, which is checked like the first.

Where the settings list hosts, these are reached wherever they are (an internal Git server), and no others are.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

import httpcore2
from httpcore2 import AnyIOBackend, AsyncConnectionPool, AsyncNetworkBackend, AsyncNetworkStream

from atelier.errors import Invalid, Unavailable

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
_PORT = 443
_MOST_CHARACTERS = 2_000
_CONNECT_SECONDS = 10.0  # for one address
_MOST_ADDRESSES = 4  # that are tried
# IANA's special-purpose registry, multicast, and what clouds keep for themselves.
_SPECIAL_V4 = tuple(
    IPv4Network(net)
    for net in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; one cloud's metadata is in it
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's platform address, public by its looks
        "169.254.0.0/16",  # link-local; most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_UNICAST_V6 = IPv6Network(
    "2000::/3"
)  # all that is handed out for global use; the rest is special by omission
_SPECIAL_V6 = tuple(
    IPv6Network(net) for net in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Place:
    """An https address: a host in lower-case ASCII without brackets or a last dot, a port, and a path with its query."""

    host: str
    port: int
    path: str

    @property
    def name(self) -> str:
        """The host as people write it, with its port unless that is the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORT else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole address."""
        return f"https://{self.name}{self.path}"


def place_of(url: str) -> Place:
    """Read an address that somebody gave.

    Raises:
        Invalid: `url_not_https`, `url_has_login`, `url_invalid`.
    """
    if len(url) > _MOST_CHARACTERS or any(c <= " " or c == "\x7f" or c == "\\" for c in url):
        raise _invalid("it is too long, or holds a space, a control character or a backslash")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _invalid(str(error)) from None
    if parts.scheme != "https":
        raise Invalid(
            "url_not_https",
            f"The address must begin with https://, not with {url.partition(':')[0][:20]!r}.",
            next_step="Use the https address.",
        )
    if "@" in parts.netloc:
        raise Invalid(
            "url_has_login",
            "The address holds a user's name or a password.",
            next_step="Take it out; what needs a login cannot be fetched from here.",
        )
    if port == 0:
        raise _invalid("no port is 0")
    if "[" in parts.netloc and ":" not in (parts.hostname or ""):
        raise _invalid("what is between its brackets is no IPv6 address")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii():
        raise _invalid("its path holds characters that must be percent-encoded")
    return Place(_host(parts.hostname or ""), port or _PORT, path)


def _host(name: str) -> str:
    """Return a host in the one form in which it is compared, looked up and asked for."""
    if ":" in name:
        try:
            return str(IPv6Address(name)) if "%" not in name else _refuse_host(name)
        except ValueError:
            return _refuse_host(name)
    try:
        # Full-width digits and dots become plain ones here, so what follows sees what a resolver would.
        host = name.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError:
        return _refuse_host(name)
    labels = host.split(".")
    if not all(labels) or not all(c.isalnum() or c in "-_." for c in host):
        return _refuse_host(name)
    if labels[-1].isdigit() or labels[-1].startswith("0x"):
        # A number: only the plain form of four parts, not 2130706433, 0x7f.1 or 0177.0.0.1.
        try:
            return str(IPv4Address(host))
        except ValueError:
            return _refuse_host(name)
    return host


def _refuse_host(name: str) -> str:
    raise _invalid(f"{name[:100]!r} is not the name of a host")


def _invalid(why: str) -> Invalid:
    return Invalid(
        "url_invalid",
        f"This is not an address that can be fetched: {why}.",
        next_step="Give one like https://host/path.",
    )


def is_public(address: Address) -> bool:
    """Say whether an address belongs to the public internet. IPv6 forms that carry another address are not public,
    but for NAT64, which is judged by what it carries."""
    if isinstance(address, IPv4Address):
        return not any(address in net for net in _SPECIAL_V4)
    if address in _NAT64:
        return is_public(IPv4Address(address.packed[12:]))
    return (
        address.scope_id is None and address in _UNICAST_V6 and not any(address in net for net in _SPECIAL_V6)
    )


def is_own(address: Address) -> bool:
    """Say whether an address is one of this machine's: the kernel would use it to talk to itself."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((str(address), 9))  # nothing is sent
        return bool(probe.getsockname()[0] == str(address))
    return False


async def look_up(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver for all addresses of a host."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Egress:
    """The rule of this server: `hosts` is the setting, comma-separated `host` or `host:port`; empty: any public host."""

    def __init__(self, hosts: str = "", resolve: Resolve = look_up) -> None:
        self._listed = frozenset(_listed(hosts))
        self._resolve = resolve

    def check(self, place: Place) -> None:
        """Refuse what no look-up is needed to refuse.

        Raises:
            Invalid: `host_not_listed`, `port_forbidden`.
        """
        if self._listed and (place.host, place.port) not in self._listed:
            raise Invalid(
                "host_not_listed",
                f"This server fetches only from {', '.join(sorted(_names(self._listed)))}; {place.name} is not one of them.",
                next_step="Ask whoever runs this server, or import a zip.",
            )
        if not self._listed and place.port != _PORT:
            raise Invalid(
                "port_forbidden",
                f"This server fetches only from port {_PORT}, not from {place.port}.",
                next_step="Ask whoever runs this server to list the host, or import a zip.",
            )

    async def addresses(self, host: str, port: int) -> list[Address]:
        """Look a host up and return its addresses, if it may be reached.

        Raises:
            Invalid: `host_not_listed`, `port_forbidden`, `host_not_public`, `host_unknown`.
        """
        place = Place(host, port, "/")
        self.check(place)
        try:
            found = [ip_address(text) for text in await self._resolve(host, port)]
        except (OSError, UnicodeError, ValueError):
            found = []
        if not found:
            raise Invalid(
                "host_unknown", f"There is no host {host[:100]!r}.", next_step="Check the address for a typo."
            )
        if not self._listed and any(not is_public(address) or is_own(address) for address in found):
            # Which address it was is not told: the answer would map the inside of this network.
            raise Invalid(
                "host_not_public",
                f"{place.name} is not an address of the public internet.",
                next_step="Ask whoever runs this server to list the host, or import a zip.",
            )
        return found

    def pool(self, context: ssl.SSLContext) -> AsyncConnectionPool:
        """Return an HTTP client whose every connection is checked; it follows no redirects and uses no proxy."""
        return AsyncConnectionPool(ssl_context=context, max_connections=2, network_backend=_Checked(self))


class _Checked(AsyncNetworkBackend):
    """Connects to an address that was checked; the caller's TLS still asks for the host by its name."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._plain = AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the base class has it
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        """Look up, check, connect.

        Raises:
            Invalid: as `Egress.addresses`.
            Unavailable: `host_unreachable`.
        """
        host = host.strip("[]")
        for address in (await self._egress.addresses(host, port))[:_MOST_ADDRESSES]:
            with contextlib.suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return await self._plain.connect_tcp(
                    str(address), port, timeout=timeout or _CONNECT_SECONDS, local_address=local_address
                )
        raise Unavailable(
            "host_unreachable",
            f"{Place(host, port, '/').name} does not answer.",
            next_step="Check the address, or try again later.",
        )

    async def sleep(self, seconds: float) -> None:
        await self._plain.sleep(seconds)


def _listed(hosts: str) -> Iterable[tuple[str, int]]:
    """Read the setting. Raises Invalid `url_invalid` for what is no host."""
    for entry in filter(None, (part.strip() for part in hosts.split(","))):
        place = place_of(f"https://{entry}")
        yield place.host, place.port


def _names(listed: Iterable[tuple[str, int]]) -> list[str]:
    return [Place(host, port, "/").name for host, port in listed]
