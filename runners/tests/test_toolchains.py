"""Every language of the catalogue that a carrier has here: a program with input, arguments and a second file, an error."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import pytest

from atelier_runner import Backend, Limits, Reason, Spec
from atelier_runner.languages import find_tools, load_languages

from .finished import finished

LIMITS = Limits(wall_seconds=60, cpu_seconds=40)
IN_CI = {"python", "javascript", "typescript", "bash", "c", "cpp", "ruby", "php", "lua", "sql"}
"""Installed for the tests; the others are large, and are tested where they are."""
LANGUAGES = {
    name: language for name, language in load_languages(find_tools()).items() if language.info.version
}


@dataclass(frozen=True, slots=True)
class Case:
    """A program that prints its argument, the line that it is given, and what a second file says; and one that fails."""

    entry: str
    source: str
    broken: str
    says: str
    """A part of what the broken one prints on standard error."""
    files: dict[str, str] = field(default_factory=dict)
    args: bool = True


CASES = {
    "python": Case("main.py", "import sys, other\nprint(sys.argv[1], input(), other.WORD)", "x = = 1", "SyntaxError", {"other.py": "WORD = 'other'"}),
    "javascript": Case(
        "main.mjs",
        "import { WORD } from './other.mjs'; import { createInterface } from 'node:readline';\n"
        "createInterface({input: process.stdin}).once('line', (l) => { console.log(process.argv[2], l, WORD); process.exit(); });",
        "let x = ;", "SyntaxError", {"other.mjs": "export const WORD = 'other';"},
    ),
    "typescript": Case(
        "main.ts",
        "import { readFileSync } from 'node:fs'; import { WORD } from './other.ts';\n"
        "const line: string = readFileSync(0, 'utf8').trim(); console.log(process.argv[2], line, WORD);",
        "let x: number = ;", "SyntaxError", {"other.ts": "export const WORD: string = 'other';"},
    ),
    "bash": Case("main.sh", "read line; . ./other.sh; echo $1 $line $WORD", "if then", "syntax error", {"other.sh": "WORD=other"}),
    "c": Case(
        "main.c",
        '#include <stdio.h>\n#include <math.h>\n#include "other.h"\nint main(int n, char **a) { char l[99]; scanf("%98s", l);'
        ' printf("%s %s %s\\n", a[1], l, sqrt(n) > 0 ? WORD : ""); return 0; }',
        "int main() { return x; }", "main.c:1:21: error", {"other.h": '#define WORD "other"'},
    ),
    "cpp": Case(
        "main.cpp",
        '#include <iostream>\n#include <string>\n#include "other.hpp"\nint main(int, char **a) { std::string l; std::getline(std::cin, l);'
        ' std::cout << a[1] << " " << l << " " << word << std::endl; }',
        "int main() { return x; }", "main.cpp:1:21: error", {"other.hpp": 'const char *word = "other";'},
    ),
    "go": Case(
        "main.go",
        'package main\nimport ("bufio"; "fmt"; "os")\nfunc main() { l, _ := bufio.NewReader(os.Stdin).ReadString(\'\\n\');'
        ' d, _ := os.ReadFile("other.txt"); fmt.Println(os.Args[1], l[:len(l)-1], string(d)) }',
        "package main\nfunc main() { x := }", "syntax error", {"other.txt": "other"},
    ),
    "rust": Case(
        "main.rs",
        'mod other;\nfn main() { let mut l = String::new(); std::io::stdin().read_line(&mut l).unwrap();'
        ' println!("{} {} {}", std::env::args().nth(1).unwrap(), l.trim(), other::WORD); }',
        "fn main() { let x: i32 = \"\"; }", "error[E0308]", {"other.rs": 'pub const WORD: &str = "other";'},
    ),
    "java": Case(
        "Main.java",
        "import java.util.Scanner;\npublic class Main { public static void main(String[] a) {"
        ' System.out.println(a[0] + " " + new Scanner(System.in).nextLine() + " " + Other.WORD); } }',
        "public class Main { int x = ; }", "illegal start of expression", {"Other.java": 'class Other { static String WORD = "other"; }'},
    ),
    "ruby": Case("main.rb", "require_relative 'other'\nputs [ARGV[0], STDIN.gets.strip, WORD].join(' ')", "def (", "syntax error", {"other.rb": "WORD = 'other'"}),
    "php": Case("main.php", "<?php require 'other.php'; echo $argv[1], ' ', trim(fgets(STDIN)), ' ', WORD, \"\\n\";", "<?php $x = ;", "syntax error", {"other.php": "<?php const WORD = 'other';"}),
    "lua": Case("main.lua", "local other = require('other')\nprint(arg[1] .. ' ' .. io.read() .. ' ' .. other)", "x = = 1", "unexpected symbol", {"other.lua": "return 'other'"}),
    "r": Case("main.R", "source('other.R'); cat(commandArgs(TRUE)[1], readLines('stdin', 1), WORD, '\\n')", "x <- (", "unexpected", {"other.R": "WORD <- 'other'"}),
    "sql": Case("main.sql", ".mode list\ncreate table t (w);\n.import --csv other.csv t\nselect 'a', 'line', w from t;", "select * from absent;", "no such table", {"other.csv": "other"}, args=False),
}  # fmt: skip


async def test_every_language_has_a_case_and_those_of_the_tests_are_here() -> None:
    assert CASES.keys() == load_languages({}).keys()
    if os.environ.get("CI") == "true":
        assert IN_CI - LANGUAGES.keys() == set()


pytestmark = pytest.mark.asyncio(loop_scope="module")
NAMES = [pytest.param(name, marks=pytest.mark.language(name)) for name in LANGUAGES]


@pytest.mark.parametrize("name", NAMES)
async def test_a_program_of_two_files_with_an_argument_and_input(backend: Backend, name: str) -> None:
    case = CASES[name]
    files = {case.entry: case.source, **case.files}
    spec = Spec(
        name,
        case.entry,
        {path: text.encode() for path, text in files.items()},
        LIMITS,
        args=("a",) if case.args else (),
        stdin=b"line\n",
    )
    out, err, result = await finished(backend, spec)
    assert (result.reason, result.code) == (Reason.EXITED, 0), err
    assert out.decode().replace("|", " ").split() == ["a", "line", "other"]


@pytest.mark.parametrize("name", NAMES)
async def test_an_error_is_said_and_what_cannot_be_compiled_is_called_so(backend: Backend, name: str) -> None:
    case = CASES[name]
    out, err, result = await finished(
        backend, Spec(name, case.entry, {case.entry: case.broken.encode()}, LIMITS)
    )
    assert out == b""
    assert case.says in err.decode()
    assert result.reason is Reason.EXITED
    assert result.code not in (0, None)
    assert result.detail == ("It could not be compiled." if LANGUAGES[name].build else "")


@pytest.mark.parametrize("name", ["c", "python"])
async def test_a_program_cannot_say_that_it_was_not_compiled(backend: Backend, name: str) -> None:
    source = {
        "c": '#include <unistd.h>\nint main() { return write(4, "B", 1) == -1 ? 7 : 8; }',
        "python": "import os, sys\ntry:\n    os.write(4, b'B')\nexcept OSError:\n    sys.exit(7)",
    }[name]
    entry = CASES[name].entry
    _, _, result = await finished(backend, Spec(name, entry, {entry: source.encode()}, LIMITS))
    assert (result.code, result.detail) == (7, "")
