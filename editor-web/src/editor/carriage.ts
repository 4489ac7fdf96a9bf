// Files from Windows: the \r before a \n stays in the shared text, and the caret takes both for one line end.
import { EditorSelection, EditorState, type Extension, RangeSetBuilder, type Text } from "@codemirror/state";
import { Decoration, type DecorationSet, EditorView } from "@codemirror/view";

export function carriageReturns(): Extension {
  return [
    EditorView.atomicRanges.of(lineEnds),
    EditorState.transactionFilter.of((transaction) => {
      const selection = transaction.selection;
      if (selection === undefined) return transaction;
      const doc = transaction.newDoc;
      if (!selection.ranges.some((range) => between(doc, range.anchor) || between(doc, range.head))) return transaction;
      const out = (position: number): number => (between(doc, position) ? position - 1 : position);
      const ranges = selection.ranges.map((range) => EditorSelection.range(out(range.anchor), out(range.head)));
      return [transaction, { selection: EditorSelection.create(ranges, selection.mainIndex), sequential: true }];
    }),
  ];
}

const atom = Decoration.mark({});

/** The visible \r\n, and the one just before. */
function lineEnds(view: EditorView): DecorationSet {
  const builder = new RangeSetBuilder<Decoration>();
  const { doc } = view.state;
  const last = doc.lineAt(view.viewport.to).number;
  for (let n = Math.max(1, doc.lineAt(view.viewport.from).number - 1); n <= last && n < doc.lines; n++) {
    const line = doc.line(n);
    if (line.text.endsWith("\r")) builder.add(line.to - 1, line.to + 1, atom);
  }
  return builder.finish();
}

function between(doc: Text, position: number): boolean {
  return position > 0 && position < doc.length && doc.sliceString(position - 1, position + 1) === "\r\n";
}
