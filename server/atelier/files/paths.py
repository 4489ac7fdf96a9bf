"""Which paths a session's files may have: one pure check with a code for each reason to refuse."""

from __future__ import annotations

import unicodedata

from atelier.errors import Invalid

MOST_BYTES = 1024
MOST_COMPONENT_BYTES = 255


def problem_of(path: str) -> tuple[str, str] | None:
    """Return the code and the words for what is wrong with a path, or None for a good one."""
    if not path:
        return "path_empty", "A file needs a name."
    if "\0" in path:
        return "path_nul", "A path may not hold a NUL character."
    if any(ord(c) < 0x20 or ord(c) == 0x7F or 0xD800 <= ord(c) <= 0xDFFF for c in path):
        return "path_control", "A path may not hold control characters."
    if "\\" in path:
        return "path_backslash", "A path may not hold a backslash; folders are separated by /."
    if path.startswith("/"):
        return "path_absolute", "A path starts inside the session, not with /."
    if len(path.encode()) > MOST_BYTES:
        return "path_too_long", f"A path has at most {MOST_BYTES} bytes; this has {len(path.encode())}."
    for part in path.split("/"):
        if not part:
            return "path_empty", "Every part of a path needs a name."
        if part in (".", ".."):
            return "path_traversal", f"A path may not hold {part!r}."
        if part.startswith(" ") or part.endswith(" "):
            return "path_space", "A name may not begin or end with a space."
        if len(part.encode()) > MOST_COMPONENT_BYTES:
            return (
                "path_component_too_long",
                f"A name has at most {MOST_COMPONENT_BYTES} bytes; this has {len(part.encode())}.",
            )
    return None


def checked(path: str) -> str:
    """Return the path in its normal form (NFC).

    Raises:
        Invalid: the code of what is wrong.
    """
    found = problem_of(path)
    if found is None:
        path = unicodedata.normalize("NFC", path)
        found = problem_of(path)
    if found is not None:
        raise Invalid(found[0], found[1], next_step="Choose another name.", path=path[:200])
    return path


def twin_key(path: str) -> str:
    """Return what two paths share that a case-blind or Unicode-blind file system takes for one."""
    return unicodedata.normalize("NFC", path).lower()
