// Every extension of the editor: the one list.
import { bracketMatching, foldGutter, indentOnInput, indentUnit } from "@codemirror/language";
import { Compartment, EditorState, type Extension } from "@codemirror/state";
import {
  crosshairCursor,
  drawSelection,
  dropCursor,
  EditorView,
  highlightActiveLine,
  highlightActiveLineGutter,
  highlightSpecialChars,
  lineNumbers,
  rectangularSelection,
} from "@codemirror/view";

import { lazyAssist } from "./assist";
import { carriageReturns } from "./carriage";
import { cells } from "./cells";
import { keys } from "./keys";
import { runMarks } from "./marks";
import { ownAction } from "./own";
import { pasting } from "./paste";
import { lazySearch } from "./search";
import { theme } from "./theme";

/** What changes while a view lives; filled by `mount`. */
export interface Slots {
  collab: Compartment;
  language: Compartment;
  access: Compartment;
  label: Compartment;
}

export const newSlots = (): Slots => ({
  collab: new Compartment(),
  language: new Compartment(),
  access: new Compartment(),
  label: new Compartment(),
});

export interface Surroundings {
  path: string;
  /** A narrow screen wraps long lines; a finger keeps the system's own selection handles. */
  narrow: boolean;
  touch: boolean;
  /** Bytes of the largest text. */
  textBytes: number;
  onOwnAction(): void;
  onTooLarge(): void;
}

export function extensions(slots: Slots, around: Surroundings): Extension[] {
  return [
    slots.label.of(labelled(around.path)),
    slots.access.of(access(false)),
    slots.collab.of([]),
    slots.language.of([]),
    // A shared text is made of UTF-16 units: any other separator than \n would shift every position after a \r\n.
    EditorState.lineSeparator.of("\n"),
    carriageReturns(),
    EditorState.allowMultipleSelections.of(true),
    EditorState.tabSize.of(4),
    indentUnit.of(indentOf(around.path)),
    lineNumbers(),
    foldGutter(),
    highlightActiveLine(),
    highlightActiveLineGutter(),
    highlightSpecialChars({ specialChars: SPECIAL }),
    bracketMatching(),
    indentOnInput(),
    around.touch ? [] : [drawSelection(), dropCursor(), rectangularSelection(), crosshairCursor()],
    around.narrow ? EditorView.lineWrapping : [],
    EditorView.contentAttributes.of({ spellcheck: "false", autocorrect: "off", autocapitalize: "off", translate: "no", tabindex: "0" }),
    lazySearch(),
    lazyAssist(),
    runMarks(),
    cells(),
    pasting(around.textBytes, around.onTooLarge),
    ownAction(around.onOwnAction),
    keys(),
    theme(),
  ];
}

// CodeMirror's own set without \r, which ends the lines of files from Windows.
const SPECIAL = /[\u0000-\u0008\u000a-\u000c\u000e-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028\u2029\u202d\u202e\u2066\u2067\u2069\ufeff\ufff9-\ufffc]/g;

export function access(editable: boolean): Extension {
  if (editable) return EditorState.readOnly.of(false);
  return [EditorState.readOnly.of(true), EditorView.contentAttributes.of({ "aria-readonly": "true", inputmode: "none" })];
}

export function labelled(path: string): Extension {
  return EditorView.contentAttributes.of({ "aria-label": path });
}

function indentOf(path: string): string {
  if (/(^|\/)(Makefile|[^/]+\.(go|mk))$/.test(path)) return "\t";
  return /\.(py|pyi|sh|bash|rs|java|c|h|cpp|toml)$/.test(path) ? "    " : "  ";
}
