"""Fetches one commit of a Git repository over https, without its history, as a pack in a file.

Git's first wire protocol, which every server speaks: a GET lists the refs, a POST asks for one commit at depth 1 and
answers with a pack in packets. Everything that comes is counted while it comes, and no redirect of the POST is
followed. Submodules and LFS contents are other repositories and other servers: nobody asks for them.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import IO, NoReturn
from urllib.parse import urljoin

import httpcore2
from dulwich.protocol import extract_capabilities, pkt_line
from httpcore2 import AsyncConnectionPool

from atelier import __version__
from atelier.egress import Egress, Place, place_of
from atelier.errors import AtelierError, Invalid, NotFound, TooLarge, Unavailable
from atelier.limits import Limits

_MOST_REFS_BYTES = 16 * 1024 * 1024
_MOST_REDIRECTS = 3
_WRITE_BYTES = 256 * 1024
_REFS_TYPE = "application/x-git-upload-pack-advertisement"
_PACK_TYPE = "application/x-git-upload-pack-result"
_INFO = "/info/refs?service=git-upload-pack"
_OBJECT_ID = re.compile(rb"[0-9a-f]{40}")


@dataclass(slots=True)
class Progress:
    """What an import is doing: `connecting`, `receiving`, `unpacking` or `writing`; and the bytes that came."""

    phase: str = "connecting"
    received: int = 0


@dataclass(frozen=True, slots=True)
class Ref:
    """A commit's id in hexadecimal digits, and the branch or tag that stands for it."""

    name: str
    commit: bytes
    filtered: bool = False
    """Whether the server was asked to leave out files that are too large."""


@dataclass(slots=True)
class _Refs:
    ids: dict[str, bytes] = field(default_factory=dict)
    capabilities: dict[str, str] = field(default_factory=dict)


def most_objects(limits: Limits) -> int:
    """Return how many objects a pack may hold: files, as many folders, the commit, and a few that nobody needs."""
    return 2 * limits.zip_entries + 100


async def fetch(
    egress: Egress, url: str, wanted: str, pack: IO[bytes], limits: Limits, progress: Progress
) -> Ref:
    """Write the pack of one commit into a file; `wanted` is a branch or a tag, or empty for the default branch.

    Raises:
        Invalid: `url_…`, `host_…`, `port_forbidden`, `repository_unreadable`, `repository_empty`,
            `repository_too_many`.
        NotFound: `repository_not_found`, `branch_not_found`.
        TooLarge: `repository_too_large`.
        Unavailable: `host_unreachable`, `repository_unavailable`.
    """
    place = place_of(url)
    base = replace(place, path=place.path.partition("?")[0].rstrip("/"))
    context = await asyncio.to_thread(httpcore2.default_ssl_context)
    try:
        async with egress.pool(context) as pool:
            base, refs = await _list_refs(egress, pool, base)
            ref = _choose(refs, wanted)
            await _receive(pool, base, refs, ref, pack, limits, progress)
            return ref
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
        raise _unreachable(place, error) from error


async def _list_refs(egress: Egress, pool: AsyncConnectionPool, base: Place) -> tuple[Place, _Refs]:
    for _ in range(_MOST_REDIRECTS + 1):
        egress.check(base)
        at = replace(base, path=base.path + _INFO)
        async with _answer(pool, "GET", at, b"", {}) as response:
            if response.status in (301, 302, 303, 307, 308):
                base = _redirected(at, response)
                continue
            _check_answer(base, response, _REFS_TYPE)
            return base, await _read_refs(_Packets(response, _MOST_REFS_BYTES))
    raise Invalid(
        "repository_unreadable",
        f"The address leads on more than {_MOST_REDIRECTS} times.",
        next_step="Use the address that it leads to.",
    )


def _redirected(at: Place, response: httpcore2.Response) -> Place:
    """Return the repository that a redirect of the list of refs leads to; it is checked like one that was typed."""
    target = place_of(urljoin(at.url, _header(response, b"location")))
    if not target.path.endswith(_INFO):
        raise Invalid(
            "repository_unreadable",
            "The address leads to something that is not a Git repository.",
            next_step="Use the address that Git clones from.",
        )
    return replace(target, path=target.path.removesuffix(_INFO))


async def _read_refs(packets: _Packets) -> _Refs:
    first = await packets.next()
    if first is None or not first.startswith(b"# service=git-upload-pack"):
        _unreadable("its first words are not Git's")
    await packets.next()
    refs = _Refs()
    while (line := await packets.next()) is not None:
        if line.startswith(b"ERR "):
            _unreadable(_words(line[4:]))
        if b"\0" in line:
            line, capabilities = extract_capabilities(line)
            for capability in capabilities:
                name, _, value = capability.decode("utf-8", "replace").partition("=")
                # symref comes once per symbolic ref; the one of HEAD is the only one that is needed.
                if name != "symref" or value.startswith("HEAD:"):
                    refs.capabilities[name] = value
        object_id, _, name_bytes = line.strip().partition(b" ")
        if _OBJECT_ID.fullmatch(object_id):
            refs.ids[name_bytes.decode("utf-8", "replace")] = object_id
    return refs


def _choose(refs: _Refs, wanted: str) -> Ref:
    if not wanted:
        head = refs.capabilities.get("symref", "").removeprefix("HEAD:")
        names = [("HEAD", head.removeprefix("refs/heads/") or "HEAD")]
    else:
        names = [(full, wanted) for full in (f"refs/heads/{wanted}", f"refs/tags/{wanted}", wanted)]
    for full, shown in names:
        found = refs.ids.get(f"{full}^{{}}") or refs.ids.get(full)
        if found is not None:
            return Ref(shown, found, "filter" in refs.capabilities)
    branches = sorted(n.removeprefix("refs/heads/") for n in refs.ids if n.startswith("refs/heads/"))
    if not branches:
        raise Invalid(
            "repository_empty", "This repository has no commits yet.", next_step="Push something to it first."
        )
    listed = ", ".join(branches[:10]) + (", …" if len(branches) > 10 else "")
    raise NotFound(
        "branch_not_found",
        f"There is no branch or tag {wanted or 'HEAD'!r}; there are {listed}.",
        next_step="Choose one of these.",
    )


async def _receive(
    pool: AsyncConnectionPool,
    base: Place,
    refs: _Refs,
    ref: Ref,
    pack: IO[bytes],
    limits: Limits,
    progress: Progress,
) -> None:
    if not {"shallow", "side-band-64k"} <= refs.capabilities.keys():
        _unreadable("the server cannot send a commit without its history")
    asked = ["shallow", "side-band-64k", "ofs-delta", "no-progress", "filter"]
    used = " ".join(name for name in asked if name in refs.capabilities)
    body = pkt_line(b"want %b %b agent=atelier/%b\n" % (ref.commit, used.encode(), __version__.encode()))
    body += pkt_line(b"deepen 1\n")
    if ref.filtered:
        # Files that would be left out for their size are not even sent.
        body += pkt_line(b"filter blob:limit=%d\n" % (limits.blob_bytes + 1))
    body += pkt_line(None) + pkt_line(b"done\n")
    headers = {"Content-Type": "application/x-git-upload-pack-request", "Accept": _PACK_TYPE}
    at = replace(base, path=f"{base.path}/git-upload-pack")
    async with _answer(pool, "POST", at, body, headers) as response:
        _check_answer(base, response, _PACK_TYPE)
        progress.phase = "receiving"
        packets = _Packets(response, limits.session_bytes, progress)
        while (line := await packets.next()) is not None:
            if not line.startswith((b"shallow ", b"unshallow ")):
                _unreadable(_words(line.removeprefix(b"ERR ")))
        await _write(packets, pack, limits)


async def _write(packets: _Packets, pack: IO[bytes], limits: Limits) -> None:
    waiting, counted = bytearray(), False
    while (packet := await packets.next()) is not None:
        match packet[:1]:
            case b"\x01":
                waiting += packet[1:]
            case b"\x02":
                pass  # the other server's own progress
            case b"\x03":
                _unreadable(_words(packet[1:]))
            case _ if packet.rstrip() != b"NAK":  # said first: there is nothing that both sides have
                _unreadable(_words(packet.removeprefix(b"ERR ")))
        if not counted and len(waiting) >= 12:
            counted = True
            _refuse_many(waiting, limits)
        if len(waiting) >= _WRITE_BYTES:
            await asyncio.to_thread(pack.write, bytes(waiting))
            waiting.clear()
    await asyncio.to_thread(pack.write, bytes(waiting))
    await asyncio.to_thread(pack.flush)


def _refuse_many(start: bytearray, limits: Limits) -> None:
    """Refuse by the count in the pack's first bytes, before the rest has come."""
    count = int.from_bytes(start[8:12], "big")
    if start[:4] == b"PACK" and count > most_objects(limits):
        raise Invalid(
            "repository_too_many",
            f"A repository to import has at most {limits.zip_entries:,} files; this one has {count:,} files and folders.",
            next_step="Import a part of it as a zip.",
        )


class _Packets:
    """Reads Git's packets from an answer: four hexadecimal digits of length, then content; None for a flush."""

    def __init__(self, response: httpcore2.Response, most: int, progress: Progress | None = None) -> None:
        self._chunks = response.aiter_stream()
        self._most, self._progress = most, progress
        self._received = 0
        self._buffer = bytearray()

    async def next(self) -> bytes | None:
        """Return the next packet's content."""
        head = await self._exactly(4)
        try:
            size = int(head, 16)
        except ValueError:
            _unreadable("a packet has no length")
        if size == 0:
            return None
        if not 4 <= size <= 65_520:
            _unreadable("a packet has a length that none can have")
        return await self._exactly(size - 4)

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            chunk = await anext(self._chunks, b"")
            if not chunk:
                _unreadable("the answer ends in the middle")
            self._received += len(chunk)
            if self._progress is not None:
                self._progress.received = self._received
            if self._received > self._most:
                raise TooLarge(
                    "repository_too_large",
                    f"A repository to import has at most {self._most:,} bytes; this one has more.",
                    next_step="Import a part of it as a zip.",
                )
            self._buffer += chunk
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


@asynccontextmanager
async def _answer(
    pool: AsyncConnectionPool, method: str, place: Place, body: bytes, headers: dict[str, str]
) -> AsyncIterator[httpcore2.Response]:
    """Send one request; its answer is read as it comes."""
    sent: dict[str | bytes, str | bytes] = {
        "Host": place.name,
        "User-Agent": f"git/2 atelier/{__version__}",
        "Accept-Encoding": "identity",
    }
    sent.update(headers)
    content = body if method == "POST" else None
    async with pool.stream(method, place.url, headers=sent, content=content) as response:
        yield response


def _check_answer(base: Place, response: httpcore2.Response, media_type: str) -> None:
    if response.status in (401, 403, 404, 410):
        # Hosts answer for a private repository and for none in the same way.
        raise NotFound(
            "repository_not_found",
            f"There is no public Git repository at {base.url}.",
            next_step="Check the address; a private repository can be imported as a zip.",
        )
    if response.status == 429 or response.status >= 500:
        raise Unavailable(
            "repository_unavailable",
            f"{base.name} answered {response.status}.",
            next_step="Try again later.",
        )
    if response.status != 200 or _header(response, b"content-type").partition(";")[0].strip() != media_type:
        raise Invalid(
            "repository_unreadable",
            f"{base.url} is not a Git repository.",
            next_step="Use the address that Git clones from.",
        )
    if _header(response, b"content-encoding") not in ("", "identity"):
        _unreadable("the answer is packed in a way that was not asked for")


def _header(response: httpcore2.Response, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), "")


def _unreadable(why: str) -> NoReturn:
    raise Invalid(
        "repository_unreadable",
        f"This repository cannot be read: {why}.",
        next_step="Check the address, or import a zip.",
    )


def _words(text: bytes) -> str:
    """Return what the other server said, short and in one line."""
    return (
        re.sub(r"[^\x20-\x7e]+", " ", text.decode("utf-8", "replace")).strip()[:200] or "no reason was given"
    )


def _unreachable(place: Place, error: BaseException) -> AtelierError:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    why = (
        f"its certificate or its TLS was refused ({cause.reason})"
        if isinstance(cause, ssl.SSLError)
        else "the connection broke"
    )
    return Unavailable(
        "host_unreachable",
        f"{place.name} could not be fetched from: {why}.",
        next_step="Check the address, or try again later.",
    )
