// Binds a view to a shared text: edits both ways, undo of one's own edits only, and the carets of the others.
import type { Extension } from "@codemirror/state";
import { EditorView, keymap, ViewPlugin, type ViewUpdate } from "@codemirror/view";
import { ySync, ySyncFacet, YSyncConfig } from "y-codemirror.next";
import type { Awareness } from "y-protocols/awareness";
import type * as Y from "yjs";

import { remoteCarets } from "./carets";

/** Edits that a person made in a view have an origin of this class: what an undo manager tracks. */
export const EditOrigin = YSyncConfig;

/** Undo stack items carry the selection from before their edit under this key. */
const SELECTION = "selection";

interface Spot {
  anchor: Y.RelativePosition;
  head: Y.RelativePosition;
}

export function collab(text: Y.Text, awareness: Awareness, undo: Y.UndoManager): Extension {
  const config = new YSyncConfig(text, awareness);
  return [ySyncFacet.of(config), selections(config, undo), ySync, undoKeys(config, undo), remoteCarets(config, awareness)];
}

/** Remembers where the caret was before each edit. Comes before `ySync`, which makes the edit. */
function selections(config: YSyncConfig, undo: Y.UndoManager): Extension {
  return ViewPlugin.define((view) => {
    let before = spot(config, view);
    const onAdded = (event: { stackItem: { meta: Map<unknown, unknown> }; origin: unknown }): void => {
      if (event.origin === config) event.stackItem.meta.set(SELECTION, before);
    };
    undo.on("stack-item-added", onAdded);
    return {
      update(update: ViewUpdate) {
        // The shared text still is the one before this edit, so the old selection fits it.
        if (update.selectionSet && !update.docChanged) before = spot(config, update.view);
      },
      destroy: () => undo.off("stack-item-added", onAdded),
    };
  });
}

function spot(config: YSyncConfig, view: EditorView): Spot | null {
  const { anchor, head } = view.state.selection.main;
  if (Math.max(anchor, head) > config.ytext.length) return null;
  return { anchor: config.toYPos(anchor), head: config.toYPos(head) };
}

function undoKeys(config: YSyncConfig, undo: Y.UndoManager): Extension {
  const step = (view: EditorView, direction: "undo" | "redo"): boolean => {
    if (view.state.readOnly) return true;
    const item = undo[direction]();
    const place = item?.meta.get(SELECTION) as Spot | null | undefined;
    if (direction === "undo" && place) {
      const selection = { anchor: config.fromYPos(place.anchor).pos, head: config.fromYPos(place.head).pos };
      view.dispatch({ selection });
    }
    if (item !== null) view.dispatch({ scrollIntoView: true, userEvent: direction });
    return true;
  };
  const back = (view: EditorView): boolean => step(view, "undo");
  const forth = (view: EditorView): boolean => step(view, "redo");
  return [
    keymap.of([
      { key: "Mod-z", run: back, preventDefault: true },
      { key: "Mod-y", mac: "Mod-Shift-z", run: forth, preventDefault: true },
      { key: "Mod-Shift-z", run: forth, preventDefault: true },
    ]),
    EditorView.domEventHandlers({
      beforeinput(event, view) {
        if (event.inputType === "historyUndo") return back(view);
        if (event.inputType === "historyRedo") return forth(view);
        return false;
      },
    }),
  ];
}
