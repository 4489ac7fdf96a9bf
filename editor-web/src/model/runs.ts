// What runs and what it printed: started here or by others, bounded, with the failure of the latest run.
import { computed, signal } from "@preact/signals";

import { call } from "../api/http";
import type { components } from "../api/schema.generated";
import { type Failure, failureIn } from "./tracebacks";
import { complain } from "./toasts";

export type Run = components["schemas"]["Run"];
export type RunFiles = Required<components["schemas"]["RunFiles"]>;
export type RunFile = components["schemas"]["RunFile"];

export interface Chunk {
  seq: number;
  stream: "install" | "stdout" | "stderr" | "stdin";
  data: string;
}

const MOST_CHARACTERS = 400_000; // of one run's output on this page; the server has all of it

export class Runs {
  readonly list = signal<readonly Run[]>([]);
  readonly shownId = signal<string | null>(null);
  readonly output = signal<ReadonlyMap<string, readonly Chunk[]>>(new Map());
  readonly starting = signal(false);
  readonly shown = computed(() => this.list.value.find((run) => run.id === this.shownId.value) ?? null);
  readonly active = computed(() => this.list.value.find((run) => run.status !== "ended") ?? null);
  readonly failure = computed<Failure | null>(() => {
    const run = this.shown.value;
    if (run === null || run.result === null || (run.result.reason === "exited" && run.result.code === 0)) return null;
    const printed = (this.output.value.get(run.id) ?? []).filter((chunk) => chunk.stream === "stderr");
    return failureIn(printed.map((chunk) => chunk.data).join(""), this.paths());
  });

  constructor(
    private readonly session: string,
    private readonly paths: () => ReadonlySet<string>,
    private readonly onStart: () => void,
  ) {}

  private url(rest = ""): string {
    return `/api/v1/sessions/${this.session}/runs${rest}`;
  }

  /** Runs the open file if it is a program, else the session's entry; the server knows. */
  async start(open: string | null): Promise<void> {
    this.starting.value = true;
    this.onStart();
    try {
      const run = await call<Run>("POST", this.url(), open === null ? {} : { open });
      this.take(run);
      this.shownId.value = run.id;
    } catch (error) {
      complain(error);
    } finally {
      this.starting.value = false;
    }
  }

  async stop(id: string): Promise<void> {
    await call("DELETE", this.url(`/${id}`)).catch(complain);
  }

  async write(id: string, data: string, close = false): Promise<void> {
    try {
      await call("POST", this.url(`/${id}/stdin`), { data, close });
      if (data !== "") this.append(id, { seq: -1, stream: "stdin", data });
    } catch (error) {
      complain(error);
    }
  }

  /** Reads what there is; after a break also what was printed meanwhile. */
  async refresh(): Promise<void> {
    try {
      const { items } = await call<{ items: Run[] }>("GET", this.url());
      this.list.value = items;
      const running = items.find((run) => run.status !== "ended");
      if (this.shownId.peek() === null && running !== undefined) this.show(running.id);
      else if (this.shownId.peek() !== null) await this.load(this.shownId.peek() as string);
    } catch {
      // offline: the next connection asks again
    }
  }

  show(id: string): void {
    this.shownId.value = id;
    void this.load(id);
  }

  /** Takes an event of the session; says whether somebody else began a run. */
  receive(type: string, data: Record<string, unknown>): boolean {
    if (type === "run.output") {
      const { run_id, ...chunk } = data as unknown as Chunk & { run_id: string };
      this.append(run_id, chunk);
      return false;
    }
    const run = data["run"] as Run;
    const fresh = !this.list.peek().some((known) => known.id === run.id);
    this.take(run);
    if (fresh && !this.starting.peek()) {
      this.shownId.value = run.id;
      return true;
    }
    if (type === "run.ended" && this.shownId.peek() === run.id) void this.load(run.id);
    return false;
  }

  private take(run: Run): void {
    const known = this.list.peek().find((other) => other.id === run.id);
    if (known?.status === "ended") return; // what was said later may arrive earlier
    const others = this.list.peek().filter((other) => other.id !== run.id);
    this.list.value = [run, ...others].sort((a, b) => b.created_at - a.created_at).slice(0, 50);
  }

  private append(id: string, chunk: Chunk): void {
    const chunks = this.output.peek().get(id) ?? [];
    if (chunk.seq >= 0 && chunks.some((other) => other.seq === chunk.seq)) return;
    const next = [...chunks, chunk];
    let size = next.reduce((sum, { data }) => sum + data.length, 0);
    while (size > MOST_CHARACTERS && next.length > 1) size -= (next.shift() as Chunk).data.length;
    this.output.value = new Map(this.output.peek()).set(id, next);
  }

  /** Reads a run's stored events; what came live meanwhile is not lost, since chunks are known by number. */
  private async load(id: string): Promise<void> {
    const known = (this.output.peek().get(id) ?? []).filter((chunk) => chunk.seq >= 0);
    const run = this.list.peek().find((other) => other.id === id);
    if (run === undefined) return;
    const response = await fetch(this.url(`/${id}/events`), { credentials: "same-origin" });
    if (!response.ok) return;
    const stored = parseEvents(await (run.status === "ended" ? response.text() : soFar(response)));
    if (stored.length <= known.length) return;
    const typed = (this.output.peek().get(id) ?? []).filter((chunk) => chunk.seq < 0 || chunk.seq > (stored.at(-1)?.seq ?? 0));
    this.output.value = new Map(this.output.peek()).set(id, run.status === "ended" ? stored : [...stored, ...typed]);
  }
}

/** What a stream that goes on has said so far: it is left after a moment of silence. */
async function soFar(response: Response): Promise<string> {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (reader !== undefined) {
    const silence = new Promise<null>((resolve) => setTimeout(() => resolve(null), 300));
    const part = await Promise.race([reader.read(), silence]);
    if (part === null || part.done) {
      void reader.cancel();
      break;
    }
    text += part.value;
  }
  return text;
}

export function parseEvents(text: string): Chunk[] {
  return text
    .split("\n\n")
    .map((block) => ({ type: /^event: (.*)$/m.exec(block)?.[1], data: /^data: (.*)$/m.exec(block)?.[1] }))
    .filter(({ type }) => type === "install" || type === "stdout" || type === "stderr")
    .map(({ type, data }) => ({ ...(JSON.parse(data ?? "{}") as Chunk), stream: type as Chunk["stream"] }));
}

/** How a run ended, in words that say what happened and what to do; before that, what it waits for. */
export function ending(run: Run, installing = false): string {
  const result = run.result;
  if (result === null && run.status === "queued") return installing ? "Installing packages… Stop ends it." : `Waiting: ${run.position ?? 0} before this`;
  if (result === null) return "Running…";
  const used = `${result.wall_seconds.toFixed(2)} s · ${Math.max(1, Math.round(result.peak_memory_bytes / 2 ** 20))} MB`;
  const limit = run.limits as Record<string, number>;
  switch (result.reason) {
    case "exited":
      return `${result.detail || (result.code === 0 ? "Finished" : `Exited with code ${result.code}`)} · ${used}`;
    case "signalled":
      return `Ended by ${result.signal ?? "a signal"} · ${used}`;
    case "wall_time":
      return `Run stopped: time limit ${limit["wall_seconds"]} s reached. Your files are safe. · ${used}`;
    case "cpu_time":
      return `Run stopped: computing limit ${limit["cpu_seconds"]} s reached. Your files are safe. · ${used}`;
    case "memory":
      return `Run stopped: memory limit ${limit["memory_mb"]} MB reached. Your files are safe; what it wrote is not kept. · ${used}`;
    case "output":
      return `Run stopped: it printed more than ${Math.round((limit["output_bytes"] ?? 0) / 1024)} KB. · ${used}`;
    case "disk":
      return `Run stopped: it wrote more than ${limit["disk_mb"]} MB. Your files are safe. · ${used}`;
    case "environment":
      return `The program did not start: ${result.detail}`;
    case "cancelled":
      return run.files === null ? `Stopped · ${used}` : `Stopped; what it had written is here · ${used}`;
    default:
      return `Run lost. ${result.detail || "Run it again."}`;
  }
}
