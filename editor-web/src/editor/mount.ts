// Builds a view for a document and keeps it true: text when it is there, name, language and rights as they change.
import { EditorState } from "@codemirror/state";
import { EditorView } from "@codemirror/view";
import { effect, signal, type ReadonlySignal } from "@preact/signals";
import type * as Y from "yjs";

import type { EditorHandle } from "../model/types";
import type { SyncedDocument } from "../sync/document";
import { collab } from "./collab";
import { Early } from "./early";
import { access, extensions, labelled, newSlots, type Slots } from "./extensions";
import { languageFor } from "./language";

export interface MountOptions {
  document: SyncedDocument;
  /** Called once the document is ready. */
  undo(): Y.UndoManager;
  path: ReadonlySignal<string>;
  editable: ReadonlySignal<boolean>;
  /** The text that the page came with, shown until the document is there; what is typed into it is made again then. */
  firstText: string | null;
  textBytes: number;
  onOwnAction(): void;
  onTooLarge(): void;
  onReady(view: EditorView): void;
  onDestroy(): void;
}

const matches = (query: string): boolean => typeof matchMedia === "function" && matchMedia(query).matches;

export function mount(parent: HTMLElement, options: MountOptions): EditorHandle {
  const slots = newSlots();
  const view = new EditorView({
    parent,
    state: EditorState.create({
      doc: EditorState.create({ extensions: EditorState.lineSeparator.of("\n") }).toText(options.firstText ?? ""),
      extensions: extensions(slots, {
        path: options.path.peek(),
        narrow: matches("(max-width: 720px)"),
        touch: matches("(pointer: coarse)"),
        textBytes: options.textBytes,
        onOwnAction: options.onOwnAction,
        onTooLarge: options.onTooLarge,
      }),
    }),
  });
  // Never an empty page that fills later: without a first text nothing is shown until the document is there.
  const waiting = !options.document.ready && options.firstText === null;
  if (waiting) view.dom.style.visibility = "hidden";
  view.dom.setAttribute("aria-busy", String(!options.document.ready));

  let alive = true;
  let wanted: { line: number; column: number } | null = null;
  const open = signal(!waiting);
  const stops: (() => void)[] = [
    effect(() => {
      const extension = access(options.editable.value && open.value);
      view.dispatch({ effects: slots.access.reconfigure(extension) });
    }),
  ];
  const early = new Early(() => options.document.early++);
  view.dispatch({ effects: slots.collab.reconfigure(early.extension) });

  const bind = (): void => {
    if (!alive) return;
    const text = options.document.text;
    const again = early.settle(view, options.firstText ?? "", text.toString());
    view.dispatch({ effects: slots.collab.reconfigure(collab(text, options.document.awareness, options.undo())) });
    again();
    options.document.early = 0;
    view.dom.style.visibility = "";
    view.dom.setAttribute("aria-busy", "false");
    open.value = true;
    if (wanted !== null) reveal(view, wanted.line, wanted.column);
    options.onReady(view);
  };

  stops.push(followPath(view, slots, options.path, () => alive));
  if (options.document.ready) bind();
  else void options.document.whenReady().then(bind);

  return {
    view,
    focus: () => view.focus(),
    reveal(line, column = 0) {
      if (options.document.ready) reveal(view, line, column);
      else wanted = { line, column };
    },
    destroy() {
      if (!alive) return;
      alive = false;
      for (const stop of stops) stop();
      view.destroy();
      options.onDestroy();
    },
  };
}

function reveal(view: EditorView, line: number, column: number): void {
  const place = view.state.doc.line(Math.max(1, Math.min(line, view.state.doc.lines)));
  const position = Math.min(place.from + Math.max(0, column), place.to);
  view.dispatch({
    selection: { anchor: position },
    effects: EditorView.scrollIntoView(position, { y: "center" }),
  });
}

function followPath(view: EditorView, slots: Slots, path: ReadonlySignal<string>, alive: () => boolean): () => void {
  let shown = "";
  return effect(() => {
    const name = path.value;
    if (name === shown) return;
    shown = name;
    view.dispatch({ effects: slots.label.reconfigure(labelled(name)) });
    languageFor(name).then(
      (language) => {
        if (alive() && shown === name) view.dispatch({ effects: slots.language.reconfigure(language) });
      },
      () => undefined, // the language's chunk cannot be had offline: the text stays plain
    );
  });
}
