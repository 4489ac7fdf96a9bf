import { describe, expect, test } from "vitest";
import * as Y from "yjs";

import { covers, type Deletes, Known, split } from "../src/sync/updates";
import { closeFrame, pingFrame, readFrame, step1Frame, tokenFrame, updateFrame } from "../src/sync/wire";
import { seeded } from "./device";

const bytes = (...parts: (number | string)[]): Uint8Array =>
  new Uint8Array(parts.flatMap((part) => (typeof part === "string" ? [...new TextEncoder().encode(part)] : [part])));

describe("frames", () => {
  test("are written as the Hocuspocus dialect says", () => {
    expect(step1Frame("doc", bytes(0))).toEqual(bytes(3, "doc", 0, 0, 1, 0));
    expect(updateFrame("doc", bytes(0, 0))).toEqual(bytes(3, "doc", 0, 2, 2, 0, 0));
    expect(tokenFrame("doc", "")).toEqual(bytes(3, "doc", 2, 0, 0));
    expect(closeFrame("doc", "x")).toEqual(bytes(3, "doc", 7, 1, "x"));
    expect(pingFrame("")).toEqual(bytes(0, 9));
  });

  test.each([
    [bytes(3, "doc", 0, 1, 2, 0, 0), { kind: "update", update: bytes(0, 0), last: true }],
    [bytes(3, "doc", 0, 2, 2, 0, 0), { kind: "update", update: bytes(0, 0), last: false }],
    [bytes(3, "doc", 4, 1, 2, 0, 0), { kind: "update", update: bytes(0, 0), last: true }],
    [bytes(3, "doc", 0, 0, 1, 0), { kind: "step1", vector: bytes(0) }],
    [bytes(3, "doc", 2, 2, 8, "readonly"), { kind: "authenticated", scope: "readonly" }],
    [bytes(3, "doc", 2, 2, 10, "read-write"), { kind: "authenticated", scope: "read-write" }],
    [bytes(3, "doc", 2, 1, 2, "no"), { kind: "denied", reason: "no" }],
    [bytes(3, "doc", 8, 1), { kind: "stored", ok: true }],
    [bytes(3, "doc", 8, 0), { kind: "stored", ok: false }],
    [bytes(3, "doc", 10), { kind: "pong" }],
    [bytes(3, "doc", 99), { kind: "unknown", type: 99 }],
  ])("are read: %j", (data, message) => {
    expect(readFrame(data)).toEqual({ document: "doc", message });
  });

  test("name their document before a NUL", () => {
    expect(readFrame(bytes(5, "doc\0s", 10)).document).toBe("doc");
  });

  test("that are cut short throw", () => {
    expect(() => readFrame(bytes(3, "doc", 0, 1, 200))).toThrow();
  });
});

describe("updates", () => {
  const written = (seed: number): Y.Doc => {
    const below = seeded(seed);
    const docs = [new Y.Doc({ gc: false }), new Y.Doc({ gc: false })];
    for (let i = 0; i < 120; i++) {
      const [doc, other] = below(2) === 0 ? [docs[0] as Y.Doc, docs[1] as Y.Doc] : [docs[1] as Y.Doc, docs[0] as Y.Doc];
      const text = doc.getText("content");
      if (below(4) === 0 && text.length > 3) text.delete(below(text.length - 2), 2);
      else text.insert(below(text.length + 1), `${i}\u{1F600} `.repeat(1 + below(6)));
      if (below(5) === 0) Y.applyUpdate(other, Y.encodeStateAsUpdate(doc));
    }
    Y.applyUpdate(docs[0] as Y.Doc, Y.encodeStateAsUpdate(docs[1] as Y.Doc));
    return docs[0] as Y.Doc;
  };

  test.each([1, 2, 3, 4, 5, 6])("cut into parts equal the whole (seed %i)", (seed) => {
    const doc = written(seed);
    const whole = Y.encodeStateAsUpdate(doc);
    const parts = split(whole, 300);
    expect(parts.length).toBeGreaterThan(5);
    const again = new Y.Doc({ gc: false });
    for (const part of parts) Y.applyUpdate(again, part);
    expect(again.getText("content").toString()).toBe(doc.getText("content").toString());
    expect(again.store.pendingStructs).toBeNull();
    expect(Y.encodeStateAsUpdate(again)).toEqual(whole);
  });

  test("what one side lacks is seen, also when it is only a deletion", () => {
    const mine = written(7);
    const theirs = new Y.Doc({ gc: false });
    Y.applyUpdate(theirs, Y.encodeStateAsUpdate(mine));
    const known = (): Known => {
      const made = new Known();
      made.vector(Y.encodeStateVector(theirs));
      made.update(Y.encodeStateAsUpdate(theirs, Y.encodeStateVector(mine)));
      return made;
    };
    expect(known().missing(mine)).toBeNull();
    mine.getText("content").delete(0, 1);
    const missing = known().missing(mine) as Uint8Array;
    Y.applyUpdate(theirs, missing);
    expect(theirs.getText("content").toString()).toBe(mine.getText("content").toString());
    expect(known().missing(mine)).toBeNull();
    mine.getText("content").insert(0, "x");
    expect(known().missing(mine)).not.toBeNull();
  });

  test("ranges cover each other across their edges", () => {
    const deletes = (...ranges: [number, number][]): Deletes => ({
      clients: new Map([[1, ranges.map(([clock, len]) => ({ clock, len }))]]),
    });
    expect(covers([deletes([0, 3], [3, 2])], deletes([1, 4]))).toBe(true);
    expect(covers([deletes([0, 3]), deletes([2, 4])], deletes([0, 6]))).toBe(true);
    expect(covers([deletes([0, 3], [4, 2])], deletes([1, 4]))).toBe(false);
    expect(covers([], deletes([1, 1]))).toBe(false);
    expect(covers([], { clients: new Map() })).toBe(true);
  });
});
