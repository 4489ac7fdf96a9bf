// The keys of the editor. Keys of the whole application (palette, quick open, run, save, sidebar, search in files) are
// never bound here, so that they reach the shell.
import {
  copyLineDown,
  copyLineUp,
  cursorMatchingBracket,
  deleteLine,
  indentLess,
  indentMore,
  indentSelection,
  moveLineDown,
  moveLineUp,
  selectLine,
  simplifySelection,
  standardKeymap,
  toggleBlockComment,
  toggleComment,
} from "@codemirror/commands";
import { foldKeymap } from "@codemirror/language";
import { type Extension, Prec } from "@codemirror/state";
import { type KeyBinding, keymap } from "@codemirror/view";

/** What belongs to the shell (or the browser) whatever a key map of a library says. */
export const RESERVED: ReadonlySet<string> = new Set([
  "F1",
  "Mod-Shift-p",
  "Mod-p",
  "Mod-s",
  "Mod-Enter",
  "Mod-b",
  "Mod-Shift-f",
  "Mod-`",
  "Ctrl-`",
  "Mod-w",
  "Mod-n",
  "Mod-t",
]);

const own: readonly KeyBinding[] = [
  // Escape, then Tab leaves the editor: CodeMirror lets Tab go for 2 s after Escape.
  { key: "Tab", run: indentMore, shift: indentLess },
  { key: "Escape", run: simplifySelection },
  { key: "Mod-/", run: toggleComment },
  { key: "Alt-A", run: toggleBlockComment },
  { key: "Mod-]", run: indentMore },
  { key: "Mod-[", run: indentLess },
  { key: "Mod-Alt-\\", run: indentSelection },
  { key: "Alt-ArrowUp", run: moveLineUp },
  { key: "Alt-ArrowDown", run: moveLineDown },
  { key: "Shift-Alt-ArrowUp", run: copyLineUp },
  { key: "Shift-Alt-ArrowDown", run: copyLineDown },
  { key: "Shift-Mod-k", run: deleteLine },
  { key: "Shift-Mod-\\", run: cursorMatchingBracket },
  { key: "Alt-l", mac: "Ctrl-l", run: selectLine },
];

/** All bindings, without those of the shell. */
export const bindings: readonly KeyBinding[] = [...own, ...foldKeymap, ...standardKeymap].filter(
  (binding) => ![binding.key, binding.mac, binding.win, binding.linux].some((key) => key !== undefined && RESERVED.has(key)),
);

export function keys(): Extension {
  return Prec.low(keymap.of(bindings));
}
