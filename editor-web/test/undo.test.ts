import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import * as Y from "yjs";

import { seeded } from "./device";
import { TextUndo, type UndoStorage } from "../src/model/undo";

class Origin {}

class TabStorage implements UndoStorage {
  readonly items = new Map<string, string>();
  full = false;
  getItem(key: string): string | null {
    return this.items.get(key) ?? null;
  }
  setItem(key: string, value: string): void {
    if (this.full) throw new DOMException("full", "QuotaExceededError");
    this.items.set(key, value);
  }
  removeItem(key: string): void {
    this.items.delete(key);
  }
}

let storage: TabStorage;
const origin = new Origin();

beforeEach(() => {
  vi.useFakeTimers();
  storage = new TabStorage();
});
afterEach(() => vi.useRealTimers());

/** A document as a tab has it after (re)loading: built from an update, with a client id of its own. */
function reloaded(from?: Y.Doc): { doc: Y.Doc; text: Y.Text; undo: TextUndo } {
  const doc = new Y.Doc({ gc: false });
  if (from !== undefined) Y.applyUpdate(doc, Y.encodeStateAsUpdate(from));
  const text = doc.getText("content");
  return { doc, text, undo: new TextUndo(text, storage, "undo", [Origin]) };
}

/** One step of one's own, not joined with the step before. */
function step(side: { text: Y.Text; undo: TextUndo }, change: () => void): void {
  side.undo.manager.stopCapturing();
  (side.text.doc as Y.Doc).transact(change, origin);
}

describe("undo over a reload", () => {
  test("takes back own insertions and deletions, and redoes them", () => {
    const before = reloaded();
    step(before, () => before.text.insert(0, "one "));
    step(before, () => before.text.insert(4, "two "));
    step(before, () => before.text.delete(0, 4));
    before.undo.save();

    const { text, undo } = reloaded(before.doc);
    expect(text.toString()).toBe("two ");
    undo.manager.undo();
    expect(text.toString()).toBe("one two ");
    undo.manager.undo();
    expect(text.toString()).toBe("one ");
    undo.manager.undo();
    expect(text.toString()).toBe("");
    undo.manager.redo();
    undo.manager.redo();
    undo.manager.redo();
    expect(text.toString()).toBe("two ");
  });

  test("leaves the edits of others alone", () => {
    const before = reloaded();
    step(before, () => before.text.insert(0, "mine"));
    before.text.insert(2, " theirs ");
    before.undo.save();
    const { text, undo } = reloaded(before.doc);
    undo.manager.undo();
    expect(text.toString()).toBe(" theirs ");
  });

  test("keeps the redo stack", () => {
    const before = reloaded();
    step(before, () => before.text.insert(0, "back"));
    before.undo.manager.undo();
    before.undo.save();
    const { text, undo } = reloaded(before.doc);
    expect(text.toString()).toBe("");
    undo.manager.redo();
    expect(text.toString()).toBe("back");
  });

  test("undoes what was restored by an undo before the reload", () => {
    const before = reloaded();
    step(before, () => before.text.insert(0, "again"));
    step(before, () => before.text.delete(0, 5));
    before.undo.manager.undo(); // the text is a copy now, known to Yjs by a link in memory only
    before.undo.save();
    const { text, undo } = reloaded(before.doc);
    expect(text.toString()).toBe("again");
    undo.manager.undo();
    expect(text.toString()).toBe("");
  });

  test("saves by itself soon after a change", () => {
    const now = reloaded();
    step(now, () => now.text.insert(0, "x"));
    vi.advanceTimersByTime(1500);
    expect(storage.items.has("undo")).toBe(true);
  });

  test("forgets rather than keeps half a history when storage is full", () => {
    const before = reloaded();
    step(before, () => before.text.insert(0, "x"));
    before.undo.save();
    storage.full = true;
    step(before, () => before.text.insert(0, "y"));
    before.undo.save();
    expect(storage.items.size).toBe(0);
  });

  test("ignores what another version wrote", () => {
    storage.items.set("undo", "AAAA");
    const { text, undo } = reloaded();
    expect(undo.manager.undoStack).toEqual([]);
    expect(text.toString()).toBe("");
    expect(storage.items.size).toBe(0);
  });

  for (let seed = 1; seed <= 40; seed++) {
    test(`a reload at any time changes nothing that undo and redo do (seed ${seed})`, () => {
      const below = seeded(seed);
      const stays = reloaded();
      let moves = reloaded();
      const act = (side: typeof stays, kind: number, at: number, length: number, mark: string): void => {
        if (kind < 4) {
          step(side, () => {
            if (kind === 0 && side.text.length > 0) side.text.delete(at, Math.min(length, side.text.length - at));
            else side.text.insert(at, mark);
          });
        } else if (kind < 6) side.undo.manager.undo();
        else if (kind < 7) side.undo.manager.redo();
      };
      for (let i = 0; i < 60; i++) {
        const kind = below(8);
        const at = below(stays.text.length + (kind === 0 ? 0 : 1) || 1);
        const length = 1 + below(5);
        act(stays, kind, at, length, `${i};`);
        act(moves, kind, at, length, `${i};`);
        if (below(6) === 0) {
          moves.undo.save();
          moves = reloaded(moves.doc);
        }
        expect(moves.text.toString(), `seed ${seed}, step ${i}`).toBe(stays.text.toString());
      }
    });
  }
});
