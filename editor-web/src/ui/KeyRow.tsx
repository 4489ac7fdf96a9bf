// Keys that a phone's keyboard lacks, above it while one types.
import { indentMore } from "@codemirror/commands";
import type { EditorView } from "@codemirror/view";
import { useEffect, useLayoutEffect, useState } from "preact/hooks";

import type { Shell } from "../model/shell";

const TEXT_KEYS = ["(", ")", "[", "]", "{", "}", '"', "'", ":", "=", "/", "_"];

export function KeyRow({ shell }: { shell: Shell }) {
  const [typing, setTyping] = useState(false);
  useEffect(() => {
    const look = (): void => setTyping(document.activeElement?.closest(".cm-content") != null && matchMedia("(pointer: coarse)").matches);
    document.addEventListener("focusin", look);
    document.addEventListener("focusout", () => setTimeout(look));
    return () => document.removeEventListener("focusin", look);
  }, []);
  // Ctrl stays down for one key: the next character that the phone's keyboard gives is a shortcut.
  const [held, setHeld] = useState(false);
  useLayoutEffect(() => {
    if (!held) return;
    const take = (event: InputEvent): void => {
      const key = event.data ?? "";
      if (key.length !== 1 || (event.target as Element).closest?.(".cm-content") == null) return;
      event.preventDefault();
      event.stopPropagation();
      setHeld(false);
      const code = /[a-z]/i.test(key) ? `Key${key.toUpperCase()}` : "";
      event.target?.dispatchEvent(new KeyboardEvent("keydown", { key: key.toLowerCase(), code, ctrlKey: true, bubbles: true, cancelable: true }));
    };
    document.addEventListener("beforeinput", take, true);
    return () => document.removeEventListener("beforeinput", take, true);
  }, [held]);
  if (!typing) return null;
  const view = (): EditorView | undefined => shell.editors.get(shell.layout.focused.peek())?.handle.view;
  const press = (key: string): void => {
    const target = view();
    if (target === undefined) return;
    if (key === "Tab") indentMore(target);
    else if (TEXT_KEYS.includes(key)) target.dispatch(target.state.replaceSelection(key), { userEvent: "input.type", scrollIntoView: true });
    else target.contentDOM.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  };
  const move = (key: "ArrowLeft" | "ArrowRight" | "ArrowUp" | "ArrowDown"): void => {
    const target = view();
    if (target === undefined) return;
    const range = target.state.selection.main;
    const next = key === "ArrowLeft" || key === "ArrowRight" ? target.moveByChar(range, key === "ArrowRight") : target.moveVertically(range, key === "ArrowDown");
    target.dispatch({ selection: { anchor: next.head }, scrollIntoView: true });
  };
  // A press must not take the focus from the text, or the keyboard would go.
  const hold = (event: Event): void => event.preventDefault();
  return (
    <div class="key-row" role="toolbar" aria-label="Keys" onPointerDown={hold} onMouseDown={hold}>
      <button type="button" onClick={() => press("Tab")}>Tab</button>
      <button type="button" onClick={() => press("Escape")}>Esc</button>
      <button type="button" aria-pressed={held} onClick={() => setHeld(!held)}>Ctrl</button>
      <button type="button" aria-label="Undo" onClick={() => view()?.contentDOM.dispatchEvent(new KeyboardEvent("keydown", { key: "z", code: "KeyZ", ctrlKey: true, bubbles: true, cancelable: true }))}>↶</button>
      <button type="button" aria-label="Left" onClick={() => move("ArrowLeft")}>←</button>
      <button type="button" aria-label="Up" onClick={() => move("ArrowUp")}>↑</button>
      <button type="button" aria-label="Down" onClick={() => move("ArrowDown")}>↓</button>
      <button type="button" aria-label="Right" onClick={() => move("ArrowRight")}>→</button>
      {TEXT_KEYS.map((key) => (
        <button key={key} type="button" onClick={() => press(key)}>
          {key}
        </button>
      ))}
    </div>
  );
}
