// Session name, the people present, Share and Run.
import { runCommand, shownKeys } from "../model/commands";
import type { Shell } from "../model/shell";
import { Avatar } from "./Avatar";
import { Icon, IconButton } from "./icons";

const MOST_SHOWN = 6;

export function Header({ shell }: { shell: Shell }) {
  const { workspace } = shell;
  const session = workspace.session.value;
  const people = workspace.people.value.filter((person) => !person.me);
  const running = shell.runs.active.value;
  return (
    <header class="app-header">
      <a class="brand" href="/sessions" title="All sessions">
        Atelier
      </a>
      {session.role === "owner" ? (
        <input
          class="session-name"
          aria-label="Session name"
          value={session.name}
          maxLength={120}
          onChange={(event) => void shell.rename(event.currentTarget.value)}
          onKeyDown={(event) => event.key === "Enter" && event.currentTarget.blur()}
        />
      ) : (
        <h1 class="session-name">{session.name}</h1>
      )}
      <div class="people-row" role="group" aria-label="People here">
        {people.slice(0, MOST_SHOWN).map((person) => (
          <Avatar key={person.key} shell={shell} person={person} />
        ))}
        {people.length > MOST_SHOWN && <span class="quiet">+{people.length - MOST_SHOWN}</span>}
      </div>
      <IconButton icon="people" label="People" class="desktop-only" pressed={shell.layout.people.value} onClick={() => shell.layout.togglePeople()} />
      <IconButton icon="menu" label="All commands" onClick={() => runCommand(shell, "palette")} />
      {session.role === "owner" && (
        <button type="button" class="button" onClick={() => runCommand(shell, "share")}>
          <Icon name="share" />
          <span>Share</span>
        </button>
      )}
      {running !== null ? (
        <button type="button" class="button button-stop" disabled={!workspace.canRun.value} onClick={() => void shell.stop()}>
          <Icon name="stop" />
          <span>Stop</span>
        </button>
      ) : (
        <button
          type="button"
          class="button button-run"
          disabled={!workspace.canRun.value || shell.runs.starting.value}
          title={workspace.canRun.value ? `Run (${shownKeys("Mod+Enter")})` : "Your role does not allow running"}
          onClick={() => void shell.run()}
        >
          <Icon name="run" />
          <span>Run</span>
        </button>
      )}
    </header>
  );
}
