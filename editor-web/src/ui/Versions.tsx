// The session's named versions: make one, look into one, go back to one.
import { useEffect, useState } from "preact/hooks";

import type { Shell } from "../model/shell";
import { forgetVersion, nameVersion, restoreVersion, type Version, versionFile, versionsOf, versionWith, type VersionWithFiles } from "../model/versions";
import { ago, exactly } from "./Timeline";

export function Versions({ shell }: { shell: Shell }) {
  const [versions, set] = useState<readonly Version[] | null>(null);
  const [open, setOpen] = useState<VersionWithFiles | null>(null);
  const [asked, ask] = useState<string | null>(null);
  const canEdit = shell.workspace.canEdit.value;
  const refresh = async (): Promise<void> => set((await versionsOf(shell.session)) ?? []);
  useEffect(() => void refresh(), []);
  const look = async (version: Version): Promise<void> => setOpen(open?.id === version.id ? null : await versionWith(shell.session, version.id));
  return (
    <div class="versions">
      {canEdit && (
        <form
          class="history-head"
          onSubmit={(event) => {
            event.preventDefault();
            const form = event.currentTarget;
            const name = String(new FormData(form).get("name") ?? "").trim();
            if (name !== "") void nameVersion(shell.session, name, null).then(refresh).then(() => form.reset());
          }}
        >
          <input name="name" aria-label="Name for the session as it is now" placeholder="Name for the session as it is now" maxLength={80} required />
          <button type="submit" class="button button-primary">
            Keep
          </button>
        </form>
      )}
      {versions !== null && versions.length === 0 && (
        <p class="empty">No version has a name yet. {canEdit && "Give the session one before a big change: all its files come back under it, whenever you want."}</p>
      )}
      <ul class="plain">
        {versions?.map((version) => (
          <li key={version.id} class="version">
            <div class="version-head">
              <button type="button" class="version-name" aria-expanded={open?.id === version.id} onClick={() => void look(version)}>
                <strong>{version.name}</strong>
                <span class="quiet" title={exactly(version.created_at)}>
                  {version.by_name || "Somebody who left"}, {ago(version.created_at)}
                  {version.document_id !== null && " · one file"}
                </span>
              </button>
              {canEdit && asked !== version.id && (
                <>
                  <button type="button" class="button" aria-label={`Restore ${version.name}`} onClick={() => ask(version.id)}>
                    Restore…
                  </button>
                  <button type="button" class="button" aria-label={`Delete the name ${version.name}`} onClick={() => void forgetVersion(shell.session, version.id).then(refresh)}>
                    Delete
                  </button>
                </>
              )}
            </div>
            {asked === version.id && (
              <div class="ways" role="group" aria-label={`Restore ${version.name}`}>
                <p>{version.document_id === null ? "All files become what they were; files made since go to the trash." : "This file becomes what it was."} You can undo it.</p>
                <button
                  type="button"
                  class="button button-primary"
                  autoFocus
                  onClick={() => {
                    ask(null);
                    void restoreVersion(shell.session, version);
                  }}
                >
                  Restore
                </button>
                <button type="button" class="button" onClick={() => ask(null)}>
                  Cancel
                </button>
              </div>
            )}
            {open?.id === version.id && (
              <ul class="plain version-files">
                {open.files.length === 0 && <li class="quiet">No files were there.</li>}
                {open.files
                  .filter((file) => file.kind !== "folder")
                  .map((file) => (
                    <li key={file.path}>
                      <a href={versionFile(shell.session, version.id, file.path)} download={file.path.split("/").pop() ?? ""}>
                        {file.path}
                      </a>
                    </li>
                  ))}
              </ul>
            )}
          </li>
        ))}
      </ul>
    </div>
  );
}
