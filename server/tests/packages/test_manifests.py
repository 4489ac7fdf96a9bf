"""Manifests: what is a package of an index is read, anything else is refused with its line."""

from __future__ import annotations

import json

import pytest

from atelier.errors import Invalid
from atelier.packages import AllowList, read_entries, read_manifest
from atelier_runner import Packages


def texts(tool: str, content: str) -> list[str]:
    return [wanted.text for wanted in read_manifest(tool, content.encode())]


def refusal(tool: str, content: str | bytes) -> Invalid:
    with pytest.raises(Invalid) as caught:
        read_manifest(tool, content.encode() if isinstance(content, str) else content)
    assert caught.value.code == "manifest_invalid"
    assert caught.value.next_step
    return caught.value


def test_requirements_are_read_with_their_lines_and_names_are_normalised() -> None:
    content = (
        "\ufeff# what it needs\n\nNumPy>=2,<3  # arrays\nruamel_yaml [jinja2] ~= 0.18\n"
        "typing.Extensions ; python_version < '3.12'\nrich == \\\n  13.*\n\t\n"
    )
    wanted = read_manifest("python", content.encode())
    assert [one.text for one in wanted] == [
        "numpy<3,>=2",
        "ruamel-yaml[jinja2]~=0.18",
        'typing-extensions ; python_version < "3.12"',
        "rich==13.*",
    ]
    assert [one.line for one in wanted] == [3, 4, 5, 6]
    Packages("python", tuple(one.text for one in wanted)).check()


def test_dependencies_are_read_with_their_lines() -> None:
    content = json.dumps(
        {
            "name": "x",
            "scripts": {"postinstall": "rm -rf /"},
            "dependencies": {"lodash": "^4.17.0", "@types/node": ">=20 <22 || 24.x"},
            "devDependencies": {"JSONStream": "latest", "left-pad": ""},
        },
        indent=1,
    )
    wanted = read_manifest("node", content.encode())
    assert [one.text for one in wanted] == [
        "lodash@^4.17.0",
        "@types/node@>=20 <22 || 24.x",
        "JSONStream@latest",
        "left-pad@",
    ]
    assert [one.line for one in wanted] == [7, 8, 11, 12]
    Packages("node", tuple(one.text for one in wanted)).check()


@pytest.mark.parametrize(
    ("tool", "content"), [("python", ""), ("python", "# nothing\n"), ("node", ""), ("node", '{"type": "module", "workspaces": ["a"]}')]
)  # fmt: skip
def test_a_manifest_that_asks_for_nothing_is_nothing(tool: str, content: str) -> None:
    assert texts(tool, content) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-r other.txt", "another file"),
        ("-rother.txt", "another file"),
        ("--requirement=other.txt", "another file"),
        ("-c limits.txt", "another file"),
        ("-e .", "folder or an address"),
        ("--editable=git+https://x/y", "folder or an address"),
        ("--index-url https://evil.example/simple", "whoever runs this server"),
        ("--extra-index-url=https://evil.example/simple", "whoever runs this server"),
        ("-i https://evil.example/simple", "whoever runs this server"),
        ("-f https://evil.example/", "whoever runs this server"),
        ("--find-links .", "whoever runs this server"),
        ("--pre", "an option"),
        ("--trusted-host evil.example", "an option"),
        ("numpy --hash=sha256:abc", "--hash"),
        ("numpy @ https://evil.example/numpy.whl", "address"),
        ("https://evil.example/numpy.whl", "address"),
        ("git+ssh://git@evil.example/x", "address"),
        ("numpy @ file:///etc/passwd", "address"),
        ("./numpy", "path"),
        ("/tmp/numpy", "path"),
        ("packages/numpy", "path"),
        ("numpy-2.0-py3-none-any.whl", "path"),
        ("numpy.tar.gz", "path"),
        ("numpy>=", "not a requirement"),
        ("num py", "not a requirement"),
        ("${SECRET}", "not a requirement"),
        ("num\u0440y", "not a requirement"),  # Cyrillic
        ("x" * 400, "too long"),
    ],
)
def test_a_line_that_is_no_package_is_refused_by_its_number(line: str, words: str) -> None:
    error = refusal("python", f"rich\n\n{line}\n")
    assert error.detail.startswith("requirements.txt, line 3: ")
    assert words in error.detail
    assert error.extra["line"] == 3


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        ("file:../other", "only packages of the registry"),
        ("git+https://evil.example/x.git", "only packages of the registry"),
        ("https://evil.example/x.tgz", "only packages of the registry"),
        ("someone/repository", "only packages of the registry"),
        ("github:someone/repository", "only packages of the registry"),
        ("workspace:*", "only packages of the registry"),
        ("npm:other@1", "only packages of the registry"),
        ("1.0.0 $(x)", "range"),
        ("1;rm", "range"),
        (5, "not a text"),
    ],
)
def test_a_dependency_from_elsewhere_is_refused_by_its_line(versions: object, words: str) -> None:
    content = json.dumps({"dependencies": {"rich": "1", "odd": versions}}, indent=1)
    error = refusal("node", content)
    assert error.detail.startswith("package.json, line 4: ")
    assert words in error.detail


@pytest.mark.parametrize(
    "name", ["../up", "a b", "", "@scope", "@scope/../x", "--option;", ".hidden", "x" * 300]
)
def test_a_name_that_no_package_has_is_refused(name: str) -> None:
    assert "not a name" in refusal("node", json.dumps({"dependencies": {name: "1"}})).detail


def test_files_that_cannot_be_read_are_refused() -> None:
    assert "UTF-8" in refusal("python", b"\xff\xfe").detail
    assert "64 KiB" in refusal("python", "#" * 70_000).detail
    assert "more than 200" in refusal("python", "\n".join(f"p{n}" for n in range(201))).detail
    assert refusal("node", '{"dependencies": {\n"a": 1,}').extra["line"] == 2
    assert "object" in refusal("node", "[]").detail
    assert "object" in refusal("node", '{"dependencies": ["a"]}').detail
    assert "workspaces" in refusal("node", '{"dependencies": {"a": "1"}, "workspaces": ["x"]}').detail
    assert "not JSON" in refusal("node", "[" * 60_000).detail


def allowed(python: str = "", node: str = "") -> AllowList:
    return AllowList(True, read_entries("python", python.split("\n")), read_entries("node", node.split("\n")))


def test_what_is_not_listed_is_refused_with_name_line_and_who_can_allow_it() -> None:
    keep = allowed("requests\nNumPy")
    keep.restricted(read_manifest("python", b"Requests\nnumpy"))
    for squat in ("reqeusts", "re_quests", "re.quests", "requests2", "python-requests"):
        with pytest.raises(Invalid) as caught:
            keep.restricted(read_manifest("python", f"numpy\n{squat}==1".encode()))
        error = caught.value
        assert (error.code, error.extra["line"]) == ("package_not_allowed", 2)
        assert f"{squat.replace('_', '-').replace('.', '-')} is not on the list" in error.detail
        assert "admin" in error.next_step


def test_scopes_and_versions_of_npm() -> None:
    keep = allowed(node="lodash@^4.17.0\n@types/*\nleft-pad")

    def versions(name: str, asked: str) -> str:
        (one,) = keep.restricted(read_manifest("node", json.dumps({"dependencies": {name: asked}}).encode()))
        return one.versions

    assert versions("@types/node", "22") == "22"
    assert versions("left-pad", "latest") == "latest"
    assert versions("lodash", "*") == "^4.17.0"
    assert versions("lodash", "4.17.21 || ^3") == "4.17.21 ^4.17.0 || ^3 ^4.17.0"
    for name, asked in (("lodash", "latest"), ("@type/node", "1"), ("Left-Pad", "1"), ("@types2/x", "1")):
        with pytest.raises(Invalid, match=r"tag|not on the list"):
            versions(name, asked)


def test_versions_that_are_allowed_are_added_to_those_that_are_asked_for() -> None:
    (one,) = allowed("requests>=2,<3").restricted(
        read_manifest("python", b"requests!=2.1 ; python_version > '3'")
    )
    assert one.text == 'requests!=2.1,<3,>=2 ; python_version > "3"'
    Packages("python", (one.text,)).check()


def test_without_a_list_everything_is_allowed() -> None:
    wanted = read_manifest("python", b"anything")
    assert AllowList(False, read_entries("python", ["requests"])).restricted(wanted) == list(wanted)


@pytest.mark.parametrize(
    ("tool", "line"),
    [("python", "a b"), ("python", "a[x]"), ("python", "a @ http://x"), ("python", "a; os_name == 'x'"), ("node", "a b"), ("node", "@x/*@1"), ("node", "a@file:x")],
)  # fmt: skip
def test_a_list_with_something_else_is_refused_by_its_line(tool: str, line: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_entries(tool, ["# fine", "", line])
    assert caught.value.code == "allow_list_invalid"
    assert "line 3" in caught.value.detail
