// An import from a Git address: what it is doing, what came of it; it goes on when its dialog is closed.
import { signal } from "@preact/signals";

import { call, ProblemError } from "../api/http";
import type { components } from "../api/schema.generated";
import { notify } from "./toasts";
import type { Problem } from "./types";

export type Imported = components["schemas"]["Imported"];
type Asked = components["schemas"]["GitImport"];

export type GitImport =
  | { kind: "none" }
  | { kind: "working"; phase: string; received: number; cancel: () => void }
  | { kind: "done"; made: Imported }
  | { kind: "failed"; problem: Problem };

export const gitImport = signal<GitImport>({ kind: "none" });

/** Imports, and says what came of it: to the dialog while it is `shown`, else in a message that opens it. */
export async function importGit(session: string, asked: Asked, shown: () => boolean, show: () => void): Promise<void> {
  if (gitImport.peek().kind === "working") return;
  const stop = new AbortController();
  gitImport.value = { kind: "working", phase: "connecting", received: 0, cancel: () => stop.abort() };
  try {
    const made = await call<Imported>("POST", `/api/v1/sessions/${session}/imports`, asked, stop.signal);
    gitImport.value = { kind: "done", made };
  } catch (error) {
    if (stop.signal.aborted) gitImport.value = { kind: "none" };
    else if (error instanceof ProblemError) gitImport.value = { kind: "failed", problem: error.problem };
    else throw error;
  }
  if (gitImport.peek().kind !== "none" && !shown()) {
    const failed = gitImport.peek().kind === "failed";
    notify(failed ? "The import from Git failed." : "The import from Git is done.", { label: "Show", run: show }, failed);
  }
}

/** The server tells what an import of this person is doing. */
export function importProgress(data: Record<string, unknown>): void {
  const now = gitImport.peek();
  if (now.kind === "working") gitImport.value = { ...now, phase: String(data["phase"]), received: Number(data["received"]) };
}

/** The folder that a repository goes into unless somebody says otherwise: its name, with a number if that is taken. */
export function folderFor(url: string, taken: (path: string) => boolean): string {
  const name = nameOf(url);
  let free = name;
  for (let n = 2; free !== "" && taken(free); n += 1) free = `${name}-${n}`;
  return free;
}

function nameOf(url: string): string {
  const last = url.trim().replace(/[?#].*$/, "").replace(/\/+$/, "").replace(/^https?:\/\/[^/]*/i, "").split("/").pop() ?? "";
  return last.replace(/\.git$/, "").replace(/[\\\s]+/g, "-");
}

export function bytesShown(bytes: number): string {
  return bytes < 1_000_000 ? `${Math.ceil(bytes / 1000)} kB` : `${(bytes / 1_000_000).toFixed(1)} MB`;
}
