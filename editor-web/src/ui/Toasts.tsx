// Messages in a corner, read out politely.
import { dismiss, toasts } from "../model/toasts";
import { IconButton } from "./icons";

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map((toast) => (
        <div key={toast.id} class={`toast ${toast.danger ? "toast-danger" : ""}`}>
          <span>{toast.text}</span>
          {toast.action !== undefined && (
            <button
              type="button"
              class="link"
              onClick={() => {
                toast.action?.run();
                dismiss(toast.id);
              }}
            >
              {toast.action.label}
            </button>
          )}
          <IconButton icon="close" label="Dismiss" onClick={() => dismiss(toast.id)} />
        </div>
      ))}
    </div>
  );
}
