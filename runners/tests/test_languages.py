"""The catalogue and the paths: every entry is complete, a missing toolchain says how to get it."""

from __future__ import annotations

import tomllib

import pytest

from atelier_runner import Spec, SpecInvalid
from atelier_runner.images import FOLDER
from atelier_runner.languages import CATALOGUE, Tool, find_tools, load_languages
from atelier_runner.model import check_path


def test_every_language_of_the_catalogue_is_complete() -> None:
    catalogue = tomllib.loads(CATALOGUE.read_text())
    extensions = [extension for entry in catalogue.values() for extension in entry["extensions"]]
    assert len(extensions) == len(set(extensions))
    for entry in catalogue.values():
        assert {"title", "extensions", "tool", "command", "probe", "version", "hint"} <= set(entry)
        assert sum("{entry}" in part for part in entry.get("build", entry["command"])) == 1


def test_every_language_has_an_image_for_an_ordinary_user_with_the_agent_s_python() -> None:
    assert {path.name for path in FOLDER.iterdir()} == tomllib.loads(CATALOGUE.read_text()).keys()
    for path in FOLDER.iterdir():
        lines = (path / "Dockerfile").read_text().splitlines()
        assert lines[0].startswith("ARG BASE=debian:bookworm")
        assert {f"LABEL atelier.language={path.name}", "USER 1000:1000", "WORKDIR /work"} <= set(lines)
        assert any("python3 &&" in line for line in lines)


def test_what_is_here_has_a_version_and_no_hint() -> None:
    languages = load_languages(find_tools())
    for name in ("python", "bash"):
        assert languages[name].info.version
        assert languages[name].info.hint == ""


def test_a_missing_or_broken_toolchain_has_a_hint_and_no_version() -> None:
    languages = load_languages({"python3": Tool("/bin/false", "/bin/false")})
    for language in languages.values():
        assert language.info.version == ""
        assert language.info.hint


def test_an_entry_that_looks_like_an_option_is_a_path() -> None:
    languages = load_languages(find_tools())
    assert languages["bash"].argv("-c", ("x",))[1:] == ["./-c", "x"]
    assert "./@args.c" in languages["c"].build_argv("@args.c")


@pytest.mark.parametrize("path", ["a", "a b/ä.py", "...", "a/..b", "x" * 255, "/".join(["x" * 100] * 10)])
def test_good_paths(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/..",
        "a/./b",
        "x" * 256,
        "ä" * 128,
        "a\0b",
        "\ud800",
        "/".join(["x" * 100] * 11),
    ],
)
def test_bad_paths(path: str) -> None:
    with pytest.raises(SpecInvalid):
        check_path(path)


@pytest.mark.parametrize(
    "spec",
    [
        Spec("python", "b", {"a": b""}),
        Spec("python", "a", {"a": b""}, args=("x\0",)),
        Spec("python", "a", {"a": b""}, args=("x" * 70_000,)),
        Spec("python", "a", {"a": b""}, env={"": "x"}),
        Spec("python", "a", {"a": b""}, env={"A=B": "x"}),
        Spec("python", "a", {"a": bytes(65 << 20)}),
    ],
)
def test_bad_specs(spec: Spec) -> None:
    with pytest.raises(SpecInvalid):
        spec.check()
