// The shown tree, derived from the entries of the tree document: one pure function, written in Python too, and held
// together by shared vectors. Whatever several people did at once, everybody derives the same tree and nothing is hidden.
import { clashKey, foldersOf, numbered, pathFault } from "./paths";
import type { FileNode } from "./types";

/** One value of the map `files`; the key is the file's id. */
export interface Entry {
  path: string;
  kind: "text" | "blob" | "folder";
  created: number; // ms since 1970
  author: string;
  blob?: string;
  size?: number;
  media_type?: string;
  trashed?: number; // ms since 1970
}

export interface Derived {
  tree: FileNode[]; // sorted by path, by code points
  trash: FileNode[]; // newest first
}

interface Named {
  id: string;
  entry: Entry;
  path: string;
}

/** Reads an entry that a peer may have filled with anything; null when there is nothing to show. */
export function readEntry(value: unknown): Entry | null {
  if (typeof value !== "object" || value === null) return null;
  const raw = value as Record<string, unknown>;
  const kind = raw["kind"];
  const entry: Entry = {
    path: text(raw["path"]) ?? "",
    kind: kind === "blob" || kind === "folder" ? kind : "text",
    created: whole(raw["created"]) ?? 0,
    author: text(raw["author"]) ?? "",
  };
  const blob = text(raw["blob"]);
  const size = whole(raw["size"]);
  const mediaType = text(raw["media_type"]);
  const trashed = whole(raw["trashed"]);
  if (blob !== undefined) entry.blob = blob;
  if (size !== undefined) entry.size = size;
  if (mediaType !== undefined) entry.media_type = mediaType;
  if (trashed !== undefined) entry.trashed = trashed;
  return entry;
}

const text = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined);

const whole = (value: unknown): number | undefined =>
  typeof value === "number" && Number.isFinite(value) ? Math.trunc(value) : undefined;

export function derive(entries: ReadonlyMap<string, Entry>): Derived {
  const live: Named[] = [];
  const trash: FileNode[] = [];
  for (const [id, entry] of entries) {
    const named = { id, entry, path: shownPath(id, entry.path) };
    if (entry.trashed === undefined) live.push(named);
    else trash.push(node(named));
  }
  live.sort((a, b) => a.entry.created - b.entry.created || compareCodePoints(a.id, b.id));
  const tree = place(live).map(node);
  tree.sort((a, b) => compareCodePoints(a.path, b.path));
  trash.sort((a, b) => (b.trashed ?? 0) - (a.trashed ?? 0) || compareCodePoints(a.id, b.id));
  return { tree, trash };
}

/** Gives each entry a path of its own, the older ones first. */
function place(live: readonly Named[]): Named[] {
  const folders = new Set<string>();
  for (const { entry, path } of live) {
    for (const folder of foldersOf(path)) folders.add(clashKey(folder));
    if (entry.kind === "folder") folders.add(clashKey(path));
  }
  const taken = new Set(folders);
  const placed: Named[] = [];
  const late: Named[] = [];
  const shownFolders = new Set<string>();
  for (const named of live) {
    const key = clashKey(named.path);
    if (named.entry.kind === "folder") {
      if (shownFolders.has(key)) continue; // equal folders merge
      shownFolders.add(key);
      placed.push(named);
    } else if (taken.has(key)) late.push(named);
    else {
      taken.add(key);
      placed.push(named);
    }
  }
  for (const named of late) {
    let n = 2;
    while (taken.has(clashKey(numbered(named.path, n)))) n++;
    const path = numbered(named.path, n);
    taken.add(clashKey(path));
    placed.push({ ...named, path });
  }
  return placed;
}

function shownPath(id: string, path: string): string {
  return pathFault(path) === null ? path.normalize("NFC") : `unnamed-${[...id].slice(0, 8).join("")}`;
}

function node({ id, entry, path }: Named): FileNode {
  const shown: FileNode = { id, path, kind: entry.kind, trashed: entry.trashed ?? null };
  if (entry.blob !== undefined) shown.blob = entry.blob;
  if (entry.size !== undefined) shown.size = entry.size;
  if (entry.media_type !== undefined) shown.mediaType = entry.media_type;
  return shown;
}

/** Orders as Python does: UTF-16 units of surrogates would come before U+E000. */
export function compareCodePoints(a: string, b: string): number {
  const left = [...a];
  const right = [...b];
  for (let i = 0; i < left.length && i < right.length; i++) {
    const difference = (left[i]?.codePointAt(0) ?? 0) - (right[i]?.codePointAt(0) ?? 0);
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}
