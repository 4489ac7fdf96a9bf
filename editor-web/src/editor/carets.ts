// The carets and selections of the others, and one's own sent to them.
//
// A caret carries its person's name on a flag that shows for 2 s after each move of theirs (an animation, no timers) and
// while one hovers, taps or focuses it. Colours come from the server's palette through the awareness state.
import { Annotation, type Extension, type Range } from "@codemirror/state";
import { Decoration, type DecorationSet, EditorView, ViewPlugin, type ViewUpdate, WidgetType } from "@codemirror/view";
import type { YSyncConfig } from "y-codemirror.next";
import type { Awareness } from "y-protocols/awareness";
import * as Y from "yjs";

const SHOW = 2000; // ms that a flag stays after a move
const EVERY = 50; // ms between two caret messages, and between two redraws

const refresh = Annotation.define<true>();

interface CaretState {
  user?: { name?: string; color?: string };
  cursor?: { anchor: unknown; head: unknown } | null;
}

export function remoteCarets(config: YSyncConfig, awareness: Awareness): Extension {
  const plugin = ViewPlugin.define((view) => new Carets(view, config, awareness), {
    decorations: (carets) => carets.decorations,
  });
  return [plugin, looks];
}

class Caret extends WidgetType {
  constructor(
    private readonly client: number,
    private readonly name: string,
    private readonly color: string,
    private readonly movedAt: number,
    private readonly below: boolean,
  ) {
    super();
  }

  override eq(other: Caret): boolean {
    return (
      other.client === this.client &&
      other.movedAt === this.movedAt &&
      other.name === this.name &&
      other.color === this.color &&
      other.below === this.below
    );
  }

  toDOM(): HTMLElement {
    const caret = document.createElement("span");
    caret.className = this.below ? "cm-person cm-person-below" : "cm-person";
    caret.style.setProperty("--person", this.color);
    caret.style.setProperty("--since", `${Math.max(-SHOW, this.movedAt - Date.now())}ms`);
    caret.tabIndex = -1;
    caret.setAttribute("aria-hidden", "true"); // the list of people says who is where
    const flag = document.createElement("span");
    flag.className = "cm-person-name";
    flag.textContent = this.name;
    // Word joiners keep the caret from becoming a place where the line may break.
    caret.append("\u2060", flag, "\u2060");
    caret.addEventListener("pointerdown", () => {
      caret.classList.remove("cm-person-tapped");
      void caret.offsetWidth; // starts the animation anew
      caret.classList.add("cm-person-tapped");
    });
    return caret;
  }

  override updateDOM(): boolean {
    return false;
  }

  override ignoreEvent(): boolean {
    return false;
  }

  override get estimatedHeight(): number {
    return -1;
  }
}

class Carets {
  decorations: DecorationSet = Decoration.none;
  private readonly moves = new Map<number, { key: string; at: number }>();
  private redraw: ReturnType<typeof setTimeout> | undefined;
  private publishing: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly view: EditorView,
    private readonly config: YSyncConfig,
    private readonly awareness: Awareness,
  ) {
    awareness.on("change", this.onChange);
    this.draw(0);
    this.publish();
  }

  update(update: ViewUpdate): void {
    const asked = update.transactions.some((transaction) => transaction.annotation(refresh) === true);
    if (asked) this.draw(Date.now());
    else if (update.docChanged) this.decorations = this.decorations.map(update.changes);
    if (update.selectionSet || update.focusChanged || update.docChanged) this.publish();
  }

  destroy(): void {
    clearTimeout(this.redraw);
    clearTimeout(this.publishing);
    this.awareness.off("change", this.onChange);
    this.awareness.setLocalStateField("cursor", null);
  }

  private readonly onChange = (_changes: unknown, origin: unknown): void => {
    if (origin === "local") return;
    this.redraw ??= setTimeout(() => {
      this.redraw = undefined;
      this.view.dispatch({ annotations: refresh.of(true) });
    }, EVERY);
  };

  private publish(): void {
    this.publishing ??= setTimeout(() => {
      this.publishing = undefined;
      const { anchor, head } = this.view.state.selection.main;
      const cursor = { anchor: this.encode(anchor), head: this.encode(head) };
      const old = this.awareness.getLocalState()?.["cursor"] as unknown;
      if (JSON.stringify(old) !== JSON.stringify(cursor)) this.awareness.setLocalStateField("cursor", cursor);
    }, EVERY);
  }

  private encode(position: number): unknown {
    return Y.relativePositionToJSON(Y.createRelativePositionFromTypeIndex(this.config.ytext, position));
  }

  private draw(now: number): void {
    const ranges: Range<Decoration>[] = [];
    const states = this.awareness.getStates() as Map<number, CaretState>;
    for (const client of this.moves.keys()) if (!states.has(client)) this.moves.delete(client);
    for (const [client, state] of states) {
      if (client === this.awareness.clientID || !state.cursor) continue;
      const place = this.place(state.cursor);
      if (place === null) continue;
      const color = /^#[0-9a-f]{3,8}$/i.test(state.user?.color ?? "") ? (state.user?.color as string) : "#767700";
      const key = JSON.stringify(state.cursor);
      let move = this.moves.get(client);
      if (move?.key !== key) this.moves.set(client, (move = { key, at: now }));
      const from = Math.min(place.anchor, place.head);
      const to = Math.max(place.anchor, place.head);
      if (from < to) {
        const style = `background-color: color-mix(in srgb, ${color} 25%, transparent)`;
        ranges.push(Decoration.mark({ attributes: { style }, class: "cm-person-selection" }).range(from, to));
      }
      const below = this.view.state.doc.lineAt(place.head).number === 1;
      const widget = new Caret(client, state.user?.name ?? "Somebody", color, move.at, below);
      ranges.push(Decoration.widget({ widget, side: place.head > place.anchor ? -1 : 1 }).range(place.head));
    }
    this.decorations = Decoration.set(ranges, true);
  }

  private place(cursor: { anchor: unknown; head: unknown }): { anchor: number; head: number } | null {
    try {
      const anchor = this.index(cursor.anchor);
      const head = this.index(cursor.head);
      return anchor === null || head === null ? null : { anchor, head };
    } catch {
      return null; // a peer may send anything as its cursor; it concerns nothing but its own caret
    }
  }

  private index(json: unknown): number | null {
    const relative = Y.createRelativePositionFromJSON(json);
    const doc = this.config.ytext.doc;
    const absolute = doc === null ? null : Y.createAbsolutePositionFromRelativePosition(relative, doc);
    if (absolute === null || absolute.type !== this.config.ytext) return null;
    return Math.min(absolute.index, this.view.state.doc.length);
  }
}

const looks = EditorView.baseTheme({
  ".cm-person": {
    position: "relative",
    borderLeft: "2px solid var(--person)",
    marginLeft: "-1px",
    marginRight: "-1px",
    outline: "none",
  },
  // What one can hit with a finger or a pointer: a knob on top of the caret, not the text around it.
  ".cm-person::before": {
    content: '""',
    position: "absolute",
    top: "-4px",
    left: "-4px",
    width: "6px",
    height: "6px",
    borderRadius: "3px",
    background: "var(--person)",
  },
  "@media (pointer: coarse)": {
    ".cm-person::before": { boxShadow: "0 0 0 4px color-mix(in srgb, var(--person) 35%, transparent)" },
  },
  ".cm-person-name": {
    position: "absolute",
    bottom: "100%",
    left: "-2px",
    zIndex: "5",
    padding: "0 4px",
    borderRadius: "3px 3px 3px 0",
    background: "var(--person)",
    color: "#fff",
    font: "600 11px/16px system-ui, sans-serif",
    whiteSpace: "nowrap",
    pointerEvents: "none",
    userSelect: "none",
    opacity: "0",
    visibility: "hidden",
    animation: `cm-person-show ${SHOW}ms var(--since) 1`,
  },
  ".cm-person-below .cm-person-name": { bottom: "auto", top: "100%", borderRadius: "0 3px 3px 3px" },
  ".cm-person-tapped .cm-person-name": { animation: `cm-person-tap ${SHOW}ms 1` },
  ".cm-person:hover .cm-person-name, .cm-person:focus .cm-person-name": { opacity: "1", visibility: "visible" },
  "@keyframes cm-person-show": {
    "0%, 85%": { opacity: "1", visibility: "visible" },
    "100%": { opacity: "0", visibility: "visible" },
  },
  "@keyframes cm-person-tap": {
    "0%, 85%": { opacity: "1", visibility: "visible" },
    "100%": { opacity: "0", visibility: "visible" },
  },
});
