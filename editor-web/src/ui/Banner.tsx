// A line at the top edge when something is not as usual; never over the text.
import type { Shell } from "../model/shell";

export function Banner({ shell }: { shell: Shell }) {
  const status = shell.workspace.status.value;
  if (status.kind !== "readonly" || (status.refused === 0 && !shell.accessLost.value)) return null;
  return (
    <div class="banner" role="alert">
      <span>
        {status.reason} {status.refused > 0 && `${status.refused} of your changes are kept on this device.`}
      </span>
      <button type="button" class="button" onClick={() => void shell.keepCopy()}>
        Keep a copy
      </button>
    </div>
  );
}
