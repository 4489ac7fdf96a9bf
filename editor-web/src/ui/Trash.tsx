// What was deleted, and the way back.
import type { Shell } from "../model/shell";
import { complain } from "../model/toasts";
import { Dialog } from "./Dialog";

export function Trash({ shell }: { shell: Shell }) {
  const { trash, canEdit, files } = shell.workspace;
  const restore = (id: string): void => {
    try {
      files.restore(id);
    } catch (error) {
      complain(error);
    }
  };
  return (
    <Dialog shell={shell} title="Trash">
      {trash.value.length === 0 && <p class="empty">Nothing was deleted.</p>}
      <ul class="plain rows">
        {trash.value.map((node) => (
          <li key={node.id}>
            <span>
              {node.path} <span class="quiet">· {new Date(node.trashed ?? 0).toLocaleString()}</span>
            </span>
            {canEdit.value && (
              <button type="button" class="button" aria-label={`Restore ${node.path}`} onClick={() => restore(node.id)}>
                Restore
              </button>
            )}
          </li>
        ))}
      </ul>
    </Dialog>
  );
}
