// Following a person: open what they look at, keep their caret in sight, stop when they leave or one acts oneself.
import { EditorView } from "@codemirror/view";
import { effect, type ReadonlySignal, type Signal } from "@preact/signals";
import type { Awareness } from "y-protocols/awareness";
import * as Y from "yjs";

import type { SyncedDocument } from "../sync/document";
import type { Person, ShellHooks } from "./types";

export interface FollowOptions {
  following: Signal<string | null>;
  people: ReadonlySignal<readonly Person[]>;
  /** The document that this tab shows. */
  shown: ReadonlySignal<string | null>;
  hooks: ShellHooks;
}

export class Follower {
  private readonly views = new Map<EditorView, SyncedDocument>();
  private readonly stop: () => void;
  private asked: string | null = null; // the document that the shell was last asked to open
  private name = "";

  constructor(private readonly options: FollowOptions) {
    this.stop = effect(() => this.follow());
  }

  /** Lets a view scroll with the followed person; returns the function that ends it. */
  watch(view: EditorView, document: SyncedDocument): () => void {
    this.views.set(view, document);
    const onChange = (): void => this.scroll(view, document);
    document.awareness.on("change", onChange);
    onChange();
    return () => {
      document.awareness.off("change", onChange);
      this.views.delete(view);
    };
  }

  end(): void {
    if (this.options.following.peek() !== null) this.options.following.value = null;
  }

  destroy(): void {
    this.stop();
  }

  private follow(): void {
    const { following, people, hooks } = this.options;
    const key = following.value;
    if (key === null) {
      this.asked = null;
      return;
    }
    const person = people.value.find((candidate) => candidate.key === key);
    if (person === undefined || person.me) {
      following.value = null;
      if (person === undefined && this.name !== "") hooks.notify(`${this.name} left, so you no longer follow.`);
      return;
    }
    this.name = person.name;
    if (person.documentId !== null && person.documentId !== this.asked) {
      this.asked = person.documentId;
      if (person.documentId !== this.options.shown.peek()) hooks.openDocument(person.documentId);
    }
    for (const [view, document] of this.views) this.scroll(view, document);
  }

  private scroll(view: EditorView, document: SyncedDocument): void {
    const key = this.options.following.peek();
    if (key === null) return;
    const head = this.headOf(document, Number(key));
    if (head === null) return;
    const position = Math.min(head, view.state.doc.length);
    // Not inside the update of the view that this may be called from.
    queueMicrotask(() => {
      if (this.views.has(view)) {
        view.dispatch({ effects: EditorView.scrollIntoView(position, { y: "nearest", yMargin: 80 }) });
      }
    });
  }

  private headOf(document: SyncedDocument, client: number): number | null {
    const cursor = cursorOf(document.awareness, client, this.options.people.peek());
    if (cursor === null) return null;
    try {
      const relative = Y.createRelativePositionFromJSON(cursor);
      return Y.createAbsolutePositionFromRelativePosition(relative, document.doc)?.index ?? null;
    } catch {
      return null; // a peer may send anything as its cursor
    }
  }
}

/** A tab has one client id in all documents, or, where it opened one twice, at least one person. */
function cursorOf(awareness: Awareness, client: number, people: readonly Person[]): unknown {
  type State = { user?: { id?: string }; cursor?: { head: unknown } | null };
  const states = awareness.getStates() as Map<number, State>;
  const direct = states.get(client);
  if (direct?.cursor) return direct.cursor.head;
  const person = people.find((candidate) => candidate.key === String(client));
  for (const [other, state] of states) {
    if (other !== awareness.clientID && state.cursor && state.user?.id === person?.id) return state.cursor.head;
  }
  return null;
}
