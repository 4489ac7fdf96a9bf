// The status line as a function of the link and the documents: it says Saved only when nothing else is true.
import type { LinkState } from "../sync/link";
import type { Role, Status } from "./types";

export interface DocumentAccount {
  changes: number;
  refused: boolean;
  settled: boolean;
  /** Why the server does not open this document; null when it does. */
  denied?: string | null;
}

export interface Account {
  link: LinkState;
  everOpen: boolean;
  documents: readonly DocumentAccount[];
  role: Role;
  /** The server takes this person's edits: what it said last. */
  writable: boolean;
  /** The role when the page was opened. */
  firstRole: Role;
}

export const mayEdit = (role: Role): boolean => role === "owner" || role === "edit";
export const mayRun = (role: Role): boolean => mayEdit(role) || role === "run";

export function statusOf(account: Account): Status {
  const { link, documents } = account;
  const changes = documents.reduce((sum, document) => sum + document.changes, 0);
  if (link.kind === "ended") return { kind: "readonly", reason: endReason(link.code, link.reason), refused: changes };
  if (link.kind !== "open") {
    if (!account.everOpen && changes === 0 && link.kind === "opening" && link.attempt === 0) return { kind: "connecting" };
    return { kind: "offline", changes, retryAt: link.kind === "waiting" ? link.retryAt : null };
  }
  const damaged = documents.find((document) => document.denied?.startsWith("document_quarantined"));
  if (damaged !== undefined) {
    return { kind: "readonly", reason: "A file cannot be opened: what is kept of it on the server is damaged. Whoever runs the server can recover it.", refused: damaged.changes };
  }
  const refused = documents.reduce((sum, document) => sum + (document.refused ? document.changes : 0), 0);
  if (!mayEdit(account.role) || !account.writable) return { kind: "readonly", reason: roleReason(account), refused };
  if (refused > 0) return { kind: "readonly", reason: "The server did not take an edit. It is kept on this device.", refused };
  if (documents.every((document) => document.settled)) return { kind: "saved" };
  return changes === 0 && !account.everOpen ? { kind: "connecting" } : { kind: "saving" };
}

function endReason(code: number, reason: string): string {
  if (code === 4401) return "You are logged out. Log in again to edit.";
  if (code === 4403 || code === 4404) return "You have no access to this session any more.";
  if (code === 1000) return "This session is closed.";
  const detail = reason.replace(/^[a-z_]+: /, ""); // the server says `code: detail`
  return detail === "" ? `The server ended the connection (${code}).` : detail;
}

function roleReason({ role, firstRole }: Account): string {
  if (mayEdit(firstRole)) return "Your access changed: you can no longer edit.";
  if (role === "run") return "You can run this, but not edit it.";
  if (role === "comment") return "You can comment on this, but not edit it.";
  return "You can look at this, but not edit it.";
}
