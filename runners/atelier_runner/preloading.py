"""Decides whether a program may begin in an interpreter that has imported something already: only where it cannot tell.

The modules are the catalogue's (`preload` of a language), those of them that this machine has. What decides is the
entry's own import lines. A program that looks at where modules come from, or that sets what they read when they
are imported, gets an interpreter like any other, and so does one whose limits are near what the modules need. One with
a file of a name that the module needs is sent on by the agent, which alone knows those names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from atelier_runner.model import Spec

LEAST_MEMORY_MB = 256
LEAST_PROCESSES = 16
"""What a program may have at least: numpy alone starts a thread for each processor."""
IMPORTS = re.compile(rb"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import\b|import[ \t]+([^#;\r\n]+))", re.MULTILINE)
# With one of these words in any Python file it matters when, and from where, a module is imported.
TELLING = re.compile(
    rb"sys\s*\.\s*(?:path|modules|meta_path|addaudithook)|\b(?:environ|putenv|importlib|pkgutil|runpy|site|settrace|setprofile)\b"
    rb"|\bfrom\s+sys\s+import\b|__import__"
)


def imported(source: bytes) -> set[str]:
    """Return the top-level names of what a program's import lines name."""
    names = set()
    for origin, listed in IMPORTS.findall(source):
        for item in [origin] if origin else listed.split(b","):
            words = item.split()
            if words:
                names.add(words[0].partition(b".")[0].decode(errors="replace"))
    return names


def module_for(spec: Spec, offered: Sequence[str]) -> str:
    """Return which of the modules is to be there already, the last that the entry imports; empty for none."""
    if not offered or not spec.entry or spec.env or spec.terminal is not None:
        return ""
    if spec.limits.memory_mb < LEAST_MEMORY_MB or spec.limits.processes < LEAST_PROCESSES:
        return ""
    names = imported(spec.files[spec.entry])
    chosen = next((name for name in reversed(offered) if name in names), "")
    if chosen and any(TELLING.search(data) for path, data in spec.files.items() if path.endswith(".py")):
        return ""
    return chosen
