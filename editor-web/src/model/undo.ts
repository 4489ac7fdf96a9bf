// One's own undo history of a text, which survives a reload of the tab.
//
// Documents keep what was deleted, so a stack item needs no content: only which ranges were inserted and deleted. These
// go to the tab's session storage, with the links from undone items to their redone copies, which Yjs keeps in memory
// only and without which "undo" of something once redone would do nothing.
import { fromBase64, toBase64 } from "lib0/buffer";
import * as decoding from "lib0/decoding";
import * as encoding from "lib0/encoding";
import * as Y from "yjs";

import { type Deletes, writeDeletes } from "../sync/updates";

type StackItem = Y.UndoManager["undoStack"][number];

const VERSION = 1;
const MOST_STEPS = 200; // of each stack; the oldest go first
const MOST_CHARACTERS = 400_000;
const SAVE_AFTER = 1000; // ms

export interface UndoStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

export class TextUndo {
  readonly manager: Y.UndoManager;
  private saving: ReturnType<typeof setTimeout> | undefined;

  /** `origins` are the classes of transaction origins that mark one's own edits. The text must be complete. */
  constructor(
    private readonly text: Y.Text,
    private readonly storage: UndoStorage | null,
    private readonly key: string,
    origins: readonly unknown[],
  ) {
    this.manager = new Y.UndoManager(text, { captureTimeout: 500, trackedOrigins: new Set(origins) });
    this.restore();
    for (const event of ["stack-item-added", "stack-item-updated", "stack-item-popped"] as const) {
      this.manager.on(event, this.saveSoon);
    }
  }

  /** Writes the stacks now: the page may be going away. */
  save(): void {
    clearTimeout(this.saving);
    this.saving = undefined;
    if (this.storage === null) return;
    try {
      let steps = MOST_STEPS;
      let value = encodeStacks(this.text.doc as Y.Doc, this.manager, steps);
      while (value.length > MOST_CHARACTERS && steps > 1) {
        steps = Math.floor(steps / 2);
        value = encodeStacks(this.text.doc as Y.Doc, this.manager, steps);
      }
      this.storage.setItem(this.key, value);
    } catch {
      this.storage.removeItem(this.key); // storage is full: an old history would not fit the text any more
    }
  }

  destroy(): void {
    clearTimeout(this.saving);
    this.manager.destroy();
  }

  private readonly saveSoon = (): void => {
    this.saving ??= setTimeout(() => this.save(), SAVE_AFTER);
  };

  private restore(): void {
    const value = this.storage?.getItem(this.key) ?? null;
    if (value === null) return;
    try {
      decodeStacks(this.text.doc as Y.Doc, this.manager, value);
    } catch {
      this.storage?.removeItem(this.key); // written by another version
    }
  }
}

function encodeStacks(doc: Y.Doc, manager: Y.UndoManager, steps: number): string {
  const out = encoding.createEncoder();
  encoding.writeVarUint(out, VERSION);
  for (const stack of [manager.undoStack, manager.redoStack]) {
    const kept = stack.slice(-steps);
    encoding.writeVarUint(out, kept.length);
    for (const item of kept) {
      writeDeletes(out, item.insertions as Deletes);
      writeDeletes(out, item.deletions as Deletes);
    }
  }
  const links = redoneLinks(doc);
  encoding.writeVarUint(out, links.length);
  for (const link of links) for (const number of link) encoding.writeVarUint(out, number);
  return toBase64(encoding.toUint8Array(out));
}

function decodeStacks(doc: Y.Doc, manager: Y.UndoManager, value: string): void {
  const decoder = decoding.createDecoder(fromBase64(value));
  if (decoding.readVarUint(decoder) !== VERSION) throw new Error("another version");
  const stacks = [readStack(decoder), readStack(decoder)] as const;
  const count = decoding.readVarUint(decoder);
  doc.transact((transaction) => {
    for (let i = 0; i < count; i++) {
      const [client, clock, length, toClient, toClock] = Array.from({ length: 5 }, () => decoding.readVarUint(decoder)) as [
        number,
        number,
        number,
        number,
        number,
      ];
      link(transaction, client, clock, length, toClient, toClock);
    }
  });
  manager.undoStack.push(...stacks[0]);
  manager.redoStack.push(...stacks[1]);
}

function readStack(decoder: decoding.Decoder): StackItem[] {
  const length = decoding.readVarUint(decoder);
  return Array.from({ length }, () => {
    const insertions = readDeletes(decoder);
    return { insertions, deletions: readDeletes(decoder), meta: new Map() } as StackItem;
  });
}

function readDeletes(decoder: decoding.Decoder): Deletes {
  const deletes = Y.createDeleteSet() as Deletes;
  for (let clients = decoding.readVarUint(decoder); clients > 0; clients--) {
    const client = decoding.readVarUint(decoder);
    const length = decoding.readVarUint(decoder);
    const ranges = Array.from({ length }, () => ({
      clock: decoding.readVarUint(decoder),
      len: decoding.readVarUint(decoder),
    }));
    deletes.clients.set(client, ranges);
  }
  return deletes;
}

type Link = [client: number, clock: number, length: number, toClient: number, toClock: number];

function redoneLinks(doc: Y.Doc): Link[] {
  const links: Link[] = [];
  for (const structs of doc.store.clients.values()) {
    for (const struct of structs) {
      if (!(struct instanceof Y.Item) || struct.redone === null) continue;
      links.push([struct.id.client, struct.id.clock, struct.length, struct.redone.client, struct.redone.clock]);
    }
  }
  return links;
}

/** Sets `redone` on the items of one range, which may be cut differently after a reload. */
function link(
  transaction: Y.Transaction,
  client: number,
  clock: number,
  length: number,
  toClient: number,
  toClock: number,
): void {
  const state = (of: number): number => Y.getState(transaction.doc.store, of);
  if (state(client) < clock + length || state(toClient) < toClock + length) return;
  for (let at = clock; at < clock + length; ) {
    const item = Y.getItemCleanStart(transaction, Y.createID(client, at));
    if (!(item instanceof Y.Item)) return;
    if (item.length > clock + length - at) {
      Y.getItemCleanEnd(transaction, transaction.doc.store, Y.createID(client, clock + length - 1));
    }
    item.redone = Y.createID(toClient, toClock + (at - clock));
    at += item.length;
  }
}
