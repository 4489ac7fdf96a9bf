// The shell's own models: layout, fuzzy search, terminal colours, tracebacks, stored events.
import { describe, expect, it } from "vitest";

import { ansi } from "../src/model/ansi";
import { best, fuzzy } from "../src/model/fuzzy";
import { Layout } from "../src/model/layout";
import { parseEvents } from "../src/model/runs";
import { failureIn, places } from "../src/model/tracebacks";

const storage = (): Pick<Storage, "getItem" | "setItem"> => {
  const kept = new Map<string, string>();
  return { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => void kept.set(key, value) };
};

describe("layout", () => {
  it("opens a file once and brings its neighbour forward when it closes", () => {
    const layout = new Layout(storage(), "k");
    for (const id of ["a", "b", "c", "b"]) layout.open(id);
    expect(layout.panes.value).toEqual([{ tabs: ["a", "b", "c"], active: "b" }]);
    layout.close(0, "b");
    expect(layout.panes.value).toEqual([{ tabs: ["a", "c"], active: "c" }]);
    layout.close(0, "c");
    expect(layout.pane.active).toBe("a");
  });

  it("splits, joins, and drops a pane that is empty", () => {
    const layout = new Layout(storage(), "k");
    layout.open("a");
    layout.split();
    layout.open("b");
    expect(layout.panes.value.map((pane) => pane.tabs)).toEqual([["a"], ["a", "b"]]);
    layout.close(1, "a");
    layout.close(1, "b");
    expect(layout.panes.value).toEqual([{ tabs: ["a"], active: "a" }]);
    layout.split();
    layout.split();
    expect(layout.panes.value).toHaveLength(1);
  });

  it("comes back as it was and forgets files that are gone", () => {
    const kept = storage();
    const before = new Layout(kept, "k");
    for (const id of ["a", "b"]) before.open(id);
    before.showBottom("output");
    const after = new Layout(kept, "k");
    expect(after.panes.value).toEqual(before.panes.value);
    expect(after.bottom.value).toBe("output");
    after.retain((id) => id === "a");
    expect(after.panes.value).toEqual([{ tabs: ["a"], active: "a" }]);
  });

  it.each(["", "{", "null", '{"panes":[]}', '{"panes":[{"tabs":1}]}'])("starts anew when what was kept is %j", (text) => {
    const layout = new Layout({ getItem: () => text, setItem: () => undefined }, "k");
    expect(layout.panes.value).toEqual([{ tabs: [], active: null }]);
  });
});

describe("fuzzy", () => {
  it("finds letters in order and prefers the starts of words", () => {
    expect(fuzzy("xyz", "main.py")).toBeNull();
    expect(best(["domain.txt", "src/main.py", "main.py"], "main", (text) => text, 2)).toEqual(["main.py", "src/main.py"]);
    expect(best(["garden/plants.py", "gpl.txt"], "g p", (text) => text, 9)).toHaveLength(2);
  });
});

describe("ansi", () => {
  it("turns colours into classes, carries them on, and drops every other sequence", () => {
    const first = ansi("a\u001b[31;1mred\u001b]0;title\u0007\u001b[2J");
    expect(first.pieces).toEqual([
      { text: "a", className: "" },
      { text: "red", className: "ansi-red ansi-bold" },
    ]);
    expect(ansi("on\u001b[0moff", first.state).pieces).toEqual([
      { text: "on", className: "ansi-red ansi-bold" },
      { text: "off", className: "" },
    ]);
  });
});

describe("tracebacks", () => {
  const paths = new Set(["main.py", "pkg/mod.py", "src/main.ts", "run.sh"]);

  it("finds the session's own files and nothing else", () => {
    expect(places('  File "/work/pkg/mod.py", line 12, in f', paths)).toMatchObject([{ path: "pkg/mod.py", line: 12 }]);
    expect(places('  File "/usr/lib/python3.11/json/decoder.py", line 1', paths)).toEqual([]);
    expect(places("    at file:///work/src/main.ts:3:15", paths)).toMatchObject([{ path: "src/main.ts", line: 3, column: 14 }]);
    expect(places("run.sh: line 4: nope: command not found", paths)).toMatchObject([{ path: "run.sh", line: 4 }]);
  });

  it("takes the innermost own line of Python's last traceback", () => {
    const text = `Traceback (most recent call last):
  File "/work/main.py", line 3, in <module>
    f()
  File "/work/pkg/mod.py", line 2, in f
    json.loads("{")
  File "/usr/lib/python3.11/json/decoder.py", line 355, in raw_decode
json.decoder.JSONDecodeError: Expecting property name`;
    expect(failureIn(text, paths)).toEqual({
      path: "pkg/mod.py",
      line: 2,
      message: "json.decoder.JSONDecodeError: Expecting property name",
    });
  });

  it("takes Node's first own line and its message", () => {
    const text = `file:///work/src/main.ts:2
throw new TypeError("no");
      ^

TypeError: no
    at file:///work/src/main.ts:2:7`;
    expect(failureIn(text, paths)).toMatchObject({ path: "src/main.ts", line: 2, message: "TypeError: no" });
  });

  it("says nothing of output without an error", () => {
    expect(failureIn("just text\n", paths)).toBeNull();
  });
});

describe("stored events", () => {
  it("become chunks", () => {
    const text = 'id: 1\nevent: started\ndata: {"seq":1}\n\nid: 2\nevent: stdout\ndata: {"seq":2,"data":"a\\n"}\n\n';
    expect(parseEvents(text)).toEqual([{ seq: 2, stream: "stdout", data: "a\n" }]);
  });
});
