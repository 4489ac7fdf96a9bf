"""Reads what a program asks a proxy for: one request's head, strictly, and where its body ends.

What two readers could understand differently (two lengths, a line without its CR, a folded header, a space before a
colon) is refused. What is passed on is written anew: the target decides about `Host`, and the connection carries one request.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC: Final = re.compile(r"([0-9]+|0x[0-9a-f]*)")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
HEADERS: Final = 100
# Of one connection, and never of the next; RFC 9110, 7.6.1.
HOP: Final = frozenset(
    ("connection", "keep-alive", "proxy-authorization", "proxy-authenticate", "proxy-connection", "te", "upgrade", "host",
     "http2-settings")
)  # fmt: skip


class BadRequest(ValueError):
    """It is not a request to a proxy; the text says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a program wants to go."""

    host: str
    """A name in lower case without its last dot, or an address without brackets."""
    port: int

    @property
    def named(self) -> str:
        """Return it as an allow-list has it."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a proxy."""

    target: Target
    head: bytes | None
    """What the target is sent; None: CONNECT, so whatever comes is passed on."""
    length: int | None = 0
    """Of the body that follows; None: it comes in chunks."""


def parse(head: bytes) -> Request:
    """Read a head, with its empty line. Raises BadRequest."""
    lines = head[:-4].decode("latin-1").split("\r\n")
    if any("\r" in line or "\n" in line or "\0" in line for line in lines):
        raise BadRequest("A line of the request does not end as it must.")
    method, _, rest = lines[0].partition(" ")
    target, _, version = rest.partition(" ")
    if not _TOKEN.fullmatch(method) or version not in ("HTTP/1.1", "HTTP/1.0") or not target:
        raise BadRequest("This is a proxy for HTTP: it takes CONNECT host:port and http://host/path.")
    headers = _headers(lines[1:])
    if method == "CONNECT":
        return Request(read_target(target, None), None)
    if not target.lower().startswith("http://") or not target.isascii() or not target.isprintable():
        raise BadRequest("This is a proxy: it takes CONNECT host:port and http://host/path.")
    try:
        parts = urlsplit(target)
    except ValueError:
        raise BadRequest("The address cannot be read.") from None
    if "@" in parts.netloc or "\\" in target:
        raise BadRequest("The address holds a name and a password, or a backslash.")
    where = read_target(parts.netloc, 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    named = [value for name, value in headers if name.lower() == "connection"]
    hop = HOP | {word.strip().lower() for value in named for word in value.split(",")}
    hop -= {"content-length", "transfer-encoding"}
    kept = [(name, value) for name, value in headers if name.lower() not in hop]
    told = [f"{method} {path} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
    text = "\r\n".join([*told, *(f"{name}: {value}" for name, value in kept), "", ""])
    return Request(where, text.encode("latin-1"), _length(headers))


def _headers(lines: list[str]) -> list[tuple[str, str]]:
    if len(lines) > HEADERS:
        raise BadRequest(f"A request has at most {HEADERS} headers.")
    found = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise BadRequest("A header of the request cannot be read.")
        found.append((name, value.strip(" \t")))
    return found


def _length(headers: list[tuple[str, str]]) -> int | None:
    lengths = [value for name, value in headers if name.lower() == "content-length"]
    codings = [value for name, value in headers if name.lower() == "transfer-encoding"]
    if codings:
        if lengths or [value.lower() for value in codings] != ["chunked"]:
            raise BadRequest("The request says in two ways where its body ends, or in one that is not known.")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit() and len(lengths[0]) < 16):
        raise BadRequest("The request says in two ways where its body ends, or in one that is not known.")
    return int(lengths[0])


def read_target(text: str, port: int | None) -> Target:
    """Read `host:port`, where `port` is what it is without one. Raises BadRequest."""
    host, colon, number = text.rpartition(":")
    if not colon or "]" in number:
        host, number = text, ""
    if not number and port is None:
        raise BadRequest("A port is missing: host:port.")
    if number and not (
        number.isascii() and number.isdigit() and len(number) <= 5 and 0 < int(number) < 65536
    ):
        raise BadRequest("The port is no number from 1 to 65535.")
    return Target(_host(host), int(number) if number else port or 0)


def _host(text: str) -> str:
    """Read a name or an address. Of an address only the usual way to write it is known."""
    if text.startswith("[") and text.endswith("]"):
        try:
            found = ipaddress.IPv6Address(text[1:-1])
        except ValueError:
            raise BadRequest("The address in brackets is none.") from None
        if found.scope_id is not None:
            raise BadRequest("An address with a zone is only of one machine.")
        return str(found)
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if _NUMERIC.fullmatch(
        labels[-1]
    ):  # then it is meant as an address, in one of the ways that C libraries read
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError:
            raise BadRequest(
                "An address has four numbers from 0 to 255, without zeros before them."
            ) from None
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise BadRequest("The host's name cannot be read.")
    return name
