// Everybody who is here now, where they are, and whom one follows.
import type { Shell } from "../model/shell";
import { Avatar } from "./Avatar";

export function People({ shell }: { shell: Shell }) {
  const { workspace } = shell;
  const people = workspace.people.value;
  const others = people.filter((person) => !person.me);
  return (
    <aside class="people-panel" aria-label="People">
      <h2 class="panel-title">People</h2>
      <ul class="plain">
        {people.map((person) => {
          const path = person.documentId === null ? "" : (shell.nodes.value.get(person.documentId)?.path ?? "");
          return (
            <li key={person.key} class="person">
              {person.me ? (
                <span class="avatar" style={{ background: person.color }} aria-hidden="true">
                  {person.initials}
                </span>
              ) : (
                <Avatar shell={shell} person={person} />
              )}
              <span class="person-text">
                <span>{person.me ? `${person.name} (you)` : person.name}</span>
                <span class="quiet">{path}</span>
              </span>
            </li>
          );
        })}
      </ul>
      {others.length === 0 && (
        <p class="empty">
          You are alone here.{" "}
          {workspace.session.value.role === "owner" && (
            <button type="button" class="link" onClick={() => (shell.dialog.value = "share")}>
              Share a link
            </button>
          )}
        </p>
      )}
    </aside>
  );
}
