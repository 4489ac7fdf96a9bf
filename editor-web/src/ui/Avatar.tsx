// A person: initials on their colour; a press follows them.
import type { Shell } from "../model/shell";
import type { Person } from "../model/types";

export function Avatar({ shell, person }: { shell: Shell; person: Person }) {
  const following = shell.workspace.following.value === person.key;
  const label = following ? `Stop following ${person.name}` : `Follow ${person.name}`;
  return (
    <button
      type="button"
      class="avatar"
      style={{ background: person.color }}
      aria-label={label}
      aria-pressed={following}
      title={label}
      onClick={() => (shell.workspace.following.value = following ? null : person.key)}
    >
      {person.initials}
    </button>
  );
}
