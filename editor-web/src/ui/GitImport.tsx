// Import from Git: an address, a branch if not the default one, a folder; then what came and what was left out.
import { useState } from "preact/hooks";

import { bytesShown, folderFor, type GitImport as State, gitImport, importGit } from "../model/imports";
import type { Shell } from "../model/shell";
import { Dialog } from "./Dialog";

const PHASES: Readonly<Record<string, string>> = {
  connecting: "Asking the server…",
  receiving: "Receiving…",
  unpacking: "Unpacking…",
  writing: "Writing the files…",
};
const TITLE = "Import from Git";

export function GitImport({ shell }: { shell: Shell }) {
  const state = gitImport.value;
  return (
    <Dialog shell={shell} title={TITLE}>
      {state.kind === "working" ? <Working state={state} /> : state.kind === "done" ? <Done shell={shell} state={state} /> : <Ask shell={shell} state={state} />}
    </Dialog>
  );
}

/** What was typed stays for another try, and for the next time that the dialog opens. */
const typed = { url: "", ref: "", into: null as string | null };

function Ask({ shell, state }: { shell: Shell; state: State }) {
  const [url, setUrl] = useState(typed.url);
  const [ref, setRef] = useState(typed.ref);
  const [into, setInto] = useState(typed.into);
  const paths = shell.workspace.tree.value.map((node) => node.path);
  const taken = (folder: string): boolean => paths.some((path) => path === folder || path.startsWith(`${folder}/`));
  const folder = into ?? (paths.length === 0 ? "" : folderFor(url, taken));
  Object.assign(typed, { url, ref, into });
  const start = (): void =>
    void importGit(
      shell.session,
      { url: url.trim(), ref: ref.trim(), into: folder.trim() },
      () => shell.dialog.peek() === "git",
      () => (shell.dialog.value = "git"),
    );
  return (
    <form
      class="git-form"
      onSubmit={(event) => {
        event.preventDefault();
        start();
      }}
    >
      <p class="quiet">The latest files of a public repository, without its history.</p>
      {state.kind === "failed" && (
        <p class="notice notice-error" role="alert">
          <strong>{state.problem.detail}</strong> {state.problem.next_step} {state.problem.id !== "" && <span class="quiet">· {state.problem.id}</span>}
        </p>
      )}
      <label class="field">
        Address
        <input
          type="url"
          required
          autoFocus
          placeholder="https://…"
          pattern="\s*https://.*"
          title="An address that begins with https://"
          maxLength={2000}
          autocapitalize="off"
          spellcheck={false}
          value={url}
          onInput={(event) => setUrl(event.currentTarget.value)}
        />
      </label>
      <div class="git-row">
        <label class="field">
          Branch or tag
          <input placeholder="the default one" maxLength={250} autocapitalize="off" spellcheck={false} value={ref} onInput={(event) => setRef(event.currentTarget.value)} />
        </label>
        <label class="field">
          Into the folder
          <input placeholder="the top" maxLength={1024} autocapitalize="off" spellcheck={false} value={folder} onInput={(event) => setInto(event.currentTarget.value)} />
        </label>
      </div>
      <button type="submit" class="button button-primary">
        Import
      </button>
    </form>
  );
}

function Working({ state }: { state: Extract<State, { kind: "working" }> }) {
  return (
    <div class="git-form" aria-live="polite">
      <p>
        {PHASES[state.phase] ?? "Working…"} {state.received > 0 && <span class="quiet">{bytesShown(state.received)}</span>}
      </p>
      <progress aria-label="The import" />
      <button type="button" class="button" onClick={state.cancel}>
        Cancel
      </button>
    </div>
  );
}

function Done({ shell, state }: { shell: Shell; state: Extract<State, { kind: "done" }> }) {
  const { paths, left_out: left = [], ref, commit } = state.made;
  const another = (): void => {
    Object.assign(typed, { url: "", ref: "", into: null });
    gitImport.value = { kind: "none" };
  };
  return (
    <div class="git-form">
      <p role="status">
        <strong>
          {paths.length} {paths.length === 1 ? "file is" : "files are"} here
        </strong>
        {commit != null && (
          <span class="quiet">
            {" "}
            · {ref} at {commit.slice(0, 7)}
          </span>
        )}
      </p>
      {left.length > 0 && (
        <>
          <h3>
            {left.length} left out
          </h3>
          <ul class="plain rows left-out">
            {left.map((item, at) => (
              <li key={at}>
                <span>{item.path === "" ? "(no name)" : item.path}</span>
                <span class="quiet">{item.reason}</span>
              </li>
            ))}
          </ul>
        </>
      )}
      <div class="git-row">
        <button
          type="button"
          class="button button-primary"
          onClick={() => {
            another();
            shell.dialog.value = null;
          }}
        >
          Done
        </button>
        <button type="button" class="button" onClick={another}>
          Import another
        </button>
      </div>
    </div>
  );
}
