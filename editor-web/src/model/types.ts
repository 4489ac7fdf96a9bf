// What the parts of the editor know of each other: shapes only, no code.
import type { ReadonlySignal, Signal } from "@preact/signals";
import type { EditorView } from "@codemirror/view";

import type { components } from "../api/schema.generated";

export type Role = "owner" | "edit" | "run" | "comment" | "view";

export interface Me {
  id: string;
  kind: "guest" | "account";
  display_name: string;
  email: string | null;
  is_admin: boolean;
  preferences: Record<string, unknown>;
}

export interface SessionInfo {
  id: string;
  name: string;
  role: Role;
  entry: string | null;
  egress: components["schemas"]["Egress"];
}

/** What the server renders into `<script type="application/json" id="boot">` of the session page. */
export interface Boot {
  me: Me;
  session: SessionInfo;
  limits: Record<string, number>;
  /** The file whose text is in the page already, so that it shows before the socket opens. */
  first: { document_id: string; path: string; text: string } | null;
  version: string;
}

export interface FileNode {
  id: string; // key in the tree document; also the document id of a text
  path: string; // as shown: unique in the session after clashes are resolved
  kind: "text" | "blob" | "folder";
  blob?: string; // SHA-256 of a blob's bytes
  size?: number; // bytes, of a blob
  mediaType?: string;
  trashed: number | null; // ms since 1970
}

export interface Person {
  key: string; // one browser tab: the awareness client id
  id: string; // user id
  name: string;
  initials: string;
  color: string;
  me: boolean;
  /** Where that person is, if known. */
  documentId: string | null;
}

/**
 * Always true. `changes` counts local edits that the server has not acknowledged as durable. `saving` comes with the
 * edit itself: whoever shows it waits 300 ms first, so that nothing blinks while one types.
 */
export type Status =
  | { kind: "connecting" }
  | { kind: "saved" }
  | { kind: "saving" }
  | { kind: "offline"; changes: number; retryAt: number | null }
  | { kind: "readonly"; reason: string; refused: number };

export interface Problem {
  code: string;
  title: string;
  detail: string;
  id: string;
  next_step: string;
  status: number;
  retry_after?: number;
}

export interface EditorHandle {
  readonly view: EditorView;
  focus(): void;
  /** 1-based line, 0-based column in UTF-16 units. */
  reveal(line: number, column?: number): void;
  destroy(): void;
}

export interface FileActions {
  createText(path: string, text?: string): FileNode;
  createFolder(path: string): FileNode;
  /** Renames or moves a file, or a folder with all that is in it. Throws Problem-like Error for a bad path. */
  move(path: string, to: string): void;
  /** Puts a file or a folder with its contents in the trash; returns the function that brings it back. */
  remove(path: string): () => void;
  restore(id: string): void;
}

/** The live session: everything that came over the wire, as signals. Made by `openWorkspace(boot)`. */
export interface Workspace {
  readonly me: Signal<Me>;
  readonly session: Signal<SessionInfo>;
  readonly canEdit: ReadonlySignal<boolean>;
  readonly canRun: ReadonlySignal<boolean>;
  readonly tree: ReadonlySignal<readonly FileNode[]>; // sorted by path, without trash
  readonly treeReady: ReadonlySignal<boolean>;
  readonly trash: ReadonlySignal<readonly FileNode[]>;
  readonly people: ReadonlySignal<readonly Person[]>;
  readonly status: ReadonlySignal<Status>;
  /** The `key` of the person being followed. */
  readonly following: Signal<string | null>;
  readonly files: FileActions;
  /** Says which document this tab shows, so that others can follow. */
  showing(documentId: string | null): void;
  /** Builds an editor for a text file inside `parent`. */
  mountEditor(parent: HTMLElement, node: FileNode, options?: { readOnly?: boolean }): EditorHandle;
  /** The text as this tab knows it (loads the document when needed). */
  text(documentId: string): Promise<string>;
  retryNow(): void;
  /** Texts with edits that the server has not taken, as they are in this tab: to offer as a download. */
  refusedCopies(): { path: string; text: string }[];
  /** Drops those edits from this device and closes the workspace; reload the page then. */
  discardRefused(): Promise<void>;
  close(): void;
}

/** Calls that the workspace makes to the interface: set by the shell. */
export interface ShellHooks {
  /** Open this document in a tab because the followed person is there. */
  openDocument(documentId: string): void;
  notify(message: string, action?: { label: string; run: () => void }): void;
}
