// Whether the session's programs reach the internet: what that means in a sentence, who switched it on, and the switch.
import { useState } from "preact/hooks";

import type { Shell } from "../model/shell";
import { Dialog } from "./Dialog";

export function Internet({ shell }: { shell: Shell }) {
  const { egress, role } = shell.workspace.session.value;
  const [wanted, want] = useState<boolean | null>(null); // until the server has answered
  const guest = shell.boot.me.kind === "guest";
  const owner = role === "owner";
  const change = async (on: boolean): Promise<void> => {
    want(on);
    await shell.changeEgress(on);
    want(null);
  };
  return (
    <Dialog shell={shell} title="Internet">
      <p>
        Programs of this session reach {egress.on ? "websites" : "nothing outside of it"}
        {egress.on ? ", and whoever may run them here can send data out." : "."}
      </p>
      <label class="switch-row">
        <input
          type="checkbox"
          role="switch"
          checked={wanted ?? egress.on}
          disabled={!owner || (!egress.on && (!egress.allowed || guest))}
          onChange={(event) => void change(event.currentTarget.checked)}
        />
        <span>
          Let programs reach the internet
          <span class="quiet">Public websites over HTTP and HTTPS, in runs, terminals and cells that start from now on.</span>
        </span>
      </label>
      <p class="quiet">{reason(shell, guest, owner)}</p>
    </Dialog>
  );
}

/** Why the switch is as it is, and what to do about it. */
function reason({ workspace }: Shell, guest: boolean, owner: boolean) {
  const { egress } = workspace.session.value;
  if (!egress.allowed) return "Whoever runs this server has not allowed it (ATELIER_EGRESS).";
  if (egress.on) {
    const since = egress.at == null ? "" : `, ${new Date(egress.at).toLocaleString()}`;
    return `Switched on by ${egress.by ?? "somebody"}${since}. Programs that run keep it until they end.`;
  }
  if (!owner) return "An owner of the session can switch it on.";
  if (!guest) return "Everyone here will see that it is on, and that it was you.";
  return (
    <>
      A guest cannot switch it on. <a href="/signup">Make an account</a>; your sessions stay yours.
    </>
  );
}
