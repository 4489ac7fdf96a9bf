"""`atelier documents …`: what an operator does with what the log keeps. Looking works beside a running server; what
writes needs the log to itself, unless it is in Redis."""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

from atelier import documents, times
from atelier.db import open_database
from atelier.errors import AtelierError, Invalid, NotFound
from atelier.history import disown
from atelier.log import Edit, Entry, Log, Reader, Stored, open_log, open_reader
from atelier.settings import Settings

_FORMAT = "atelier.document"
_PAGE = 5_000
_RECOVERY = "recovery"  # the author of what `recover` and `import` append without one


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Describe the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, words: str, *, document: bool = True) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=words, description=words)
        made.add_argument("--data", type=Path, help="folder of databases and files (default .data)")
        if document:
            made.add_argument("document", help="SESSION:DOCUMENT, as `list` shows it")
        return made

    listing = verb("list", "list documents with what is kept of them", document=False)
    listing.add_argument("prefix", nargs="?", default="", help="only those whose name begins so")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    verb("inspect", "say what a document holds, and whether all of it can be read")
    export = verb("export", "write a document to a file")
    export.add_argument("file", help="where to; - is the standard output")
    export.add_argument(
        "--as",
        dest="form",
        choices=("log", "update", "text"),
        default="log",
        help="log: every edit with author and time, a line of JSON each; update: one Yjs update; text: the text",
    )
    importing = verb("import", "append what `export` wrote, or one Yjs update, to a document")
    importing.add_argument("file", help="where from; - is the standard input")
    importing.add_argument("--author", default=_RECOVERY, help="user id for a bare Yjs update")
    compacting = verb("compact", "make a verified snapshot now", document=False)
    compacting.add_argument("document", nargs="?", help="SESSION:DOCUMENT; all without it")
    verb("recover", "make a new snapshot from everything that can still be read; the history stays as it is")
    disown = verb("disown", "take a person's name off every edit in every document", document=False)
    disown.add_argument("user", help="the person's user id")
    forget = verb("forget", "remove everything of a document, for good")
    forget.add_argument("--yes", action="store_true", help="do not ask")


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Do what the command line asks for; returns the exit status."""
    reading: dict[str, Callable[[Reader, argparse.Namespace], Awaitable[int]]] = {
        "list": _list,
        "inspect": _inspect,
        "export": _export,
    }
    writing: dict[str, Callable[[Log, argparse.Namespace], Awaitable[int]]] = {
        "import": _import,
        "compact": _compact,
        "recover": _recover,
        "forget": _forget,
    }

    async def work() -> int:
        if options.verb in reading:
            async with open_reader(settings.log_url) as reader:
                return await reading[options.verb](reader, options)
        async with open_log(settings.log_url) as log:
            if options.verb == "disown":
                async with open_database(settings.db_url) as db:
                    edits = await disown(db, log, options.user)
                print(f"{options.user}: {edits:,} edits are nobody's now")
                return 0
            return await writing[options.verb](log, options)

    try:
        return asyncio.run(work())
    except (AtelierError, RuntimeError, OSError) as error:
        step = getattr(error, "next_step", "")
        print(f"atelier: {error} {step}".rstrip(), file=sys.stderr)
        return 1
    finally:
        documents.end_workers()


async def _list(log: Reader, options: argparse.Namespace) -> int:
    found = await log.survey(options.prefix)
    if options.json:
        for kept in found:
            print(json.dumps(asdict(kept)))
        return 0
    print(f"{'document':<48} {'edits':>9} {'bytes':>12} {'snapshot':>10} {'position':>10}")
    for kept in found:
        print(
            f"{kept.document:<48} {kept.edits:>9,} {kept.bytes:>12,} {kept.snapshot_position:>10} {kept.position:>10}"
        )
    return 0


async def _inspect(log: Reader, options: argparse.Namespace) -> int:
    stored = await _stored(log, options.document)
    health = await asyncio.to_thread(documents.examine, stored)
    edits, authors = 0, Counter[str]()
    first = last = 0
    history = ""
    try:
        async for entry in _entries(log, options.document):
            edits += 1
            authors[entry.edit.author] += 1
            first = first or entry.edit.at
            last = entry.edit.at
    except Exception as error:  # whatever a damaged row raises is what there is to say
        history = f"cannot be read after {edits:,} edits: {error}"
    print(f"document   {options.document}")
    print(f"position   {stored.position}")
    print(f"snapshot   up to {stored.snapshot.position}, {len(stored.snapshot.segments)} parts")
    print(f"tail       {len(stored.tail)} edits")
    print(f"bytes      {documents.size_of(stored):,}")
    print(f"text       {health.characters:,} characters")
    print(f"clients    {health.clients:,}")
    print(f"waiting    {'updates that wait for one that is missing' if health.waiting else 'nothing'}")
    print(f"history    {history or f'{edits:,} edits, {_moment(first)} to {_moment(last)}'}")
    for author, count in authors.most_common(20):
        print(f"author     {author or '(nobody)'}: {count:,} edits")
    for damage in health.damages:
        print(f"DAMAGED    {damage}")
    if not health.damages and not history:
        print("healthy    everything can be read")
    return 1 if health.damages or history else 0


def _moment(at: int) -> str:
    return datetime.fromtimestamp(at / times.SECOND, UTC).isoformat(" ", "seconds") if at else "never"


async def _export(log: Reader, options: argparse.Namespace) -> int:
    stored = await _stored(log, options.document)
    with _opened(options.file, "wb") as file:
        if options.form == "log":
            head = {"format": _FORMAT, "version": 1, "document": options.document}
            file.write(json.dumps(head).encode() + b"\n")
            async for entry in _entries(log, options.document):
                file.write(json.dumps(_line(entry)).encode() + b"\n")
        else:
            whole = await asyncio.to_thread(documents.merged, stored)
            file.write(whole if options.form == "update" else documents.text_in(whole).encode())
    return 0


def _line(entry: Entry) -> dict[str, Any]:
    edit = entry.edit
    return {
        "position": entry.position,
        "author": edit.author,
        "at": edit.at,
        "update": base64.b64encode(edit.update).decode(),
    }


async def _import(log: Log, options: argparse.Namespace) -> int:
    with _opened(options.file, "rb") as file:
        content = file.read()
    edits = (
        _edits(content) if content.startswith(b'{"format"') else [Edit(content, options.author, times.now())]
    )
    # Nothing is written unless all of it can be.
    for number, edit in enumerate(edits, 2):
        if not documents.is_valid(edit.update):
            raise Invalid("poison_update", f"Line {number} of the file is no Yjs update.")
    for at in range(0, len(edits), _PAGE):
        positions = await log.append(options.document, edits[at : at + _PAGE])
        await log.sync(options.document, positions[-1])
    print(f"{len(edits):,} edits appended to {options.document}")
    return 0


def _edits(content: bytes) -> list[Edit]:
    head, *lines = content.splitlines()
    try:
        about = json.loads(head)
        if about.get("format") != _FORMAT or about.get("version") != 1:
            raise Invalid("export_unknown", f"This file is not an {_FORMAT} of version 1.")
        found = []
        for line in lines:
            value = json.loads(line)
            found.append(Edit(base64.b64decode(value["update"]), str(value["author"]), int(value["at"])))
        return found
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise Invalid("export_unknown", f"This file cannot be read: {error!r}.") from error


async def _compact(log: Log, options: argparse.Namespace) -> int:
    names = [options.document] if options.document else [kept.document for kept in await log.survey()]
    status = 0
    for name in names:
        try:
            done = await documents.compact_if_long(log, name, most_bytes=2**62, always=True)
            print(f"{name}: {'compacted' if done else 'nothing to do'}")
        except (AtelierError, RuntimeError, ValueError) as error:
            status = 1
            print(f"{name}: {error}", file=sys.stderr)
    return status


async def _recover(log: Log, options: argparse.Namespace) -> int:
    stored = await _stored(log, options.document)
    updates = [segment.update for segment in stored.snapshot.segments]
    updates += [entry.edit.update for entry in stored.tail]
    try:
        async for entry in _entries(log, options.document):
            updates.append(entry.edit.update)
    except Exception as error:
        print(f"the history cannot be read to its end: {error}", file=sys.stderr)
    snapshot, left_out = await asyncio.to_thread(documents.rebuilt, updates)
    # The snapshot needs a position of its own, behind everything that it replaces.
    nothing = Edit(documents.EMPTY_UPDATE, _RECOVERY, times.now())
    (position,) = await log.append(options.document, [nothing])
    await log.sync(options.document, position)
    await log.compact(options.document, snapshot.at(position), keep=snapshot.at(position))
    print(f"{options.document}: {snapshot.characters:,} characters; {left_out:,} updates could not be read")
    return 0


async def _forget(log: Log, options: argparse.Namespace) -> int:
    await _stored(log, options.document)
    if not options.yes:
        answer = await asyncio.to_thread(
            input, f"Remove everything of {options.document}, history too? Type its name: "
        )
        if answer.strip() != options.document:
            print("Nothing was removed.")
            return 1
    await log.forget(options.document)
    print(f"{options.document} is gone")
    return 0


async def _stored(log: Reader, document: str) -> Stored:
    stored = await log.read(document)
    if not stored.position:
        raise NotFound(
            "document_unknown", f"The log holds no {document!r}.", next_step="See: atelier documents list"
        )
    return stored


async def _entries(log: Reader, document: str) -> AsyncIterator[Entry]:
    after = 0
    while page := await log.history(document, after, _PAGE):
        for entry in page:
            yield entry
        after = page[-1].position


@contextmanager
def _opened(name: str, mode: Literal["rb", "wb"]) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdout.buffer if mode == "wb" else sys.stdin.buffer
        return
    with open(name, mode) as file:
        yield file
