// Named versions, and the ways back: each tells what it did and can be undone.
import { call } from "../api/http";
import type { components } from "../api/schema.generated";
import { complain, notify } from "./toasts";

export type Version = components["schemas"]["Version"];
export type VersionWithFiles = components["schemas"]["VersionWithFiles"];
type Forgotten = components["schemas"]["Forgotten"];
type Changed = components["schemas"]["Changed"];
type RestoredVersion = components["schemas"]["RestoredVersion"];

const at = (session: string): string => `/api/v1/sessions/${session}`;

/** Runs `work`; what goes wrong is said. Resolves to null then. */
async function told<T>(work: Promise<T>): Promise<T | null> {
  try {
    return await work;
  } catch (error) {
    complain(error);
    return null;
  }
}

function tell(session: string, words: string, undo: string | null): void {
  if (undo === null) return notify(words);
  const run = (): void => {
    void told(call("POST", `${at(session)}/undos/${undo}`)).then((done) => done !== null && notify("It is as it was before."));
  };
  notify(words, { label: "Undo", run });
}

export async function backTo(session: string, file: { id: string; path: string }, position: number): Promise<void> {
  const done = await told(call<Changed>("POST", `${at(session)}/documents/${file.id}/history/restore`, { position }));
  if (done !== null) tell(session, done.changed ? `${file.path} is as it was then.` : "The text is the same already.", done.undo_id ?? null);
}

export async function takeBack(session: string, document: string, asked: { author?: string; from?: number; to?: number }): Promise<void> {
  const done = await told(call<Changed>("POST", `${at(session)}/documents/${document}/history/rollback`, asked));
  if (done === null) return;
  const words = `Taken back: ${done.deleted.toLocaleString()} characters went, ${done.inserted.toLocaleString()} came back.`;
  tell(session, done.changed ? words : "Nothing of it is left in the text.", done.undo_id ?? null);
}

export async function forgetUntil(session: string, document: string, position: number): Promise<void> {
  const done = await told(call<Forgotten>("POST", `${at(session)}/documents/${document}/history/forget`, { position }));
  if (done !== null) notify(done.edits === 0 ? "There is nothing before this." : `${done.edits.toLocaleString()} edits are forgotten.`);
}

export async function nameVersion(session: string, name: string, point: { document_id: string; position: number } | null): Promise<void> {
  const made = await told(call<Version>("POST", `${at(session)}/versions`, { name, ...point }));
  if (made !== null) notify(`“${made.name}” is kept.`);
}

export const versionsOf = async (session: string): Promise<readonly Version[] | null> =>
  (await told(call<{ items: Version[] }>("GET", `${at(session)}/versions`)))?.items ?? null;

export const versionWith = (session: string, id: string): Promise<VersionWithFiles | null> => told(call("GET", `${at(session)}/versions/${id}`));

export const forgetVersion = async (session: string, id: string): Promise<void> => {
  await told(call("DELETE", `${at(session)}/versions/${id}`));
};

export const versionFile = (session: string, id: string, path: string): string =>
  `${at(session)}/versions/${id}/files/${path.split("/").map(encodeURIComponent).join("/")}`;

export async function restoreVersion(session: string, version: Version): Promise<void> {
  const done = await told(call<RestoredVersion>("POST", `${at(session)}/versions/${version.id}/restore`));
  if (done === null) return;
  const parts = [
    [done.changed.length, "changed"],
    [done.brought_back.length, "brought back"],
    [done.moved.length, "moved"],
    [done.trashed.length, "in the trash"],
  ].filter(([count]) => count !== 0);
  const words = parts.map(([count, what]) => `${count} ${what}`).join(", ");
  tell(session, words === "" ? "Everything is as it was then already." : `Back to “${version.name}”: ${words}.`, done.undo_id ?? null);
}
