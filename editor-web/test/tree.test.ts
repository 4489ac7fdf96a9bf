import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import * as Y from "yjs";

import { entriesOf, fileActions, newFileId } from "../src/model/files";
import { clashKey, PathError, pathFault } from "../src/model/paths";
import { derive, type Entry, readEntry } from "../src/model/tree";
import type { FileNode } from "../src/model/types";
import { seeded } from "./device";

interface Vectors {
  trees: { name: string; files: Record<string, unknown>; tree: unknown[]; trash: unknown[] }[];
  paths: { path: string; code: string | null }[];
}

// The same file holds the server to the same results.
const vectors = JSON.parse(
  readFileSync(new URL("../../server/tests/vectors/tree.json", import.meta.url), "utf8"),
) as Vectors;

function session(author = "usr_a"): { doc: Y.Doc; files: Y.Map<unknown>; actions: ReturnType<typeof fileActions>; texts: Map<string, string> } {
  const doc = new Y.Doc({ gc: false });
  const files = doc.getMap("files") as Y.Map<unknown>;
  const texts = new Map<string, string>();
  let now = 1000;
  const actions = fileActions({
    files,
    newMap: () => new Y.Map<unknown>(),
    author: () => author,
    guard: () => undefined,
    fill: (id, text) => texts.set(id, text),
    now: () => ++now,
  });
  return { doc, files, actions, texts };
}

const paths = (files: Y.Map<unknown>): string[] => derive(entriesOf(files)).tree.map((node) => node.path);

const merge = (a: Y.Doc, b: Y.Doc): void => {
  Y.applyUpdate(a, Y.encodeStateAsUpdate(b));
  Y.applyUpdate(b, Y.encodeStateAsUpdate(a));
};

const entry = (path: string, created: number, kind: Entry["kind"] = "text"): Entry => ({ path, created, kind, author: "" });

describe("the derived tree", () => {
  test("the older of two equal paths keeps it", () => {
    const { tree } = derive(new Map([["b", entry("a.py", 2)], ["a", entry("A.py", 1)], ["c", entry("a (2).py", 3)]]));
    expect(tree.map((node) => [node.id, node.path])).toEqual([["a", "A.py"], ["c", "a (2).py"], ["b", "a (3).py"]]);
  });

  test("a file gives way to a folder of its name, and equal folders merge", () => {
    const { tree } = derive(
      new Map([["a", entry("x", 1)], ["b", entry("x/y", 2)], ["c", entry("f", 3, "folder")], ["d", entry("F", 4, "folder")]]),
    );
    expect(tree.map((node) => node.path)).toEqual(["f", "x (2)", "x/y"]);
  });

  test("a path that nobody may use is shown, not dropped", () => {
    const { tree } = derive(new Map([["doc_abcdefgh", entry("../up", 1)], ["doc_2", entry("", 2)]]));
    expect(tree.map((node) => node.path)).toEqual(["unnamed-doc_2", "unnamed-doc_abcd"]);
  });

  test("entries of any shape are read", () => {
    expect(readEntry(null)).toBeNull();
    expect(readEntry({ path: 5, kind: {}, created: NaN, trashed: "x" })).toEqual({ path: "", kind: "text", created: 0, author: "" });
  });

  test("always has distinct paths and every live entry", () => {
    const names = ["a", "A", "a/b", "a/B", "a (2)", "x/", "b.txt", "B.txt", "e\u0301", "\u00e9", "a/b/c"];
    for (let seed = 1; seed < 300; seed++) {
      const below = seeded(seed);
      const entries = new Map<string, Entry>();
      for (let i = 0; i < 12; i++) {
        entries.set(`f${i}`, entry(names[below(names.length)] as string, below(5), below(4) === 0 ? "folder" : "text"));
      }
      const { tree } = derive(entries);
      expect(new Set(tree.map((node) => clashKey(node.path))).size).toBe(tree.length);
      const texts = [...entries].filter(([, each]) => each.kind === "text");
      expect(tree.filter((node) => node.kind === "text").length).toBe(texts.length);
    }
  });

  test.each(vectors.trees)("equals the server's: $name", ({ files, tree, trash }) => {
    const entries = new Map<string, Entry>();
    for (const [id, value] of Object.entries(files)) entries.set(id, readEntry(value) as Entry);
    const derived = derive(entries);
    expect(derived.tree.map(wire)).toEqual(tree);
    expect(derived.trash.map(wire)).toEqual(trash);
  });
});

/** A node as the vectors write it: what is not known is left out. */
function wire(node: FileNode): Record<string, unknown> {
  const { mediaType, trashed, ...rest } = node;
  return { ...rest, ...(mediaType === undefined ? {} : { media_type: mediaType }), ...(trashed === null ? {} : { trashed }) };
}

describe("file actions", () => {
  test("make, rename, move and remove", () => {
    const { files, actions, texts } = session();
    const node = actions.createText("src/main.py", "print()");
    expect(texts.get(node.id)).toBe("print()");
    actions.createFolder("empty");
    actions.createText("src/lib/util.py");
    actions.move("src", "app");
    expect(paths(files)).toEqual(["app/lib/util.py", "app/main.py", "empty"]);
    actions.move("app/main.py", "start.py");
    const undo = actions.remove("app");
    expect(paths(files)).toEqual(["empty", "start.py"]);
    expect(derive(entriesOf(files)).trash.map((each) => each.path)).toEqual(["app/lib/util.py"]);
    undo();
    expect(paths(files)).toEqual(["app/lib/util.py", "empty", "start.py"]);
    actions.remove("start.py");
    actions.restore(node.id);
    expect(paths(files)).toContain("start.py");
  });

  test("refuse what would clash", () => {
    const { files, actions } = session();
    actions.createText("a/b.py");
    const taken = expect.objectContaining({ code: "path_taken" }) as Error;
    expect(() => actions.createText("A/B.py")).toThrow(taken);
    expect(() => actions.createText("a")).toThrow(taken);
    expect(() => actions.createText("a/b.py/c")).toThrow(taken);
    expect(() => actions.move("a", "a/b")).toThrow(taken);
    expect(() => actions.createText("../x")).toThrow(PathError);
    actions.move("a/b.py", "a/B.py"); // only its case
    expect(paths(files)).toEqual(["a/B.py"]);
  });

  test("two people at once end with one tree, and nothing is lost", () => {
    const [one, two] = [session("usr_a"), session("usr_b")];
    one.actions.createText("dir/a.py");
    merge(one.doc, two.doc);
    one.actions.createText("new.py");
    two.actions.createText("New.py");
    one.actions.move("dir", "left");
    two.actions.move("dir", "right");
    two.actions.createText("right/b.py");
    merge(one.doc, two.doc);
    expect(paths(one.files)).toEqual(paths(two.files));
    expect(paths(one.files)).toHaveLength(4);
  });

  test("ids have the server's shape", () => {
    expect(newFileId()).toMatch(/^doc_[a-z2-7]{20}$/);
  });
});

test.each(vectors.paths)("the path $path is judged as the server does", ({ path, code }) => {
  expect(pathFault(path)).toBe(code);
});
