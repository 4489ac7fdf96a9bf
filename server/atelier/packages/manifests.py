"""Reads requirements.txt and package.json: names of an index with versions, and nothing else.

A file that is refused is refused with its line. What could fetch from anywhere else, or run something of the session's
(addresses, paths, other files, options), is such a refusal; the sandbox in which packages are installed has none of the
session's files.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from atelier.errors import Invalid

MANIFESTS = {"python": "requirements.txt", "node": "package.json"}
"""Each tool's, at the root of a session."""
_BYTES = 64 * 1024
_MOST = 200
_TEXT = 300
_TABLES = ("dependencies", "devDependencies", "optionalDependencies")
NODE_NAME = re.compile(r"(?:@[a-z0-9~-][a-z0-9._~-]*/)?[A-Za-z0-9~-][A-Za-z0-9._~-]*", re.ASCII)
NODE_RANGE = re.compile(r"[A-Za-z0-9 .*+^~<>=|-]{0,100}", re.ASCII)
_FILE_ENDINGS = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".txt")
_OPTIONS = {
    "-r": "it names another file",
    "--requirement": "it names another file",
    "-c": "it names another file",
    "--constraint": "it names another file",
    "-e": "it installs from a folder or an address",
    "--editable": "it installs from a folder or an address",
}
_INDEX = "where packages come from is for whoever runs this server to say"
_REMOVE = "Change or remove this line; packages are named as `name`, or with versions as `name>=2,<3`."
_REMOVE_NODE = 'Change or remove it; packages are named with a range of versions, as "name": "^2.0.0".'


@dataclass(frozen=True, slots=True)
class Wanted:
    """A package that a manifest asks for."""

    tool: str
    name: str
    """As the index knows it: for Python normalised (PEP 503)."""
    versions: str
    """What the manifest says about versions; may be empty."""
    line: int
    """Where, from 1."""
    rest: tuple[str, str] = ("", "")
    """Python's extras and marker, as they are written."""

    @property
    def text(self) -> str:
        """Return it as the runner is told."""
        if self.tool == "node":
            return f"{self.name}@{self.versions}"
        extras, marker = self.rest
        return f"{self.name}{extras}{self.versions}{f' ; {marker}' if marker else ''}"


def read_manifest(tool: str, content: bytes) -> tuple[Wanted, ...]:
    """Return what a manifest asks for; each package once.

    Raises:
        Invalid: `manifest_invalid`, with its `file` and `line`.
    """
    if len(content) > _BYTES:
        raise _refused(tool, 0, f"it has more than {_BYTES // 1024} KiB", "Keep the list shorter.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _refused(tool, 0, "it is not UTF-8", "Save it as UTF-8.") from None
    found = _python(text) if tool == "python" else _node(text)
    if len(found) > _MOST:
        raise _refused(tool, 0, f"it names more than {_MOST} packages", "Name fewer.")
    return tuple(found)


def _refused(tool: str, line: int, why: str, next_step: str) -> Invalid:
    file = MANIFESTS[tool]
    where = f"{file}, line {line}" if line else file
    return Invalid("manifest_invalid", f"{where}: {why}.", next_step=next_step, file=file, line=line)


# --- requirements.txt -------------------------------------------------------------------------------------------------


def _python(text: str) -> list[Wanted]:
    found = []
    for number, line in _lines(text):
        if line.startswith("-"):
            option = re.split(r"[\s=]", line, maxsplit=1)[0]
            short = option[:2] if not option.startswith("--") else option
            why = _OPTIONS.get(
                short, _INDEX if "index" in option or "find" in option or short in ("-i", "-f") else ""
            )
            raise _refused(
                "python", number, f"`{option[:40]}` cannot be used here: {why or 'it is an option'}", _REMOVE
            )
        if re.search(r"\s--", line):
            raise _refused("python", number, "options of a package, as --hash, cannot be used here", _REMOVE)
        found.append(_requirement(number, line))
    return found


def _lines(text: str) -> list[tuple[int, str]]:
    """Return what is neither comment nor empty, with its line; one that ends in a backslash goes on in the next."""
    found: list[tuple[int, str]] = []
    begun, whole = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        begun = begun or number
        whole += line
        if whole.endswith("\\"):
            whole = whole[:-1]
            continue
        whole = re.sub(r"(^|\s)#.*", "", whole).strip()
        if whole:
            found.append((begun, whole))
        begun, whole = 0, ""
    if whole.strip():
        found.append((begun, whole.strip()))
    return found


def _requirement(number: int, line: str) -> Wanted:
    shown = line[:80]
    if "://" in line or re.match(r"(git|hg|svn|bzr)\+", line):
        raise _refused(
            "python", number, f"`{shown}` is an address; only packages of the index can be installed", _REMOVE
        )
    if (
        line.startswith((".", "/", "~", "\\"))
        or line.lower().endswith(_FILE_ENDINGS)
        or re.match(r"[^\s;<>=!~\[(]*/", line)
    ):
        raise _refused(
            "python", number, f"`{shown}` is a path; only packages of the index can be installed", _REMOVE
        )
    try:
        asked = Requirement(line)
    except InvalidRequirement as error:
        words = str(error).splitlines()[0]
        raise _refused("python", number, f"`{shown}` is not a requirement ({words})", _REMOVE) from None
    if asked.url:
        raise _refused(
            "python", number, f"`{shown}` is an address; only packages of the index can be installed", _REMOVE
        )
    extras = f"[{','.join(sorted(asked.extras))}]" if asked.extras else ""
    marker = "" if asked.marker is None else str(asked.marker)
    wanted = Wanted("python", canonicalize_name(asked.name), str(asked.specifier), number, (extras, marker))
    if len(wanted.text) > _TEXT or not wanted.text.isascii():
        raise _refused(
            "python", number, f"`{shown}` is too long, or has letters that no package has", _REMOVE
        )
    return wanted


# --- package.json -----------------------------------------------------------------------------------------------------


def _node(text: str) -> list[Wanted]:
    if not text.strip():
        return []
    try:
        manifest = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        line = getattr(error, "lineno", 0)
        raise _refused("node", line, "it is not JSON", "Mend it; an editor shows where.") from None
    if not isinstance(manifest, dict):
        raise _refused("node", 0, "it is not a JSON object", "Write an object with `dependencies`.")
    found: dict[str, Wanted] = {}
    for table in _TABLES:
        entries = manifest.get(table) or {}
        if not isinstance(entries, dict):
            raise _refused("node", _line_of(text, table), f"`{table}` is not an object", _REMOVE_NODE)
        for name, versions in entries.items():
            found[name] = _dependency(text, table, name, versions)
    if not found:
        return []
    for key, why in (
        ("workspaces", "a session has no workspaces"),
        ("overrides", "overrides cannot be used here"),
    ):
        if manifest.get(key):
            raise _refused("node", _line_of(text, key), why, f"Remove `{key}`.")
    return list(found.values())


def _dependency(text: str, table: str, name: str, versions: Any) -> Wanted:
    line = _line_of(text, name, after=table)
    if len(name) > 214 or not NODE_NAME.fullmatch(name):
        raise _refused("node", line, f"`{name[:80]}` is not a name of a package", _REMOVE_NODE)
    if not isinstance(versions, str):
        raise _refused("node", line, f"the version of `{name}` is not a text", _REMOVE_NODE)
    versions = versions.strip()
    if re.match(
        r"(git|https?|file|link|workspace|npm|github|gitlab|bitbucket|gist)[:+]", versions
    ) or re.search(r"[/:#]", versions):
        why = f"`{name}` is to come from `{versions[:80]}`; only packages of the registry can be installed, under their own name"
        raise _refused("node", line, why, _REMOVE_NODE)
    if not NODE_RANGE.fullmatch(versions) or len(f"{name}@{versions}") > _TEXT:
        raise _refused(
            "node", line, f"`{versions[:80]}` is not a range of versions of `{name}`", _REMOVE_NODE
        )
    return Wanted("node", name, versions, line)


def _line_of(text: str, key: str, *, after: str = "") -> int:
    """Return the line of a key, for people; 0 where it cannot be told."""
    start = max(0, text.find(json.dumps(after))) if after else 0
    at = text.find(json.dumps(key), start)
    if at < 0:
        at = text.find(json.dumps(key, ensure_ascii=False), start)
    return text.count("\n", 0, at) + 1 if at >= 0 else 0
