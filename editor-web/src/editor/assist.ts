// Completion and closing brackets: loaded with the first focus, because nobody completes before typing.
import { Compartment, type Extension } from "@codemirror/state";
import { EditorView, keymap } from "@codemirror/view";

const slot = new Compartment();

export function lazyAssist(): Extension {
  return [
    slot.of([]),
    EditorView.domEventHandlers({
      focus(_event, view) {
        const present = slot.get(view.state);
        if (view.state.readOnly || !Array.isArray(present) || present.length > 0) return;
        void import("@codemirror/autocomplete").then((assist) => {
          const extension = [
            assist.autocompletion({ icons: false, activateOnTypingDelay: 150 }),
            assist.closeBrackets(),
            keymap.of([...assist.closeBracketsKeymap, ...assist.completionKeymap]),
          ];
          view.dispatch({ effects: slot.reconfigure(extension) });
        });
      },
    }),
  ];
}
