// The session's open terminals: which there are, which one is shown, and how one is opened and ended.
import { computed, signal } from "@preact/signals";

import { call } from "../api/http";
import type { components } from "../api/schema.generated";
import { complain, notify } from "./toasts";

export type Terminal = components["schemas"]["Terminal"];

/** What a run says that somebody ended: they know. */
const STOPPED = "It was stopped.";

/** Keys that a phone lacks go to whichever terminal has the focus. */
export interface Keyboard {
  type: (keys: string) => void;
  /** Ctrl is held for the next key. */
  control: (held: boolean) => void;
}

export class Terminals {
  readonly list = signal<readonly Terminal[]>([]);
  readonly opening = signal(false);
  readonly keyboard = signal<Keyboard | null>(null);
  private readonly chosen = signal<string | null>(null);
  readonly shown = computed(() => this.list.value.find(({ id }) => id === this.chosen.value) ?? this.list.value.at(-1) ?? null);

  constructor(private readonly session: string) {}

  private url(rest = ""): string {
    return `/api/v1/sessions/${this.session}/terminals${rest}`;
  }

  socketPath(id: string): string {
    return this.url(`/${id}/socket`);
  }

  show(id: string): void {
    this.chosen.value = id;
  }

  /** Opens a shell, or a program of the session in a terminal of its own. */
  async open(entry: string | null = null): Promise<void> {
    if (this.opening.peek()) return;
    this.opening.value = true;
    try {
      const terminal = await call<Terminal>("POST", this.url(), entry === null ? {} : { entry });
      this.take(terminal);
      this.show(terminal.id);
    } catch (error) {
      complain(error);
    } finally {
      this.opening.value = false;
    }
  }

  async end(id: string): Promise<void> {
    await call("DELETE", this.url(`/${id}`)).catch(complain);
  }

  async refresh(): Promise<void> {
    try {
      this.list.value = (await call<{ items: Terminal[] }>("GET", this.url())).items;
    } catch {
      // offline: the next connection asks again
    }
  }

  receive(type: string, data: Record<string, unknown>): void {
    if (type === "terminal.opened") this.take(data["terminal"] as Terminal);
    else if (type === "terminal.ended") {
      const terminal = this.list.peek().find(({ id }) => id === data["id"]);
      this.list.value = this.list.peek().filter(({ id }) => id !== data["id"]);
      const why = String(data["detail"] ?? "");
      if (terminal !== undefined && why !== "" && why !== STOPPED) notify(`${terminal.title} has ended. ${why}`);
    }
  }

  private take(terminal: Terminal): void {
    if (this.list.peek().some(({ id }) => id === terminal.id)) return;
    this.list.value = [...this.list.peek(), terminal];
  }
}
