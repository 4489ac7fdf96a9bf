"""What a program of a session needs to have installed."""

from __future__ import annotations

from collections.abc import Mapping

from atelier.packages.allowed import allow_list
from atelier.packages.manifests import MANIFESTS, Wanted, read_manifest
from atelier.sandbox import Packages
from atelier.services import Services

_TOOLS = {"python": ("python",), "javascript": ("node",), "typescript": ("node",), "bash": ("python", "node")}
"""By the language of what begins; a shell may start anything."""
_LANGUAGES = {"python": "python", "node": "javascript"}


async def packages_of(services: Services, language: str, files: Mapping[str, bytes]) -> tuple[Packages, ...]:
    """Return what the manifests among a session's files ask for, as far as it is allowed.

    Raises:
        Invalid: `manifest_invalid`, `package_not_allowed`.
    """
    tools = [tool for tool in _TOOLS.get(language, ()) if MANIFESTS[tool] in files]
    wanted: dict[str, tuple[Wanted, ...]] = {}
    for tool in tools:
        if found := read_manifest(tool, files[MANIFESTS[tool]]):
            wanted[tool] = found
    if not wanted:
        return ()
    known = (await services.sandbox.capabilities()).languages
    ready = {found.name for found in known if found.version}
    async with services.db.read() as db:
        allowed = await allow_list(db)
    return tuple(
        Packages(tool, tuple(one.text for one in allowed.restricted(found)))
        for tool, found in wanted.items()
        if _LANGUAGES[tool] in ready
    )
