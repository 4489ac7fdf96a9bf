"""What a session can start from: the folders beside `templates.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from atelier.errors import NotFound

_FOLDER = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Template:
    """A named set of files; `entry` is what Run takes."""

    name: str
    title: str
    description: str
    entry: str | None
    files: dict[str, bytes]


@cache
def templates() -> tuple[Template, ...]:
    """Return all templates in the order in which they are offered."""
    listed = tomllib.loads((_FOLDER / "templates.toml").read_text())["template"]
    return tuple(
        Template(
            name=item["name"],
            title=item["title"],
            description=item["description"],
            entry=item.get("entry"),
            files=_files(_FOLDER / item["name"]),
        )
        for item in listed
    )


def template(name: str) -> Template:
    """Return one template.

    Raises:
        NotFound: `template_not_found`.
    """
    for found in templates():
        if found.name == name:
            return found
    names = ", ".join(t.name for t in templates())
    raise NotFound(
        "template_not_found",
        f"There is no template {name!r}; there are {names}.",
        next_step="Choose one of these.",
    )


def _files(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        return {}
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}
