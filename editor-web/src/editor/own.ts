// Tells when the person at this browser acts in a view (press, edit, Escape): that ends following somebody.
import type { Extension } from "@codemirror/state";
import { EditorView } from "@codemirror/view";

export function ownAction(onAction: () => void): Extension {
  return [
    EditorView.domEventHandlers({
      pointerdown: () => onAction(),
      keydown: (event) => {
        if (event.key === "Escape") onAction();
      },
    }),
    EditorView.updateListener.of((update) => {
      const typed = (kind: string): boolean => update.transactions.some((transaction) => transaction.isUserEvent(kind));
      if (update.docChanged && ["input", "delete", "move", "undo", "redo"].some(typed)) onAction();
    }),
  ];
}
