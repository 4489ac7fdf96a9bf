// The thin line at the bottom: what is saved, where the cursor is, and in which language.
import { useEffect, useRef, useState } from "preact/hooks";

import { cycleTheme, theme } from "../model/theme";
import type { Shell } from "../model/shell";
import type { Status } from "../model/types";
import { Running } from "./Running";

const SAVING_SHOWN_MS = 300;
const LANGUAGES: Record<string, string> = {
  py: "Python", js: "JavaScript", mjs: "JavaScript", cjs: "JavaScript", ts: "TypeScript", mts: "TypeScript", sh: "Bash", bash: "Bash",
  c: "C", h: "C", cpp: "C++", cc: "C++", cxx: "C++", hpp: "C++", go: "Go", rs: "Rust", java: "Java", rb: "Ruby", php: "PHP", lua: "Lua",
  r: "R", sql: "SQL", md: "Markdown", html: "HTML", css: "CSS", json: "JSON", txt: "Text",
}; // prettier-ignore

export function StatusLine({ shell }: { shell: Shell }) {
  const { workspace } = shell;
  const active = shell.active.value;
  const { role, egress } = workspace.session.value;
  return (
    <footer class="status-line">
      <StatusWord shell={shell} status={workspace.status.value} />
      <span class="spacer" />
      <Running shell={shell} />
      {egress.on && (
        <button type="button" class="status-button" title="Programs here reach the internet" onClick={() => (shell.dialog.value = "internet")}>
          Internet
        </button>
      )}
      {role !== "owner" && <span class="quiet">{role}</span>}
      {active?.kind === "text" && (
        <>
          <span class="desktop-only" data-cursor aria-label="Line and column">
            {shell.cursor.value}
          </span>
          <span class="desktop-only">{LANGUAGES[active.path.split(".").pop() ?? ""] ?? "Text"}</span>
        </>
      )}
      <button type="button" class="status-button" onClick={cycleTheme} aria-label={`Theme: ${theme.value}`} title="System, dark or light">
        {theme.value === "system" ? "◐" : theme.value === "dark" ? "●" : "○"}
      </button>
    </footer>
  );
}

function StatusWord({ shell, status: now }: { shell: Shell; status: Status }) {
  const status = useCalm(now);
  const seconds = useSeconds(status.kind === "offline" ? status.retryAt : null);
  const state = status.kind === "offline" && status.changes === 0 ? "reconnecting" : status.kind;
  return (
    <span class="status-word" data-kind={state}>
      <span class="status-dot" aria-hidden="true" />
      <span data-status role="status">
        {wordOf(status, seconds)}
      </span>
      {status.kind === "offline" && (
        <button type="button" class="status-button" onClick={() => shell.workspace.retryNow()}>
          Try now
        </button>
      )}
      {status.kind === "readonly" && (
        <button type="button" class="status-button desktop-only" onClick={() => void shell.keepCopy()}>
          Keep a copy
        </button>
      )}
    </span>
  );
}

function wordOf(status: Status, seconds: number | null): string {
  switch (status.kind) {
    case "saved":
      return "Saved";
    case "saving":
      return "Saving…";
    case "connecting":
      return "Connecting…";
    case "readonly":
      return `Read-only: ${status.reason}`;
    case "offline": {
      const kept = `Offline: ${status.changes} ${status.changes === 1 ? "change" : "changes"} kept on this device`;
      const retry = seconds === null ? "Reconnecting…" : `Reconnecting in ${seconds} s`;
      return status.changes > 0 ? `${kept} · ${retry}` : retry;
    }
  }
}

/** An ordinary save is over before it is worth a word: "Saving…" shows when it takes longer, and Saved never early. */
function useCalm(status: Status): Status {
  const [slow, setSlow] = useState(false);
  const saving = status.kind === "saving";
  useEffect(() => {
    setSlow(false);
    if (!saving) return;
    const timer = setTimeout(() => setSlow(true), SAVING_SHOWN_MS);
    return () => clearTimeout(timer);
  }, [saving]);
  const before = useRef<Status>(status);
  if (!saving || slow) before.current = status;
  return before.current;
}

/** Seconds until a time, counted down while it is shown. */
function useSeconds(until: number | null): number | null {
  const [, tick] = useState(0);
  useEffect(() => {
    if (until === null) return;
    const timer = setInterval(() => tick((n) => n + 1), 500);
    return () => clearInterval(timer);
  }, [until]);
  return until === null ? null : Math.max(0, Math.ceil((until - Date.now()) / 1000));
}
