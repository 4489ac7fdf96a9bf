// Keys that a phone's keyboard lacks, above it while one types.
import { indentMore } from "@codemirror/commands";
import type { EditorView } from "@codemirror/view";
import { useEffect, useLayoutEffect, useState } from "preact/hooks";

import type { Shell } from "../model/shell";

/** What a terminal is sent for keys that a phone lacks. */
const TERMINAL_KEYS: readonly (readonly [string, string, string?])[] = [
  ["Tab", "\t"], ["Esc", "\x1b"], ["↑", "\x1b[A", "Up"], ["↓", "\x1b[B", "Down"], ["←", "\x1b[D", "Left"], ["→", "\x1b[C", "Right"],
  ["^C", "\x03", "Interrupt"], ["|", "|"], ["~", "~"], ["/", "/"], ["-", "-"], ["_", "_"], ["$", "$"], ["*", "*"], ["\"", "\""], ["'", "'"],
];
const TEXT_KEYS = ["(", ")", "[", "]", "{", "}", '"', "'", ":", "=", "/", "_"];

export function KeyRow({ shell }: { shell: Shell }) {
  const [typing, setTyping] = useState<"text" | "terminal" | null>(null);
  useEffect(() => {
    const look = (): void => {
      const element = matchMedia("(pointer: coarse)").matches ? document.activeElement : null;
      setTyping(element?.closest(".cm-content") != null ? "text" : element?.closest("[data-terminal]") != null ? "terminal" : null);
    };
    document.addEventListener("focusin", look);
    document.addEventListener("focusout", () => setTimeout(look));
    return () => document.removeEventListener("focusin", look);
  }, []);
  // Ctrl stays down for one key: the next character that the phone's keyboard gives is a shortcut.
  const [held, setHeld] = useState(false);
  useLayoutEffect(() => {
    if (!held || typing !== "text") return;
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
  if (typing === null) return null;
  // A press must not take the focus from the text, or the keyboard would go.
  const hold = (event: Event): void => event.preventDefault();
  if (typing === "terminal") {
    const keyboard = shell.terminals.keyboard.value;
    const control = (down: boolean): void => {
      setHeld(down);
      keyboard?.control(down);
    };
    return (
      <div class="key-row" role="toolbar" aria-label="Keys" onPointerDown={hold} onMouseDown={hold}>
        <button type="button" aria-pressed={held} onClick={() => control(!held)}>Ctrl</button>
        {TERMINAL_KEYS.map(([label, keys, name]) => (
          <button key={label} type="button" aria-label={name ?? label} onClick={() => keyboard?.type(keys)}>
            {label}
          </button>
        ))}
      </div>
    );
  }
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
