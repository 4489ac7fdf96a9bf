"""The documentation says what the code does: settings, limits, error codes, commands."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import pytest

from atelier import errors
from atelier.limits import Limits
from atelier.settings import Settings

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "server" / "atelier"
DOCS = ROOT / "server" / "docs"
CLASSES = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.AtelierError)
}


def raised_codes() -> set[str]:
    """Return every code that is the first argument of an error class, anywhere in the package."""
    found: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            code = node.args[0]
            if name in CLASSES and isinstance(code, ast.Constant) and isinstance(code.value, str):
                found.add(code.value)
    return found


def path_codes() -> set[str]:
    """Return the codes that `files/paths.py` and the runner's own refusals hand on."""
    codes = set(re.findall(r'return "(path_[a-z_]+)"', (SOURCE / "files" / "paths.py").read_text()))
    for path in (ROOT / "runners" / "atelier_runner").rglob("*.py"):
        codes |= set(re.findall(r'SpecInvalid\(\s*"([a-z_]+)"', path.read_text()))
    return codes


def test_every_error_code_is_documented_and_every_documented_one_exists() -> None:
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", (DOCS / "errors.md").read_text(), re.MULTILINE))
    generic = {"invalid_request", "not_found", "method_not_allowed", "internal"}  # rendered by problems.py
    assert raised_codes() | path_codes() | generic == documented


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Settings) if f.name != "limits"])
def test_every_setting_is_documented(field: str) -> None:
    assert f"`ATELIER_{field.upper()}`" in (DOCS / "operating.md").read_text()


def test_every_limit_is_documented_with_its_default_and_no_other() -> None:
    rows = re.findall(
        r"^\| `ATELIER_LIMIT_(\w+)` \| ([\d,]+) \|", (DOCS / "operating.md").read_text(), re.MULTILINE
    )
    assert dict(rows) == {f.name.upper(): f"{f.default:,}" for f in dataclasses.fields(Limits)}


def test_the_make_targets_that_the_readme_names_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)", (ROOT / "README.md").read_text()))
    assert named <= targets
    assert len(targets) < 10
