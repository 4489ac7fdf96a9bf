"""Search and replace over all text files, with regular expressions that run in linear time whatever they are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import re2

from atelier import documents
from atelier.auth import Action, Caller
from atelier.documents import Span
from atelier.errors import Invalid
from atelier.files.store import allowed, read_tree, turn
from atelier.files.undos import keep
from atelier.ids import document_key
from atelier.services import Services

_MOST_MATCHES = 2_000
_MOST_PER_FILE = 500
_MOST_QUERY = 1_000
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for."""

    q: str
    regex: bool = False
    case: bool = False
    word: bool = False

    def compiled(self) -> re2._Regexp:
        """Return the pattern.

        Raises:
            Invalid: `query_empty`, `query_too_long`, `regex_invalid`.
        """
        if not self.q:
            raise Invalid("query_empty", "There is nothing to look for.", next_step="Type a word.")
        if len(self.q) > _MOST_QUERY:
            raise Invalid(
                "query_too_long", f"A search has at most {_MOST_QUERY} characters.", next_step="Shorten it."
            )
        pattern = self.q if self.regex else re2.escape(self.q)
        if self.word:
            pattern = rf"\b(?:{pattern})\b"
        options = re2.Options()
        options.case_sensitive = self.case
        options.log_errors = False
        try:
            return re2.compile(f"(?m){pattern}", options)
        except re2.error as error:
            text = (
                error.args[0].decode(errors="replace")
                if error.args and isinstance(error.args[0], bytes)
                else str(error)
            )
            raise Invalid(
                "regex_invalid",
                f"This is not a regular expression: {text}.",
                next_step="Correct it, or switch regular expressions off.",
            ) from None


@dataclass(frozen=True, slots=True)
class Match:
    """1-based line, 0-based column and length in UTF-16 units, and the line's text around it."""

    line: int
    column: int
    length: int
    text: str
    text_column: int
    """Where the match begins in `text`, in UTF-16 units."""


@dataclass(frozen=True, slots=True)
class FileMatches:
    path: str
    document_id: str
    matches: list[Match]


async def search(
    services: Services, caller: Caller, session_id: str, query: Query
) -> tuple[list[FileMatches], bool]:
    """Return the matches by file, and whether there are more than are shown."""
    pattern = query.compiled()
    await allowed(services, caller, session_id, Action.READ)
    texts = await _texts(services, session_id)
    return await asyncio.to_thread(_search, pattern, texts)


def _search(pattern: re2._Regexp, texts: Mapping[tuple[str, str], str]) -> tuple[list[FileMatches], bool]:
    found: list[FileMatches] = []
    left = _MOST_MATCHES
    truncated = False
    for (path, document_id), text in texts.items():
        matches: list[Match] = []
        for start, end in spans(pattern, text):
            if len(matches) >= min(_MOST_PER_FILE, left):
                truncated = True
                break
            matches.append(_match(text, start, end))
        if matches:
            found.append(FileMatches(path, document_id, matches))
            left -= len(matches)
    return found, truncated


def spans(pattern: re2._Regexp, text: str) -> list[tuple[int, int]]:
    """Return where the pattern matches, without empty matches, in characters."""
    return [match.span() for match in pattern.finditer(text) if match.end() > match.start()]


def _match(text: str, start: int, end: int) -> Match:
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", start)
    last = len(text) if last < 0 else last
    begin = max(first, start - _SHOWN // 4)
    return Match(
        line=text.count("\n", 0, start) + 1,
        column=_units(text[first:start]),
        length=_units(text[start:end]),
        text=text[begin : min(last, begin + _SHOWN)],
        text_column=_units(text[begin:start]),
    )


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


async def replace(
    services: Services,
    caller: Caller,
    session_id: str,
    query: Query,
    replacement: str,
    paths: Sequence[str] | None,
) -> tuple[str, int, int]:
    """Replace every match; returns the id that undoes it, and how many files and places changed.

    Raises:
        Invalid: as `search`, or `replacement_invalid`.
    """
    pattern = query.compiled()
    await allowed(services, caller, session_id, Action.EDIT)
    if len(replacement) > _MOST_QUERY * 10:
        raise Invalid(
            "replacement_invalid",
            f"A replacement has at most {_MOST_QUERY * 10} characters.",
            next_step="Shorten it.",
        )
    wanted = None if paths is None else set(paths)
    inverses: dict[str, bytes] = {}
    places = 0
    async with turn(session_id):
        for (path, document_id), text in (await _texts(services, session_id)).items():
            if (wanted is not None and path not in wanted) or not spans(pattern, text):
                continue
            counted = [0]

            def spans_of(present: str, counted: list[int] = counted) -> list[Span]:
                found = _replacements(pattern, present, replacement, query.regex)
                counted[0] = len(found)
                return found

            change = await documents.change_text(
                services.log, document_key(session_id, document_id), caller.user_id, spans_of
            )
            if change is not None:
                inverses[document_id] = change.inverse
                places += counted[0]
    return await keep(services, caller, session_id, inverses), len(inverses), places


def _replacements(pattern: re2._Regexp, text: str, replacement: str, regex: bool) -> list[Span]:
    try:
        return [
            (match.start(), match.end(), match.expand(replacement) if regex else replacement)
            for match in pattern.finditer(text)
            if match.end() > match.start()
        ]
    except (re2.error, IndexError) as error:
        raise Invalid(
            "replacement_invalid",
            f"The replacement cannot be used: {error}.",
            next_step=r"Groups are written \1, \2 …",
        ) from None


async def _texts(services: Services, session_id: str) -> dict[tuple[str, str], str]:
    nodes = [node for node in (await read_tree(services, session_id)).nodes if node.kind == "text"]
    return {
        (n.path, n.id): await documents.text_of(services.log, document_key(session_id, n.id)) for n in nodes
    }
