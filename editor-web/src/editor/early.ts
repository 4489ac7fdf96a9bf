// What somebody types into the text that the page came with, before the document is there: kept, and made again in it.
import { ChangeSet, type EditorState, type Extension } from "@codemirror/state";
import { EditorView } from "@codemirror/view";

export class Early {
  private made: ChangeSet | null = null;
  readonly extension: Extension;

  /** `onTyped` is called with each edit. */
  constructor(onTyped: () => void) {
    this.extension = EditorView.updateListener.of((update) => {
      if (!update.docChanged) return;
      this.made = this.made === null ? update.changes : this.made.compose(update.changes);
      onTyped();
    });
  }

  /** Shows `text`, which `first` is or has become meanwhile; returns what makes the edits again there, once it is bound. */
  settle(view: EditorView, first: string, text: string): () => void {
    const { made } = this;
    const before = view.state.selection;
    replaceText(view, text);
    if (made === null) return () => undefined;
    const arrived = ChangeSet.of(middle(view.state, first, text) ?? [], made.length);
    return () =>
      view.dispatch({ changes: made.map(arrived), selection: before.map(arrived.map(made, true)), userEvent: "input.type" });
  }
}

/** Makes the view's text equal `text` with one change in the middle, so that scroll and selection stay. */
export function replaceText(view: EditorView, text: string): void {
  const changes = middle(view.state, view.state.doc.toString(), text);
  if (changes !== null) view.dispatch({ changes, filter: false });
}

function middle(state: EditorState, old: string, text: string) {
  if (old === text) return null;
  const shorter = Math.min(old.length, text.length);
  let from = 0;
  while (from < shorter && old.charCodeAt(from) === text.charCodeAt(from)) from++;
  let tail = 0;
  while (tail < shorter - from && old.charCodeAt(old.length - 1 - tail) === text.charCodeAt(text.length - 1 - tail)) tail++;
  return { from, to: old.length - tail, insert: state.toText(text.slice(from, text.length - tail)) };
}
