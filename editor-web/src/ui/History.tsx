// The past of the open file, and the session's versions: look, play, compare, go back.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { type PastView, pastView } from "../editor/past";
import { Past, SPEEDS } from "../model/past";
import { backTo, nameVersion } from "../model/versions";
import type { Shell } from "../model/shell";
import type { FileNode } from "../model/types";
import { Dialog } from "./Dialog";
import { exactly, Timeline } from "./Timeline";
import { Versions } from "./Versions";
import "../styles/history.css";

const LOOK_AGAIN_MS = 5_000;

export function History({ shell }: { shell: Shell }) {
  // The file that was open when the dialog was: somebody who follows another may be led elsewhere meanwhile.
  const file = useMemo(() => (shell.active.peek()?.kind === "text" ? shell.active.peek() : null), []);
  const [tab, setTab] = useState<"file" | "versions">(file === null ? "versions" : "file");
  return (
    <Dialog shell={shell} title="History" class="dialog-history">
      <div class="history-tabs" role="tablist" aria-label="History of">
        {file !== null && <Tab id="file" chosen={tab} label={file.path.split("/").pop() ?? file.path} choose={setTab} />}
        <Tab id="versions" chosen={tab} label="Versions of the session" choose={setTab} />
      </div>
      {tab === "file" && file !== null ? <OfFile shell={shell} file={file} /> : <Versions shell={shell} />}
    </Dialog>
  );
}

interface TabProps {
  id: "file" | "versions";
  chosen: string;
  label: string;
  choose: (id: "file" | "versions") => void;
}

function Tab({ id, chosen, label, choose }: TabProps) {
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const row = (event.currentTarget as HTMLElement).parentElement;
    const other = row?.querySelector<HTMLElement>("[aria-selected=false]");
    other?.click();
    other?.focus();
  };
  return (
    <button type="button" role="tab" class="history-tab" aria-selected={chosen === id} tabIndex={chosen === id ? 0 : -1} onKeyDown={onKeyDown} onClick={() => choose(id)}>
      {label}
    </button>
  );
}

function OfFile({ shell, file }: { shell: Shell; file: FileNode }) {
  const past = useMemo(() => new Past(shell.session, file.id), [file.id]);
  useEffect(() => {
    void past.open();
    // What others write meanwhile appears in the list; what is looked at stays.
    const again = setInterval(() => document.visibilityState === "visible" && !past.playing.peek() && void past.refresh(), LOOK_AGAIN_MS);
    return () => {
      clearInterval(again);
      past.stop();
    };
  }, [past]);
  if (!past.ready.value) return <p class="empty">Reading the history…</p>;
  if (past.bursts.value.length === 0) return <p class="empty">Nobody has written in this file yet. Every edit will be here, with who made it and when.</p>;
  return (
    <div class="history">
      <div class="history-look">
        <Head shell={shell} past={past} file={file} />
        <Text past={past} file={file} />
        <Player past={past} />
      </div>
      <Timeline shell={shell} past={past} />
    </div>
  );
}

function Head({ shell, past, file }: { shell: Shell; past: Past; file: FileNode }) {
  const shown = past.shown.value;
  const [naming, setNaming] = useState(false);
  if (shown === null) return <div class="history-head" />;
  const now = shown.position >= past.newest.value;
  const canEdit = shell.workspace.canEdit.value;
  if (naming) {
    return (
      <form
        class="history-head"
        onSubmit={(event) => {
          event.preventDefault();
          const name = String(new FormData(event.currentTarget).get("name") ?? "").trim();
          if (name === "") return;
          setNaming(false);
          void nameVersion(shell.session, name, { document_id: file.id, position: shown.position }).then(() => past.refresh());
        }}
      >
        <input name="name" aria-label="Name of this version" placeholder="Name of this version" maxLength={80} required autoFocus onKeyDown={(event) => event.key === "Escape" && (event.preventDefault(), event.stopPropagation(), setNaming(false))} />
        <button type="submit" class="button button-primary">
          Name it
        </button>
        <button type="button" class="button" onClick={() => setNaming(false)}>
          Cancel
        </button>
      </form>
    );
  }
  return (
    <div class="history-head">
      <label class="history-compare">
        <input type="checkbox" checked={past.against.value === "now"} onChange={(event) => void past.compareWith(event.currentTarget.checked ? "now" : "before")} />
        Compare with now
      </label>
      <span class="history-gap" />
      {canEdit && (
        <>
          <button type="button" class="button" onClick={() => setNaming(true)}>
            Name this…
          </button>
          <button type="button" class="button button-primary" disabled={now} title={now ? "This is the text as it is now" : undefined} onClick={() => void backTo(shell.session, file, shown.position).then(() => past.open())}>
            Restore this
          </button>
        </>
      )}
    </div>
  );
}

function Text({ past, file }: { past: Past; file: FileNode }) {
  const holder = useRef<HTMLDivElement>(null);
  const view = useRef<PastView | null>(null);
  useEffect(() => {
    view.current = pastView(holder.current as HTMLElement, file.path);
    return () => view.current?.destroy();
  }, [file.id]);
  const shown = past.shown.value;
  useEffect(() => {
    if (shown !== null) view.current?.show(shown);
  }, [shown]);
  return <div class="history-text" ref={holder} aria-busy={shown === null} />;
}

function Player({ past }: { past: Past }) {
  const track = past.track.value;
  const shown = past.shown.value;
  const edit = shown === null ? track.length : track.editOf(shown.position);
  const burst = past.bursts.value.find((one) => one.first <= (shown?.position ?? 0));
  return (
    <div class="history-player">
      <button type="button" class="button" onClick={() => void past.play()} aria-pressed={past.playing.value}>
        {past.playing.value ? "Pause" : "Play"}
      </button>
      <input
        type="range"
        aria-label="Edits"
        aria-valuetext={`Edit ${edit} of ${track.length}`}
        min={0}
        max={track.length}
        value={edit}
        onInput={(event) => past.scrub(Number(event.currentTarget.value))}
      />
      <span class="quiet history-place">{burst === undefined ? "the beginning" : exactly(burst.ended_at)}</span>
      <select aria-label="Speed" value={past.speed.value} onChange={(event) => (past.speed.value = Number(event.currentTarget.value))}>
        {SPEEDS.map((speed) => (
          <option key={speed} value={speed}>
            {speed}×
          </option>
        ))}
      </select>
    </div>
  );
}
