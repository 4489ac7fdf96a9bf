"""Builds the images that the Docker carrier runs programs in: one for each language of the catalogue.

    python -m atelier_runner.images build [LANGUAGE…]     all of them when none is named
    python -m atelier_runner.images list [--json]         as JSON it is what a runner over Kubernetes is told

`runners/images/<language>/Dockerfile` installs the toolchain and a Python for the agent. What was built is then asked
for its version, as the local carrier asks this machine, and gets it as a label, so that a runner knows what it has
without starting anything. An image whose Dockerfile and catalogue entry are the same as before is left as it is; `--fresh`
builds it again all the same, with the packages of today (and a newer base, when that was pulled).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from atelier_runner.bubblewrap import ENVIRONMENT
from atelier_runner.docker_engine import DEFAULT_SOCKET, Engine, EngineRefused
from atelier_runner.errors import RunnerError
from atelier_runner.languages import read_catalogue, version_in

Say = Callable[[str], None]
FOLDER = Path(__file__).parents[1] / "images"
LANGUAGE_LABEL = "atelier.language"
VERSION_LABEL = "atelier.version"
TOOL_LABEL = "atelier.tool"
RECIPE_LABEL = "atelier.recipe"


class ImageFailed(RunnerError):
    """An image could not be built, or its toolchain does not say what the catalogue expects."""


def _recipe(language: str, dockerfile: bytes) -> str:
    """Return what identifies the way a language's image is made."""
    entry = json.dumps(read_catalogue()[language], sort_keys=True)
    return hashlib.sha256(dockerfile + entry.encode()).hexdigest()[:16]


def build(
    engine: Engine,
    language: str,
    *,
    network: str | None = None,
    say: Say = lambda _: None,
    folder: Path = FOLDER,
    fresh: bool = False,
) -> str:
    """Build a language's image unless it is there (`fresh`: again); returns its version.

    Raises:
        ImageFailed: the engine could not build it, or the toolchain in it has no version that the catalogue knows.
    """
    dockerfile = _dockerfile(folder / language / "Dockerfile")
    recipe = _recipe(language, dockerfile)
    for _, labels in engine.images(f"{LANGUAGE_LABEL}={language}"):
        if labels.get(RECIPE_LABEL) == recipe and not fresh:
            return labels[VERSION_LABEL]
    entry = read_catalogue()[language]
    said: deque[str] = deque(maxlen=5)

    def hear(line: str) -> None:
        said.append(line)
        say(line)

    try:
        image = engine.build({"Dockerfile": dockerfile}, network=network, say=hear, fresh=fresh)
        tool, version = _probe(engine, image, entry)
        labels = {TOOL_LABEL: tool, VERSION_LABEL: version, RECIPE_LABEL: recipe}
        lines = [f"FROM {image}", *(f"LABEL {name}={json.dumps(value)}" for name, value in labels.items())]
        engine.build({"Dockerfile": "\n".join(lines).encode()}, tag=f"atelier/{language}", say=say)
    except EngineRefused as error:
        last = "\n".join(said)
        raise ImageFailed(f"The image of {language} could not be built: {error}\n{last}") from error
    return version


def _dockerfile(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageFailed(f"{path}: {error.strerror}", hint="Build from Atelier's source folder.") from error


def _probe(engine: Engine, image: str, entry: dict[str, Any]) -> tuple[str, str]:
    """Return where the toolchain is in an image, and its version."""
    path = shlex.quote(ENVIRONMENT["PATH"])
    where = shlex.join(["command", "-v", entry["tool"]])
    command = f'PATH={path}; tool=$({where}) && echo "$tool" && {_asked(entry)}'
    code, printed = engine.output(
        {
            "Image": image, "Cmd": ["/bin/sh", "-c", command], "User": "1000:1000",
            "HostConfig": {"NetworkMode": "none"},
        }
    )  # fmt: skip
    tool, _, said = printed.partition("\n")
    if code or not (version := version_in(entry, said)):
        raise ImageFailed(
            f"{entry['tool']} in the image says no version that the catalogue knows: {printed[-300:]!r}"
        )
    return tool, version


def _asked(entry: dict[str, Any]) -> str:
    return " ".join('"$tool"' if part == "{tool}" else shlex.quote(part) for part in entry["probe"])


def described(engine: Engine) -> dict[str, dict[str, str]]:
    """Return what is in the image of each language, for whoever cannot ask an engine."""
    found: dict[str, dict[str, str]] = {}
    for _, labels in engine.images(LANGUAGE_LABEL):
        if RECIPE_LABEL in labels:
            entry = {"tool": labels[TOOL_LABEL], "version": labels[VERSION_LABEL]}
            found.setdefault(labels[LANGUAGE_LABEL], entry)
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Serve the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m atelier_runner.images", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("verb", choices=("build", "list"))
    parser.add_argument("languages", nargs="*", metavar="LANGUAGE")
    parser.add_argument("--socket", default=DEFAULT_SOCKET, help="the engine's Unix socket")
    parser.add_argument("--fresh", action="store_true", help="build again what is there")
    parser.add_argument("--verbose", action="store_true", help="show what the builds print")
    parser.add_argument("--json", action="store_true", help="list as JSON, for kubernetes://?images=FILE")
    parser.add_argument("--network", help="the network that builds use, for instance host")
    asked = parser.parse_args(words)
    catalogue = read_catalogue()
    if unknown := set(asked.languages) - catalogue.keys():
        parser.error(f"not in the catalogue: {', '.join(sorted(unknown))}")
    try:
        engine = Engine(asked.socket)
        if asked.verb == "list" and asked.json:
            print(json.dumps(described(engine), indent=1, sort_keys=True))
            return 0
        if asked.verb == "list":
            for _, labels in engine.images(LANGUAGE_LABEL):
                if RECIPE_LABEL in labels:
                    print(labels[LANGUAGE_LABEL], labels[VERSION_LABEL])
            return 0
        for language in asked.languages or catalogue:
            print(f"{language} ", end="", flush=True)
            say: Say = print if asked.verbose else lambda _: None
            print(build(engine, language, network=asked.network, say=say, fresh=asked.fresh))
    except RunnerError as error:
        print(f"{error.detail} {error.hint}".strip(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
