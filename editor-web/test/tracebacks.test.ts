// Places that compilers and interpreters name, in their own words.
import { describe, expect, it } from "vitest";

import { failureIn, missedInternet, places, refusedByProxy } from "../src/model/tracebacks";

const files = new Set(["main.py", "main.c", "lib/util.hpp", "main.cpp", "main.go", "main.rs", "Main.java", "main.rb", "main.php", "main.lua", "main.mjs", "run.sh"]);

describe("places in what was printed", () => {
  it.each([
    ['  File "/work/main.py", line 3, in <module>', "main.py", 3, 0],
    ["main.c:12:21: error: 'x' undeclared (first use in this function)", "main.c", 12, 20],
    ["In file included from lib/util.hpp:7,", "lib/util.hpp", 7, 0],
    ["./main.go:2:20: syntax error: unexpected }", "main.go", 2, 19],
    [" --> main.rs:4:26", "main.rs", 4, 25],
    ["thread 'main' panicked at 'no', main.rs:9:5", "main.rs", 9, 4],
    ["Main.java:1: error: illegal start of expression", "Main.java", 1, 0],
    ["\tat Main.main(Main.java:5)", "Main.java", 5, 0],
    ["main.rb:3:in `f': divided by 0 (ZeroDivisionError)", "main.rb", 3, 0],
    ["PHP Parse error:  syntax error, unexpected token \";\" in /work/main.php on line 1", "main.php", 1, 0],
    ["lua5.4: main.lua:1: unexpected symbol near '='", "main.lua", 1, 0],
    ["file:///work/main.mjs:1", "main.mjs", 1, 0],
    ["run.sh: line 2: nope: command not found", "run.sh", 2, 0],
  ])("%s", (line, path, row, column) => {
    expect(places(line, files)).toEqual([expect.objectContaining({ path, line: row, column })]);
  });

  it("names no file that is not the session's", () => {
    expect(places("/usr/include/stdio.h:3:1: note: here", files)).toEqual([]);
  });
});

describe("the failure of a compiler", () => {
  it("is its first error", () => {
    const stderr = "main.c: In function 'main':\nmain.c:3:5: error: 'x' undeclared\nmain.c:4:5: error: 'y' undeclared\n";
    expect(failureIn(stderr, files)).toEqual({ path: "main.c", line: 3, message: "error: 'x' undeclared" });
  });
});

describe("a program that looked for the internet in vain", () => {
  it.each([
    "urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>",
    "curl: (6) Could not resolve host: example.org",
    "Error: getaddrinfo EAI_AGAIN registry.example",
    "dial tcp: lookup example.org: no such host",
    "java.net.UnknownHostException: example.org",
    "OSError: [Errno 101] Network is unreachable",
  ])("is recognised by %s", (line) => expect(missedInternet(line)).toBe(true));
  it.each(["curl: (56) CONNECT tunnel failed, response 403", "OSError: Tunnel connection failed: 403 Atelier: …"])("was refused: %s", (line) =>
    expect(refusedByProxy(line)).toBe(true));
  it.each(["", "ZeroDivisionError: division by zero", "name 'x' is not defined"])("is not seen in %j", (line) => expect(missedInternet(line)).toBe(false));
});
