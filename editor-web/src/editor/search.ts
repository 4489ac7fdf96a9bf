// Find and replace inside a file, and selecting the next occurrence: loaded with the first such key.
import { Compartment, type Extension } from "@codemirror/state";
import { type Command, type EditorView, keymap } from "@codemirror/view";

type Search = typeof import("@codemirror/search");

const slot = new Compartment();

/** Runs a command of the search package, after loading it into the view if need be. */
function lazily(pick: (search: Search) => Command): Command {
  return (view: EditorView) => {
    void import("@codemirror/search").then((search) => {
      const present = slot.get(view.state);
      if (Array.isArray(present) && present.length === 0) {
        const extension = [search.search({ top: true }), search.highlightSelectionMatches({ minSelectionLength: 2 })];
        view.dispatch({ effects: slot.reconfigure(extension) });
      }
      pick(search)(view);
    });
    return true;
  };
}

export function lazySearch(): Extension {
  return [
    slot.of([]),
    keymap.of([
      { key: "Mod-f", run: lazily((search) => search.openSearchPanel), scope: "editor search-panel" },
      {
        key: "F3",
        run: lazily((search) => search.findNext),
        shift: lazily((search) => search.findPrevious),
        scope: "editor search-panel",
        preventDefault: true,
      },
      {
        key: "Mod-g",
        run: lazily((search) => search.findNext),
        shift: lazily((search) => search.findPrevious),
        scope: "editor search-panel",
        preventDefault: true,
      },
      { key: "Escape", run: lazily((search) => search.closeSearchPanel), scope: "search-panel" },
      { key: "Mod-d", run: lazily((search) => search.selectNextOccurrence), preventDefault: true },
      { key: "Mod-Shift-l", run: lazily((search) => search.selectSelectionMatches), preventDefault: true },
      { key: "Mod-Alt-g", run: lazily((search) => search.gotoLine) },
    ]),
  ];
}
