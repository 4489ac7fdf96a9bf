"""The shown tree: by the vectors that the editor shares, and for any entries whatever."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atelier.errors import Invalid
from atelier.files.paths import checked, problem_of, twin_key
from atelier.files.tree import shown, trash

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "tree.json").read_text())


@pytest.mark.parametrize("case", VECTORS["trees"], ids=lambda case: case["name"])
def test_the_shared_vectors(case: dict[str, Any]) -> None:
    for derive, expected in ((shown, case["tree"]), (trash, case["trash"])):
        assert [(n.id, n.path, n.kind) for n in derive(case["files"])] == [
            (n["id"], n["path"], n["kind"]) for n in expected
        ]


@pytest.mark.parametrize("case", VECTORS["paths"], ids=lambda case: repr(case)[:40])
def test_the_shared_paths(case: dict[str, Any]) -> None:
    found = problem_of(case["path"])
    assert (None if found is None else found[0]) == case["code"]


names = st.sampled_from(
    [
        "a",
        "A",
        "b.py",
        "B.PY",
        "é",
        "e\u0301",
        "..",
        "",
        "a/b",
        "a/B",
        "x" * 300,
        "a\0",
        " a",
        "a\\b",
        "a/b/c.txt",
    ]
)
entry = st.fixed_dictionaries(
    {"path": names | st.text(max_size=8) | st.none() | st.integers()},
    optional={
        "kind": st.sampled_from(["text", "blob", "folder", "strange"]) | st.integers(),
        "created": st.integers(0, 3) | st.floats() | st.text(max_size=2),
        "trashed": st.integers(1, 5),
        "blob": st.text(max_size=3) | st.none(),
    },
)
entries = st.dictionaries(st.text("abc123", min_size=1, max_size=4), entry, max_size=12)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(entries, st.randoms(use_true_random=False))
def test_whatever_is_in_the_map_the_tree_is_distinct_valid_complete_and_independent_of_order(
    files: dict[str, Any], rng: random.Random
) -> None:
    tree = shown(files)
    keys = list(files)
    rng.shuffle(keys)
    assert shown({key: files[key] for key in keys}) == tree
    file_keys = [twin_key(n.path) for n in tree if n.kind != "folder"]
    assert len(set(file_keys)) == len(file_keys)
    assert all(problem_of(n.path) is None or len(n.path.encode()) > 255 for n in tree)
    live = {
        key for key, value in files.items() if value.get("trashed") is None and value.get("kind") != "folder"
    }
    assert live <= {n.id for n in tree}


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("", "path_empty"),
        ("a//b", "path_empty"),
        ("/etc/passwd", "path_absolute"),
        ("../x", "path_traversal"),
        ("a/./b", "path_traversal"),
        ("a\0b", "path_nul"),
        ("a\nb", "path_control"),
        ("a\\b", "path_backslash"),
        (" a", "path_space"),
        ("x" * 256, "path_component_too_long"),
        ("é" * 128, "path_component_too_long"),
        ("/".join(["x" * 200] * 6), "path_too_long"),
    ],
)
def test_path_tricks_are_refused_by_name(path: str, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        checked(path)
    assert refused.value.code == code
