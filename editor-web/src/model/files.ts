// Changes to the tree document: what a person does to files. Everything is a plain edit of the map, so it works offline.
import type * as Y from "yjs";

import { checkedPath, clashKey, foldersOf, PathError } from "./paths";
import { derive, type Entry, readEntry } from "./tree";
import type { FileActions, FileNode } from "./types";

export interface FileActionsOptions {
  files: Y.Map<unknown>; // the root map `files` of the tree document
  newMap(): Y.Map<unknown>;
  author(): string;
  /** Throws when this person may not edit. */
  guard(): void;
  /** Puts the first text into a new document. */
  fill(documentId: string, text: string): void;
  now(): number;
}

export function entriesOf(files: Y.Map<unknown>): Map<string, Entry> {
  const entries = new Map<string, Entry>();
  for (const [id, value] of files.entries()) {
    const entry = readEntry((value as { toJSON?: () => unknown } | null)?.toJSON?.() ?? value);
    if (entry !== null) entries.set(id, entry);
  }
  return entries;
}

/** `doc_` and 20 characters of base32, as the server makes them. */
export function newFileId(): string {
  const letters = "abcdefghijklmnopqrstuvwxyz234567";
  const random = crypto.getRandomValues(new Uint8Array(20));
  return `doc_${[...random].map((byte) => letters[byte & 31]).join("")}`;
}

const inside = (path: string, folder: string): boolean => path === folder || path.startsWith(`${folder}/`);

export function fileActions(options: FileActionsOptions): FileActions {
  const { files } = options;
  const shown = (): FileNode[] => derive(entriesOf(files)).tree;

  const transact = <T>(change: () => T): T => {
    options.guard();
    const doc = files.doc;
    if (doc === null) throw new Error("The tree document is closed.");
    return doc.transact(change);
  };

  const add = (path: string, kind: "text" | "folder"): FileNode => {
    const id = newFileId();
    const fields = options.newMap();
    const entry: Entry = { path, kind, created: options.now(), author: options.author() };
    for (const [name, value] of Object.entries(entry)) fields.set(name, value);
    files.set(id, fields);
    return { id, path, kind, trashed: null };
  };

  /** The clash keys of all files and folders, but those below `except`. */
  const taken = (except: ReadonlySet<string>): { files: Set<string>; folders: Set<string> } => {
    const keys = { files: new Set<string>(), folders: new Set<string>() };
    for (const node of shown()) {
      if (except.has(node.id)) continue;
      (node.kind === "folder" ? keys.folders : keys.files).add(clashKey(node.path));
      for (const folder of foldersOf(node.path)) keys.folders.add(clashKey(folder));
    }
    return keys;
  };

  const requireFree = (path: string, kind: FileNode["kind"], except: ReadonlySet<string> = new Set()): void => {
    const keys = taken(except);
    const key = clashKey(path);
    const clash = keys.files.has(key) || (kind !== "folder" && keys.folders.has(key));
    if (clash || [...foldersOf(path)].some((folder) => keys.files.has(clashKey(folder)))) {
      throw new PathError("path_taken", path);
    }
  };

  const set = (id: string, field: keyof Entry, value: unknown): void => {
    const fields = files.get(id) as Y.Map<unknown> | undefined;
    if (fields === undefined) return;
    if (value === undefined) fields.delete(field);
    else fields.set(field, value);
  };

  return {
    createText(path, text = "") {
      const checked = checkedPath(path);
      requireFree(checked, "text");
      const node = transact(() => add(checked, "text"));
      options.fill(node.id, text);
      return node;
    },

    createFolder(path) {
      const checked = checkedPath(path);
      requireFree(checked, "folder");
      return transact(() => add(checked, "folder"));
    },

    move(path, to) {
      const target = checkedPath(to);
      if (target === path) return;
      const moved = shown().filter((node) => inside(node.path, path));
      if (moved.length === 0) throw new PathError("path_empty", path);
      if (inside(target, path)) throw new PathError("path_taken", to);
      const ids = new Set(moved.map((node) => node.id));
      const news = moved.map((node) => ({ node, path: checkedPath(target + node.path.slice(path.length)) }));
      for (const item of news) requireFree(item.path, item.node.kind, ids);
      transact(() => {
        for (const item of news) set(item.node.id, "path", item.path);
      });
    },

    remove(path) {
      const removed = shown().filter((node) => inside(node.path, path));
      const at = options.now();
      transact(() => {
        for (const node of removed) set(node.id, "trashed", at);
      });
      return () =>
        transact(() => {
          for (const node of removed) set(node.id, "trashed", undefined);
        });
    },

    restore(id) {
      transact(() => set(id, "trashed", undefined));
    },
  };
}
