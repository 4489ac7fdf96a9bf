"""`atelier documents`: what an operator does with the log, also with a document that is damaged."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pycrdt import Doc, Text

from atelier.documents import compact_if_long
from atelier.ids import document_key
from atelier.log import Edit, open_log

KEY = document_key("ses_a", "doc_a")
BIN = Path(sys.executable).parent / "atelier"


def atelier(
    data: Path, *words: str, stdin: bytes = b"", status: int = 0
) -> subprocess.CompletedProcess[bytes]:
    """Run `atelier documents …` as an operator does."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ATELIER_")}
    verb, *rest = words
    done = subprocess.run(
        [BIN, "documents", verb, "--data", data, *rest],
        input=stdin,
        capture_output=True,
        env=environ,
        timeout=60,
    )
    assert done.returncode == status, done.stderr.decode()
    return done


def written(text: str, edits: int) -> Iterator[bytes]:
    """Yield the updates of somebody who types `text` again and again."""
    doc: Doc[Text] = Doc()
    content = doc.get("content", type=Text)
    state = doc.get_state()
    for _ in range(edits):
        content += text
        yield bytes(doc.get_update(state))
        state = doc.get_state()


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """A folder with a log in which one document has a snapshot and a tail, and another is young."""
    async with open_log(f"sqlite:///{tmp_path}/log.db") as log:
        edits = [Edit(update, "usr_a", 1_000 + n) for n, update in enumerate(written("abc ", 450))]
        await log.append(KEY, edits[:420])
        assert await compact_if_long(log, KEY, most_bytes=10**9)
        await log.append(KEY, edits[420:])
        await log.append("ses_b:doc_b", [Edit(next(written("x", 1)), "usr_b", 5)])
    return tmp_path


def damage(data: Path, sql: str) -> None:
    with sqlite3.connect(data / "log.db") as db:
        db.execute(sql)
    db.close()


async def test_documents_are_listed_and_inspected(data: Path) -> None:
    assert b"ses_b:doc_b" in atelier(data, "list").stdout
    found = [json.loads(line) for line in atelier(data, "list", "ses_a", "--json").stdout.splitlines()]
    assert [(kept["document"], kept["edits"]) for kept in found] == [(KEY, 450)]
    said = atelier(data, "inspect", KEY).stdout.decode()
    assert "text       1,800 characters" in said
    assert "usr_a: 450 edits" in said
    assert "healthy" in said


async def test_an_unknown_document_is_said(data: Path) -> None:
    for verb in ("inspect", "recover", "forget"):
        assert b"The log holds no 'ses_x:y'" in atelier(data, verb, "ses_x:y", status=1).stderr
    assert b"there is no log" in atelier(data / "nothing", "list", status=1).stderr


async def test_what_is_exported_can_be_imported_with_authors_and_times(data: Path, tmp_path: Path) -> None:
    exported = atelier(data, "export", KEY, "-").stdout
    other = tmp_path / "other"
    assert b"450 edits appended" in atelier(other, "import", "ses_c:doc_c", "-", stdin=exported).stdout
    again = atelier(other, "export", "ses_c:doc_c", "-").stdout
    before, after = (
        [(e["author"], e["at"], e["update"]) for e in map(json.loads, whole.splitlines()[1:])]
        for whole in (exported, again)
    )
    assert before == after
    assert atelier(other, "export", "ses_c:doc_c", "-", "--as", "text").stdout == b"abc " * 450


async def test_a_bare_update_goes_out_and_in(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "update"
    atelier(data, "export", KEY, str(file), "--as", "update")
    atelier(data, "import", "ses_d:doc_d", str(file), "--author", "usr_z")
    assert atelier(data, "export", "ses_d:doc_d", "-", "--as", "text").stdout == b"abc " * 450
    assert b"usr_z: 1 edits" in atelier(data, "inspect", "ses_d:doc_d").stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello", b"no Yjs update"),
        (b'{"format": "other"}\n', b"not an atelier.document"),
        (b'{"format": "atelier.document", "version": 1}\n{"author": 1}\n', b"cannot be read"),
        (
            b'{"format": "atelier.document", "version": 1}\n{"author": "a", "at": 1, "update": "/////w=="}\n',
            b"Line 2",
        ),
    ],
)
async def test_nothing_of_a_bad_file_is_imported(data: Path, content: bytes, words: bytes) -> None:
    assert words in atelier(data, "import", "ses_e:doc_e", "-", stdin=content, status=1).stderr
    assert b"ses_e" not in atelier(data, "list").stdout


@pytest.mark.parametrize(
    "sql",
    [
        "update segments set data = x'ffffffffff'",
        "update entries set data = x'05ff' where position = (select max(position) from entries where document = 1)",
        "update documents set state = x'07ff'",
    ],
    ids=["snapshot", "tail", "state"],
)
async def test_a_damaged_document_is_told_and_recovered_and_the_others_are_well(data: Path, sql: str) -> None:
    damage(data, sql)
    assert b"DAMAGED" in atelier(data, "inspect", KEY, status=1).stdout
    said = atelier(data, "recover", KEY).stdout.decode()
    characters = 1_796 if "entries" in sql else 1_800
    # Edits after the snapshot stand behind what is in it; those in it are read from the history.
    assert f"{characters:,} characters" in said
    assert b"healthy" in atelier(data, "inspect", KEY).stdout or "entries" in sql
    assert atelier(data, "export", KEY, "-", "--as", "text").stdout == b"abc " * (characters // 4)


async def test_compacting_makes_a_snapshot(data: Path) -> None:
    assert atelier(data, "compact").stdout.count(b": compacted") == 2
    kept = [json.loads(line) for line in atelier(data, "list", "--json").stdout.splitlines()]
    assert all(one["snapshot_position"] == one["position"] for one in kept)


async def test_forgetting_asks_first(data: Path) -> None:
    atelier(data, "forget", KEY, stdin=b"no\n", status=1)
    assert KEY.encode() in atelier(data, "list").stdout
    atelier(data, "forget", KEY, stdin=f"{KEY}\n".encode())
    assert KEY.encode() not in atelier(data, "list").stdout
    assert b"ses_b:doc_b" in atelier(data, "list").stdout


async def test_looking_works_beside_a_server_and_writing_is_refused(data: Path) -> None:
    async with open_log(f"sqlite:///{data}/log.db"):
        assert b"healthy" in atelier(data, "inspect", KEY).stdout
        assert b"already open in another Atelier server" in atelier(data, "recover", KEY, status=1).stderr


def test_a_person_s_name_is_taken_off_everything(data: Path) -> None:
    assert b"usr_a: 450 edits are nobody's now" in atelier(data, "disown", "usr_a").stdout
    lines = atelier(data, "export", KEY, "-").stdout.splitlines()[1:]
    assert {json.loads(line)["author"] for line in lines} == {""}
    assert b'"author": "usr_b"' in atelier(data, "export", "ses_b:doc_b", "-").stdout
