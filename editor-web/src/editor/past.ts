// A text of the past, read-only, with the lines that differ: what came is tinted, what went stands between, struck out.
import { EditorState, type Range, StateEffect, StateField } from "@codemirror/state";
import { Decoration, type DecorationSet, EditorView, lineNumbers, WidgetType } from "@codemirror/view";

import type { Shown } from "../model/past";
import { languageFor } from "./language";
import { theme } from "./theme";

const setMarks = StateEffect.define<DecorationSet>();
const marks = StateField.define<DecorationSet>({
  create: () => Decoration.none,
  update(value, transaction) {
    let next = value.map(transaction.changes);
    for (const effect of transaction.effects) if (effect.is(setMarks)) next = effect.value;
    return next;
  },
  provide: (field) => EditorView.decorations.from(field),
});

class Gone extends WidgetType {
  constructor(
    private readonly lines: readonly string[],
    private readonly kind: string,
    private readonly words: string,
  ) {
    super();
  }
  override eq(other: Gone): boolean {
    return other.kind === this.kind && other.lines.join("\n") === this.lines.join("\n");
  }
  override toDOM(): HTMLElement {
    const block = document.createElement("div");
    block.className = `past-lines ${this.kind}`;
    block.setAttribute("role", "note");
    block.setAttribute("aria-label", this.words);
    block.textContent = this.lines.join("\n") || " ";
    return block;
  }
}

export interface PastView {
  show(shown: Shown): void;
  destroy(): void;
}

export function pastView(parent: HTMLElement, path: string): PastView {
  const view = new EditorView({
    parent,
    state: EditorState.create({
      extensions: [
        EditorState.lineSeparator.of("\n"),
        EditorState.readOnly.of(true),
        EditorView.editable.of(false),
        EditorView.contentAttributes.of({ "aria-label": `${path}, as it was`, tabindex: "0" }),
        EditorView.lineWrapping,
        lineNumbers(),
        marks,
        theme(),
      ],
    }),
  });
  languageFor(path).then(
    (language) => view.dispatch({ effects: StateEffect.appendConfig.of(language) }),
    () => undefined,
  );
  return {
    show(shown) {
      replace(view, shown.text);
      const { set, first } = decorated(view.state, shown);
      const effects: StateEffect<unknown>[] = [setMarks.of(set)];
      if (first !== null) effects.push(EditorView.scrollIntoView(first, { y: shown.fresh === null ? "center" : "nearest", yMargin: 60 }));
      view.dispatch({ effects });
    },
    destroy: () => view.destroy(),
  };
}

/** One change in the middle, so that the place one looks at stays. */
function replace(view: EditorView, text: string): void {
  const old = view.state.doc.toString();
  if (old === text) return;
  const shorter = Math.min(old.length, text.length);
  let from = 0;
  while (from < shorter && old.charCodeAt(from) === text.charCodeAt(from)) from++;
  let tail = 0;
  while (tail < shorter - from && old.charCodeAt(old.length - 1 - tail) === text.charCodeAt(text.length - 1 - tail)) tail++;
  view.dispatch({ changes: { from, to: old.length - tail, insert: text.slice(from, text.length - tail) } });
}

function decorated(state: EditorState, shown: Shown): { set: DecorationSet; first: number | null } {
  const ranges: Range<Decoration>[] = [];
  let first: number | null = null;
  if (shown.fresh !== null) {
    const from = Math.min(shown.fresh.from, state.doc.length);
    const to = Math.min(shown.fresh.to, state.doc.length);
    first = from;
    if (to > from) ranges.push(Decoration.mark({ class: "past-fresh" }).range(from, to));
  }
  // Against "before" this text is the new side of the comparison; against "now" it is the old one.
  const [here, other, tint] = shown.against === "before" ? ["added", "removed", "past-added"] : ["removed", "added", "past-leaves"];
  for (const hunk of shown.hunks) {
    let line = shown.against === "before" ? hunk.new_line : hunk.old_line;
    let absent: string[] = [];
    const flush = (): void => {
      if (absent.length === 0) return;
      const at = line > state.doc.lines ? state.doc.length : state.doc.line(Math.max(1, line)).from;
      const words = shown.against === "before" ? "Removed here" : "Added here since";
      const widget = new Gone(absent, shown.against === "before" ? "past-removed" : "past-comes", words);
      ranges.push(Decoration.widget({ widget, block: true, side: line > state.doc.lines ? 1 : -1 }).range(at));
      first ??= at;
      absent = [];
    };
    for (const { kind, text } of hunk.lines) {
      if (kind === other) {
        absent.push(text);
        continue;
      }
      flush();
      if (line > state.doc.lines) break;
      if (kind === here) {
        const from = state.doc.line(line).from;
        ranges.push(Decoration.line({ class: tint as string }).range(from));
        first ??= from;
      }
      line += 1;
    }
    flush();
  }
  return { set: Decoration.set(ranges, true), first };
}
