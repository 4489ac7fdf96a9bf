// Marks on the lines where a run failed: a tint and the message behind the line, both gone when the line is edited.
import { type Extension, type Range, StateEffect, StateField } from "@codemirror/state";
import { Decoration, type DecorationSet, EditorView, WidgetType } from "@codemirror/view";

export interface LineMark {
  line: number; // 1-based; lines beyond the end are left out
  message: string;
}

const setMarks = StateEffect.define<readonly LineMark[]>();

class Message extends WidgetType {
  constructor(private readonly text: string) {
    super();
  }

  override eq(other: Message): boolean {
    return other.text === this.text;
  }

  toDOM(): HTMLElement {
    const span = document.createElement("span");
    span.className = "cm-run-message";
    span.setAttribute("role", "note");
    span.textContent = this.text;
    return span;
  }
}

const field = StateField.define<DecorationSet>({
  create: () => Decoration.none,
  update(marks, transaction) {
    let next = marks;
    if (transaction.docChanged) {
      const touched = new Set<number>();
      transaction.changes.iterChangedRanges((_fromA, _toA, fromB, toB) => {
        const doc = transaction.state.doc;
        for (let line = doc.lineAt(fromB).number; line <= doc.lineAt(toB).number; line++) touched.add(line);
      });
      next = marks.map(transaction.changes).update({
        filter: (from) => !touched.has(transaction.state.doc.lineAt(from).number),
      });
    }
    for (const effect of transaction.effects) {
      if (!effect.is(setMarks)) continue;
      const ranges: Range<Decoration>[] = [];
      for (const { line, message } of effect.value) {
        if (line < 1 || line > transaction.state.doc.lines) continue;
        const place = transaction.state.doc.line(line);
        ranges.push(Decoration.line({ class: "cm-run-line" }).range(place.from));
        if (message !== "") ranges.push(Decoration.widget({ widget: new Message(message), side: 1 }).range(place.to));
      }
      next = Decoration.set(ranges, true);
    }
    return next;
  },
  provide: (self) => EditorView.decorations.from(self),
});

const looks = EditorView.baseTheme({
  ".cm-run-line": { backgroundColor: "color-mix(in srgb, var(--danger) 12%, transparent) !important" },
  ".cm-run-message": { color: "var(--danger)", paddingLeft: "2em", fontSize: "0.9em", userSelect: "text" },
});

export function runMarks(): Extension {
  return [field, looks];
}

/** Replaces all marks of a view. */
export function markLines(view: EditorView, marks: readonly LineMark[]): void {
  view.dispatch({ effects: setMarks.of(marks) });
}

export function clearLines(view: EditorView): void {
  if (view.state.field(field).size > 0) view.dispatch({ effects: setMarks.of([]) });
}
