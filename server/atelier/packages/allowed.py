"""The list of packages that admins keep. Without it any package of the index may be installed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from sqlalchemy.ext.asyncio import AsyncConnection

from atelier.auth import queries as people
from atelier.errors import Invalid
from atelier.packages.manifests import MANIFESTS, NODE_NAME, NODE_RANGE, Wanted

_SWITCH = "packages"
_MOST = 5000
_SCOPE = re.compile(r"@[a-z0-9~-][a-z0-9._~-]*/\*", re.ASCII)
_ASK = "Ask an admin of this server to allow it (Admin page, Packages), or take it out of the file."


@dataclass(frozen=True, slots=True)
class Entry:
    """One package that is allowed, perhaps only some versions of it; for npm also a whole scope, `@scope/*`."""

    name: str
    versions: str = ""

    def text(self, tool: str) -> str:
        """Return it as an admin writes it."""
        return f"{self.name}{'@' if tool == 'node' and self.versions else ''}{self.versions}"


@dataclass(frozen=True, slots=True)
class AllowList:
    """What may be installed."""

    listed: bool = False
    """False: whatever the index has; the entries wait."""
    python: tuple[Entry, ...] = ()
    node: tuple[Entry, ...] = ()

    def restricted(self, wanted: Sequence[Wanted]) -> list[Wanted]:
        """Return what is wanted with the versions that are allowed.

        Raises:
            Invalid: `package_not_allowed`, with its `file`, `line` and `package`.
        """
        if not self.listed:
            return list(wanted)
        entries = {tool: {entry.name: entry for entry in getattr(self, tool)} for tool in MANIFESTS}
        return [_restricted(entries[one.tool], one) for one in wanted]


def _restricted(entries: dict[str, Entry], one: Wanted) -> Wanted:
    entry = entries.get(one.name)
    if entry is None and one.tool == "node" and "/" in one.name:
        entry = entries.get(f"{one.name.partition('/')[0]}/*")
    if entry is None:
        raise _refused(one, f"{one.name} is not on the list of packages that may be installed here")
    if not entry.versions:
        return one
    if one.tool == "python":
        versions = str(SpecifierSet(one.versions) & SpecifierSet(entry.versions))
    elif one.versions in ("", "*", entry.versions):
        versions = entry.versions
    elif re.search(r"[a-z]{2}", one.versions) and not re.match(r"[\^~<>=v]*\d", one.versions):
        raise _refused(
            one, f"{one.name} may be installed only at {entry.versions}, and `{one.versions}` is a tag"
        )
    else:
        versions = " || ".join(
            f"{ours.strip()} {theirs.strip()}"
            for ours in one.versions.split("||")
            for theirs in entry.versions.split("||")
        )
    return Wanted(one.tool, one.name, versions, one.line, one.rest)


def _refused(one: Wanted, why: str) -> Invalid:
    file = MANIFESTS[one.tool]
    where = f"{file}, line {one.line}" if one.line else file
    return Invalid(
        "package_not_allowed", f"{where}: {why}.", next_step=_ASK, file=file, line=one.line, package=one.name
    )


def read_entries(tool: str, lines: Sequence[str]) -> tuple[Entry, ...]:
    """Return the entries that lines describe; empty lines and comments are left out.

    Raises:
        Invalid: `allow_list_invalid`.
    """
    found: dict[str, Entry] = {}
    for number, text in enumerate(lines, 1):
        if line := re.sub(r"(^|\s)#.*", "", text).strip():
            entry = _python_entry(number, line) if tool == "python" else _node_entry(number, line)
            found[entry.name] = entry
    if len(found) > _MOST:
        raise _wrong(tool, 0, f"it has more than {_MOST} packages")
    return tuple(sorted(found.values(), key=lambda entry: entry.name))


def _python_entry(number: int, line: str) -> Entry:
    try:
        entry = Requirement(line)
    except InvalidRequirement:
        raise _wrong("python", number, f"`{line[:80]}` is not a package with versions") from None
    if entry.url or entry.extras or entry.marker or len(line) > 200:
        raise _wrong("python", number, f"`{line[:80]}` has more than a name and versions")
    return Entry(canonicalize_name(entry.name), str(entry.specifier))


def _node_entry(number: int, line: str) -> Entry:
    name, at, versions = line.rpartition("@")
    if not at or not name:
        name, versions = line, ""
    versions = versions.strip()
    if not (
        NODE_NAME.fullmatch(name) or (_SCOPE.fullmatch(name) and not versions)
    ) or not NODE_RANGE.fullmatch(versions):
        raise _wrong("node", number, f"`{line[:80]}` is not a package with a range of versions")
    return Entry(name, versions)


def _wrong(tool: str, line: int, why: str) -> Invalid:
    where = f"The list for {'Python' if tool == 'python' else 'npm'}{f', line {line}' if line else ''}"
    example = "name, or name>=2,<3" if tool == "python" else "name, name@^2.0.0, or @scope/*"
    return Invalid("allow_list_invalid", f"{where}: {why}.", next_step=f"Write one on each line: {example}.")


async def allow_list(db: AsyncConnection) -> AllowList:
    """Return the list as it is now."""
    kept = await people.switch(db, _SWITCH)
    if kept is None:
        return AllowList()
    return AllowList(
        bool(kept["listed"]),
        *(tuple(Entry(name, versions) for name, versions in kept[tool]) for tool in MANIFESTS),
    )


async def set_allow_list(db: AsyncConnection, allowed: AllowList) -> None:
    """Keep another list."""
    value = {
        "listed": allowed.listed,
        **{tool: [[entry.name, entry.versions] for entry in getattr(allowed, tool)] for tool in MANIFESTS},
    }
    await people.set_switch(db, _SWITCH, value)
