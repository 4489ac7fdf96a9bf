// What is open where: tabs in one or two panes, side bar, bottom and right panel. Kept per session on this device.
import { type Signal, signal } from "@preact/signals";

export interface Pane {
  tabs: readonly string[]; // file ids
  active: string | null;
}

export type Side = "files" | "search" | null;
export type Bottom = "output" | "terminal" | "cells" | "problems" | null;
/** On a narrow screen, one of these is shown at a time. */
export type View = "files" | "code" | "output" | "people";

interface Kept {
  panes: Pane[];
  focused: number;
  side: Side;
  bottom: Bottom;
  people: boolean;
}

const MOST_PANES = 2;

export class Layout {
  readonly panes: Signal<readonly Pane[]> = signal([{ tabs: [], active: null }]);
  readonly focused = signal(0);
  readonly side = signal<Side>("files");
  readonly bottom = signal<Bottom>(null);
  readonly people = signal(false);
  readonly view = signal<View>("code");

  constructor(
    private readonly storage: Pick<Storage, "getItem" | "setItem"> | undefined,
    private readonly key: string,
  ) {
    const kept = this.read();
    if (kept === null) return;
    this.panes.value = kept.panes;
    this.focused.value = Math.min(kept.focused, kept.panes.length - 1);
    this.side.value = kept.side;
    this.bottom.value = kept.bottom;
    this.people.value = kept.people;
  }

  get pane(): Pane {
    return this.panes.value[this.focused.value] ?? { tabs: [], active: null };
  }

  /** Shows a file in the focused pane, or in the one that has it already. */
  open(id: string): void {
    const panes = this.panes.peek();
    const own = panes[this.focused.peek()];
    const index = own?.tabs.includes(id) ? this.focused.peek() : Math.max(panes.findIndex((pane) => pane.tabs.includes(id)), -1);
    const target = index < 0 ? this.focused.peek() : index;
    this.change(target, (pane) => ({ tabs: pane.tabs.includes(id) ? pane.tabs : [...pane.tabs, id], active: id }));
    this.focused.value = target;
    this.view.value = "code";
    this.keep();
  }

  /** Closes a tab; its neighbour comes forward, and an empty second pane goes. */
  close(paneIndex: number, id: string): void {
    this.change(paneIndex, (pane) => without(pane, id));
    this.dropEmpty();
    this.keep();
  }

  /** Forgets files that are no longer there. */
  retain(exists: (id: string) => boolean): void {
    const stale = this.panes.peek().some((pane) => pane.tabs.some((id) => !exists(id)));
    if (!stale) return;
    this.panes.value = this.panes.peek().map((pane) => pane.tabs.filter((id) => !exists(id)).reduce(without, pane));
    this.dropEmpty();
    this.keep();
  }

  move(paneIndex: number, id: string, offset: number): void {
    this.change(paneIndex, (pane) => {
      const tabs = pane.tabs.filter((tab) => tab !== id);
      const at = Math.max(0, Math.min(tabs.length, pane.tabs.indexOf(id) + offset));
      return { ...pane, tabs: [...tabs.slice(0, at), id, ...tabs.slice(at)] };
    });
    this.keep();
  }

  /** Shows the active file in a second pane, or puts all tabs together again. */
  split(): void {
    const panes = this.panes.peek();
    if (panes.length >= MOST_PANES) {
      const tabs = [...new Set(panes.flatMap((pane) => pane.tabs))];
      this.panes.value = [{ tabs, active: this.pane.active }];
      this.focused.value = 0;
    } else if (this.pane.active !== null) {
      this.panes.value = [...panes, { tabs: [this.pane.active], active: this.pane.active }];
      this.focused.value = panes.length;
    }
    this.keep();
  }

  focus(index: number): void {
    if (this.focused.peek() !== index) {
      this.focused.value = index;
      this.keep();
    }
  }

  toggleSide(side: Exclude<Side, null>): void {
    this.side.value = this.side.peek() === side ? null : side;
    this.view.value = "files";
    this.keep();
  }

  showSide(side: Exclude<Side, null>): void {
    this.side.value = side;
    this.view.value = "files";
    this.keep();
  }

  showBottom(bottom: Bottom): void {
    this.bottom.value = bottom;
    if (bottom !== null) this.view.value = "output";
    this.keep();
  }

  togglePeople(): void {
    this.people.value = !this.people.peek();
    this.keep();
  }

  private change(index: number, update: (pane: Pane) => Pane): void {
    this.panes.value = this.panes.peek().map((pane, at) => (at === index ? update(pane) : pane));
  }

  private dropEmpty(): void {
    const filled = this.panes.peek().filter((pane) => pane.tabs.length > 0);
    this.panes.value = filled.length > 0 ? filled : [{ tabs: [], active: null }];
    this.focused.value = Math.min(this.focused.peek(), this.panes.peek().length - 1);
  }

  private keep(): void {
    const kept: Kept = {
      panes: [...this.panes.peek()],
      focused: this.focused.peek(),
      side: this.side.peek(),
      bottom: this.bottom.peek(),
      people: this.people.peek(),
    };
    try {
      this.storage?.setItem(this.key, JSON.stringify(kept));
    } catch {
      // a full or forbidden storage only means that the layout starts anew
    }
  }

  private read(): Kept | null {
    try {
      const kept = JSON.parse(this.storage?.getItem(this.key) ?? "null") as Kept | null;
      const valid = kept !== null && Array.isArray(kept.panes) && kept.panes.length > 0 && kept.panes.every((pane) => Array.isArray(pane.tabs));
      return valid ? kept : null;
    } catch {
      return null;
    }
  }
}

function without(pane: Pane, id: string): Pane {
  const at = pane.tabs.indexOf(id);
  const tabs = pane.tabs.filter((tab) => tab !== id);
  return { tabs, active: pane.active === id ? (tabs[Math.min(at, tabs.length - 1)] ?? null) : pane.active };
}
