// The session's interpreter and its cells: sent from here or by others, in order, with what they printed and showed.
import { computed, signal } from "@preact/signals";

import { call } from "../api/http";
import type { components } from "../api/schema.generated";
import { complain, notify } from "./toasts";

export type Cell = components["schemas"]["Cell"];
export type CellEvent = components["schemas"]["CellEvent"];
export type Interpreter = components["schemas"]["Interpreter"];

export interface NewCell {
  code: string;
  path?: string | null;
  line?: number | null;
}

const MOST_CELLS = 100;

export class Cells {
  /** Oldest first. */
  readonly list = signal<readonly Cell[]>([]);
  readonly events = signal<ReadonlyMap<string, readonly CellEvent[]>>(new Map());
  readonly interpreter = signal<Interpreter | null>(null);
  readonly running = computed(() => this.list.value.find(({ status }) => status === "running") ?? null);
  readonly waiting = computed(() => this.list.value.filter(({ status }) => status === "queued"));
  /** Cells of which only that they were there has been read. */
  readonly unread = signal<ReadonlySet<string>>(new Set());

  private sending: Promise<unknown> = Promise.resolve();

  constructor(private readonly session: string) {}

  private url(rest = ""): string {
    return `/api/v1/sessions/${this.session}${rest}`;
  }

  fileUrl(cell: string, number: number): string {
    return this.url(`/cells/${cell}/files/${number}`);
  }

  /** Sends cells after all that were sent from here before: two requests at once could overtake each other. */
  send(cells: readonly NewCell[]): Promise<boolean> {
    const sent = this.sending.then(() => this.post(cells));
    this.sending = sent;
    return sent;
  }

  private async post(cells: readonly NewCell[]): Promise<boolean> {
    try {
      for (let from = 0; from < cells.length; from += 50) {
        const { items } = await call<{ items: Cell[] }>("POST", this.url("/cells"), { cells: cells.slice(from, from + 50) });
        this.take(items);
      }
      return true;
    } catch (error) {
      complain(error);
      return false;
    }
  }

  async stop(id: string): Promise<void> {
    await call("DELETE", this.url(`/cells/${id}`)).catch(complain);
  }

  async restart(): Promise<void> {
    await call("DELETE", this.url("/interpreter")).catch(complain);
  }

  async clear(): Promise<void> {
    await call("DELETE", this.url("/cells")).catch(complain);
  }

  async input(data: string): Promise<void> {
    await call("POST", this.url("/interpreter/input"), { data }).catch(complain);
  }

  /** Reads what there is; what came live meanwhile is not lost, since events are known by number. */
  async refresh(): Promise<void> {
    try {
      const { items, interpreter } = await call<{ items: Cell[]; interpreter: Interpreter | null }>("GET", this.url("/cells"));
      this.list.value = items.map((cell) => ({ ...cell, events: null }));
      const events = new Map<string, readonly CellEvent[]>();
      for (const cell of items) if (cell.events != null) events.set(cell.id, merged(cell.events, this.events.peek().get(cell.id) ?? []));
      this.events.value = events;
      this.interpreter.value = interpreter ?? null;
      this.unread.value = new Set(items.filter((cell) => cell.events == null).map(({ id }) => id));
    } catch {
      // offline: the next connection asks again
    }
  }

  /** Reads all that one cell printed. */
  async load(id: string): Promise<void> {
    try {
      const { items } = await call<{ items: CellEvent[] }>("GET", this.url(`/cells/${id}/events`));
      this.events.value = new Map(this.events.peek()).set(id, merged(items, this.events.peek().get(id) ?? []));
      this.unread.value = new Set([...this.unread.peek()].filter((other) => other !== id));
    } catch {
      // it stays as it is
    }
  }

  receive(type: string, data: Record<string, unknown>): void {
    if (type === "cell.event") {
      const { cell_id, ...event } = data as unknown as CellEvent & { cell_id: string };
      const known = this.events.peek().get(cell_id) ?? [];
      if (known.some(({ seq }) => seq === event.seq)) return;
      this.events.value = new Map(this.events.peek()).set(cell_id, merged([event], known));
    } else if (type === "cell.queued") this.take(data["cells"] as Cell[]);
    else if (type === "cell.started") this.take([data["cell"] as Cell]);
    else if (type === "cell.ended") {
      const cell = data["cell"] as Cell;
      this.take([cell]);
      const events = this.events.peek().get(cell.id) ?? [];
      const gap = events.some((event, index) => event.seq !== index + 1 || event.data["cut"] === true);
      if (gap) void this.load(cell.id);
    } else if (type === "cell.cleared") this.list.value = this.list.peek().filter(({ status }) => status !== "ended");
    else if (type === "interpreter.started") this.interpreter.value = data["interpreter"] as Interpreter;
    else if (type === "interpreter.ended") {
      if (this.interpreter.peek()?.life === data["life"]) this.interpreter.value = null;
      notify(String(data["detail"] ?? "The interpreter has ended."));
    }
  }

  private take(cells: readonly Cell[]): void {
    const list = new Map(this.list.peek().map((cell) => [cell.id, cell]));
    for (const cell of cells) {
      const known = list.get(cell.id);
      if (known !== undefined && rank(known) > rank(cell)) continue; // what was said later may arrive earlier
      list.set(cell.id, { ...cell, code: known !== undefined && known.code.length > cell.code.length ? known.code : cell.code });
    }
    this.list.value = [...list.values()].sort((a, b) => a.position - b.position).slice(-MOST_CELLS);
  }
}

const rank = (cell: Cell): number => ["queued", "running", "ended"].indexOf(cell.status);

/** Events of both, each number once, in order; what is whole wins over what is cut. */
export function merged(one: readonly CellEvent[], other: readonly CellEvent[]): CellEvent[] {
  const found = new Map(other.map((event) => [event.seq, event]));
  for (const event of one) if (!found.has(event.seq) || found.get(event.seq)?.data["cut"] === true) found.set(event.seq, event);
  return [...found.values()].sort((a, b) => a.seq - b.seq);
}

/** What stands in a cell's head: its first line of code, or the name behind its marker. */
export function titleOf(code: string): string {
  const lines = code.split("\n");
  const named = /^#\s*%%+\s*(.+)$/.exec(lines[0] ?? "")?.[1]?.trim();
  return named ?? lines.find((line) => line.trim() !== "" && !/^#\s*%%/.test(line)) ?? "";
}

/** The line of a file that a traceback's `Cell [3], line 2` means, with where that stands in the printed line. */
export function placeIn(line: string, life: number | null, cells: readonly Cell[]): { path: string; line: number; column: number; start: number; end: number } | undefined {
  const match = /Cell \[(\d+)\], line (\d+)/.exec(line);
  if (match === null) return undefined;
  const cell = cells.find((other) => other.life === life && other.number === Number(match[1]));
  if (cell?.path == null || cell.line === null) return undefined;
  return { path: cell.path, line: cell.line + Number(match[2]) - 1, column: 0, start: match.index, end: match.index + match[0].length };
}

/** How a cell ended, in words; empty where its output says it all. */
export function endingOf(cell: Cell): string {
  switch (cell.outcome) {
    case "interrupted":
      return "Interrupted; the variables are kept.";
    case "skipped":
      return `Not run. ${cell.detail ?? ""}`;
    case "died":
    case "stopped":
    case "wall_time":
    case "output":
      return cell.detail ?? "";
    default:
      return "";
  }
}
