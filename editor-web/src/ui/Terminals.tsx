// The terminal panel: the session's terminals as tabs, who is there, and the one that is shown.
import { useState } from "preact/hooks";

import { colorOf, initialsOf } from "../model/palette";
import type { Shell } from "../model/shell";
import { IconButton } from "./icons";
import { lazy } from "./Lazy";

type People = readonly { user_id: string; name: string }[];

const Screen = lazy<{ shell: Shell; id: string; onPeople: (people: People) => void }>(async () => (await import("./Screen")).Screen);

export function Terminals({ shell }: { shell: Shell }) {
  const { terminals, workspace } = shell;
  const shown = terminals.shown.value;
  const mayRun = workspace.canRun.value;
  const [people, setPeople] = useState<People>([]);
  if (shown === null) {
    return (
      <div class="printed">
        <p class="empty">A terminal has the session's files and everyone here sees it. What you change in the editor is there with the next command.</p>
        {mayRun && (
          <button type="button" class="button button-primary" disabled={terminals.opening.value} onClick={() => void terminals.open()}>
            {terminals.opening.value ? "Opening…" : "Open a terminal"}
          </button>
        )}
      </div>
    );
  }
  return (
    <div class="terminals">
      <div class="terminal-row">
        <div class="tabs" role="tablist" aria-label="Terminals">
          {terminals.list.value.map((terminal) => (
            <div key={terminal.id} class="tab" role="presentation" data-active={terminal.id === shown.id}>
              <button
                type="button"
                role="tab"
                aria-selected={terminal.id === shown.id}
                title={`${terminal.title}, opened by ${terminal.user_name ?? "somebody"} at ${new Date(terminal.created_at).toLocaleTimeString()}`}
                onClick={() => terminals.show(terminal.id)}
              >
                {terminal.title} <span class="quiet">{terminal.user_name}</span>
              </button>
              {mayRun && <IconButton icon="close" label={`End ${terminal.title}`} class="tab-close" onClick={() => void terminals.end(terminal.id)} />}
            </div>
          ))}
        </div>
        {mayRun && <IconButton icon="plus" label="New terminal" onClick={() => void terminals.open()} />}
        <span class="terminal-people">
          {people.length > 1 &&
            people.map((person) => (
              <span key={person.user_id} class="avatar avatar-small" style={{ background: colorOf(person.user_id) }} title={`${person.name} looks at this terminal`}>
                {initialsOf(person.name)}
              </span>
            ))}
        </span>
      </div>
      <Screen key={shown.id} shell={shell} id={shown.id} onPeople={setPeople} />
    </div>
  );
}
