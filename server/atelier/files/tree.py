"""The shown tree, derived from the session's own document: pure, total, and equal wherever it is computed.

The document's map `files` holds one entry per file: path, kind, created, author, and for blobs their content. People
write it at the same time, so anything may be in it; what is shown is always a tree of valid, distinct paths, and
nothing is left out but the trash. The same function in TypeScript is `editor-web/src/model/tree.ts`;
`tests/vectors/tree.json` holds both to one result.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from atelier.files.paths import problem_of, twin_key

KINDS = ("text", "blob", "folder")


@dataclass(frozen=True, slots=True)
class Node:
    """A file or an empty folder as shown. `size` (bytes) and `media_type` are known for blobs."""

    id: str
    path: str
    kind: str
    created: int
    blob: str | None = None
    size: int | None = None
    media_type: str | None = None
    trashed: int | None = None


def shown(entries: Mapping[str, Mapping[str, Any]]) -> list[Node]:
    """Return the tree without its trash, sorted by path.

    The older of two equal paths keeps it; the younger is shown as `name (2)`, at the first number that is free.
    """
    nodes = sorted((n for n in _nodes(entries) if n.trashed is None), key=lambda n: (n.created, n.id))
    taken = {twin_key(parent) for n in nodes for parent in parents(n.path)}
    taken |= {twin_key(n.path) for n in nodes if n.kind == "folder"}
    placed: list[Node] = []
    late: list[Node] = []
    folders: set[str] = set()
    for node in nodes:
        key = twin_key(node.path)
        if node.kind == "folder":
            if key not in folders:  # equal folders merge
                folders.add(key)
                placed.append(node)
        elif key in taken:
            late.append(node)
        else:
            taken.add(key)
            placed.append(node)
    for node in late:
        number = 2
        while twin_key(numbered(node.path, number)) in taken:
            number += 1
        path = numbered(node.path, number)
        taken.add(twin_key(path))
        placed.append(replace(node, path=path))
    return sorted(placed, key=lambda n: n.path)


def trash(entries: Mapping[str, Mapping[str, Any]]) -> list[Node]:
    """Return what is in the trash, latest first."""
    return sorted(
        (n for n in _nodes(entries) if n.trashed is not None), key=lambda n: (-(n.trashed or 0), n.id)
    )


def _nodes(entries: Mapping[str, Mapping[str, Any]]) -> list[Node]:
    nodes = []
    for key, entry in entries.items():
        kind = entry.get("kind")
        raw = entry.get("path")
        path = unicodedata.normalize("NFC", raw) if isinstance(raw, str) else ""
        valid = problem_of(path) is None
        nodes.append(
            Node(
                id=key,
                path=path if valid else f"unnamed-{key[:8]}",
                kind=kind if kind in KINDS else "text",
                created=_whole(entry.get("created")) or 0,
                blob=entry["blob"] if isinstance(entry.get("blob"), str) else None,
                size=_whole(entry.get("size")),
                media_type=entry["media_type"] if isinstance(entry.get("media_type"), str) else None,
                trashed=_whole(entry.get("trashed")),
            )
        )
    return nodes


def _whole(value: Any) -> int | None:
    return (
        int(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        else None
    )


def parents(path: str) -> list[str]:
    """Return the folders that a path is in, outermost first."""
    parts = path.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]


def numbered(path: str, number: int) -> str:
    """Return the path with ` (number)` before its extension; a leading dot begins a name, not an extension."""
    folder, slash, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    return f"{folder}{slash}{stem} ({number}){dot}{extension}"
