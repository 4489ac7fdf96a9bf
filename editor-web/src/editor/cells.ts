// Cells of a Python file: what lies between lines that begin with `# %%`. Each such line gets a button that runs its cell;
// Shift+Enter runs the cell, or the selection, and goes on to the next.
import { type EditorState, type Extension, Prec, type Range, StateEffect, StateField, type Text } from "@codemirror/state";
import { Decoration, type DecorationSet, EditorView, keymap, WidgetType } from "@codemirror/view";

export interface CodeCell {
  from: number;
  to: number;
  line: number; // 1-based, of its first line
  code: string;
}

type Runner = (cells: readonly CodeCell[]) => void;

/** As VS Code, Spyder and Jupytext have it. */
const MARKER = /^#\s*%%/;
const TEXT_CELL = /^#\s*%%.*\[(markdown|raw|md)\]/i;

const setRunner = StateEffect.define<Runner | null>();

const runner = StateField.define<Runner | null>({
  create: () => null,
  update: (value, transaction) => transaction.effects.reduce((found, effect) => (effect.is(setRunner) ? effect.value : found), value),
});

/** All cells, also what stands before the first marker; those without code are left out. */
export function cellsOf(doc: Text): CodeCell[] {
  const starts: { from: number; line: number; text: boolean }[] = [{ from: 0, line: 1, text: false }];
  const lines = doc.iterLines();
  let number = 0;
  let from = 0;
  for (const line of lines) {
    number++;
    if (MARKER.test(line)) starts.push({ from, line: number, text: TEXT_CELL.test(line) });
    from += line.length + 1;
  }
  return starts
    .map(({ from, line, text }, index) => {
      const to = Math.max(from, (starts[index + 1]?.from ?? doc.length + 1) - 1);
      return { from, to, line, text, code: doc.sliceString(from, to) };
    })
    .filter(({ code, text }) => !text && code.split("\n").some((line) => line.trim() !== "" && !line.trimStart().startsWith("#")))
    .map(({ from, to, line, code }) => ({ from, to, line, code: code.trimEnd() }));
}

class RunButton extends WidgetType {
  override eq(): boolean {
    return true;
  }

  toDOM(view: EditorView): HTMLElement {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "cm-run-cell";
    button.textContent = "Run cell";
    button.title = "Run this cell (Shift+Enter)";
    button.onmousedown = (event) => event.preventDefault(); // the cursor stays where it is
    button.onclick = () => {
      const at = view.posAtDOM(button);
      const cell = cellsOf(view.state.doc).find(({ from, to }) => from <= at && at <= to);
      if (cell !== undefined) view.state.field(runner)?.([cell]);
    };
    return button;
  }

  override ignoreEvent(): boolean {
    return true;
  }
}

const marker = Decoration.line({ class: "cm-cell-line" });
const button = Decoration.widget({ widget: new RunButton(), side: 1 });

function decorate(state: EditorState): DecorationSet {
  if (state.field(runner) === null) return Decoration.none;
  const ranges: Range<Decoration>[] = [];
  let from = 0;
  for (const line of state.doc.iterLines()) {
    if (MARKER.test(line)) {
      ranges.push(marker.range(from));
      if (!TEXT_CELL.test(line)) ranges.push(button.range(from + line.length));
    }
    from += line.length + 1;
  }
  return Decoration.set(ranges);
}

/** Whether an edit may have made, changed or removed a marker: only then all lines are looked at. */
const field = StateField.define<DecorationSet>({
  create: decorate,
  update(value, transaction) {
    const offered = transaction.effects.some((effect) => effect.is(setRunner));
    if (offered) return decorate(transaction.state);
    if (!transaction.docChanged) return value;
    let touched = false;
    transaction.changes.iterChangedRanges((fromA, toA, fromB, toB) => {
      const { doc } = transaction.state;
      const now = doc.sliceString(doc.lineAt(fromB).from, doc.lineAt(toB).to);
      const before = transaction.startState.doc;
      const was = before.sliceString(before.lineAt(fromA).from, before.lineAt(toA).to);
      touched ||= now.includes("%%") || was.includes("%%");
    });
    return touched ? decorate(transaction.state) : value.map(transaction.changes);
  },
  provide: (self) => EditorView.decorations.from(self),
});

const looks = EditorView.baseTheme({
  ".cm-cell-line": { boxShadow: "inset 0 1px 0 var(--line)", fontWeight: "600" },
  ".cm-run-cell": {
    marginLeft: "12px",
    padding: "0 8px",
    font: "500 12px/18px var(--font)",
    color: "var(--accent)",
    background: "transparent",
    border: "1px solid var(--line)",
    borderRadius: "4px",
    cursor: "pointer",
    verticalAlign: "1px",
  },
  ".cm-run-cell:hover": { background: "var(--hover)" },
  // A finger hits it beside its edges too; the line stays as high as any.
  "@media (pointer: coarse)": {
    ".cm-run-cell": { position: "relative" },
    ".cm-run-cell::after": { content: '""', position: "absolute", inset: "-10px -8px" },
  },
});

export function cells(): Extension {
  return [
    runner,
    field,
    looks,
    Prec.high(keymap.of([{ key: "Shift-Enter", run: (view) => runCellAt(view, true) }])),
  ];
}

/** Says who runs a view's cells; null: nobody may, and none are offered. */
export function offerCells(view: EditorView, run: Runner | null): void {
  if (run !== null || view.state.field(runner) !== null) view.dispatch({ effects: setRunner.of(run) });
}

export function hasCells(view: EditorView): boolean {
  return view.state.field(field).size > 0;
}

/** Runs what is selected, else the cell that the cursor is in; says whether there was anything to run. */
export function runCellAt(view: EditorView, goOn: boolean): boolean {
  const run = view.state.field(runner);
  if (run === null) return false;
  const { doc, selection } = view.state;
  const { from, to, empty, head } = selection.main;
  if (!empty) {
    const first = doc.lineAt(from);
    const code = doc.sliceString(from, to);
    if (code.trim() === "") return false;
    // Part of a line, or of an indented block, is taken as it is meant: without the block's indentation.
    const whole = first.text.slice(0, from - first.from).trim() === "" ? doc.sliceString(first.from, to) : code;
    run([{ from, to, line: first.number, code: dedent(whole) }]);
    return true;
  }
  if (!hasCells(view)) return false;
  const all = cellsOf(doc);
  const at = all.findIndex((cell) => cell.from <= head && head <= cell.to);
  const cell = all[at];
  if (cell === undefined) return false;
  run([cell]);
  const next = all[at + 1];
  if (goOn && next !== undefined) {
    const place = doc.line(Math.min(doc.lineAt(next.from).number + (MARKER.test(doc.lineAt(next.from).text) ? 1 : 0), doc.lines));
    view.dispatch({ selection: { anchor: place.from }, effects: EditorView.scrollIntoView(next.from, { y: "nearest", yMargin: 40 }) });
  }
  return true;
}

export function runAllCells(view: EditorView): void {
  const all = cellsOf(view.state.doc);
  if (all.length > 0) view.state.field(runner)?.(all);
}

function dedent(code: string): string {
  const lines = code.split("\n");
  const indents = lines.filter((line) => line.trim() !== "").map((line) => /^[ \t]*/.exec(line)?.[0].length ?? 0);
  const least = Math.min(...indents);
  return lines.map((line) => line.slice(Math.min(least, line.length))).join("\n");
}
