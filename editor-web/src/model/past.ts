// The past of one text: who wrote when, the text at any point, and playback. Positions are the log's.
import { computed, signal } from "@preact/signals";

import { call } from "../api/http";
import type { components } from "../api/schema.generated";
import { complain } from "./toasts";

export type Burst = components["schemas"]["Burst"];
export type Mark = components["schemas"]["Mark"];
export type Hunk = components["schemas"]["Hunk"];
type History = components["schemas"]["History"];
type Playback = components["schemas"]["Playback"];
type Step = components["schemas"]["PlaybackStep"];
type Diff = components["schemas"]["Diff"];

export const SPEEDS = [0.5, 1, 2, 4, 8, 16] as const;
const MOST_PAGES = 10;
const STEPS = 500; // fetched at once while playing
const LONGEST_PAUSE = 1_200; // ms; nobody watches somebody think
const SHORTEST_FRAME = 16;

export type Row = { kind: "burst"; burst: Burst } | { kind: "mark"; mark: Mark };

/** Bursts and marks in one list, newest first; a mark stands above the burst that it ends. */
export function rowsOf(bursts: readonly Burst[], marks: readonly Mark[]): Row[] {
  const rows: Row[] = [];
  let next = 0;
  for (const burst of bursts) {
    while (next < marks.length && (marks[next] as Mark).position >= burst.last) {
      rows.push({ kind: "mark", mark: marks[next] as Mark });
      next += 1;
    }
    rows.push({ kind: "burst", burst });
  }
  for (; next < marks.length; next += 1) rows.push({ kind: "mark", mark: marks[next] as Mark });
  return rows;
}

/** The scrubber counts edits; positions have gaps, so inside a burst they are taken as even. */
export class Track {
  readonly length: number;
  private readonly oldest: readonly Burst[];

  constructor(bursts: readonly Burst[]) {
    this.oldest = [...bursts].reverse();
    this.length = bursts.reduce((sum, burst) => sum + burst.edits, 0);
  }

  /** The position of the nth edit; 0 is before the first one that is known. */
  positionOf(edit: number): number {
    let before = 0;
    for (const burst of this.oldest) {
      if (edit <= before + burst.edits) {
        const share = burst.edits === 1 ? 1 : (edit - before - 1) / (burst.edits - 1);
        return edit <= before ? burst.first - 1 : burst.first + Math.round(share * (burst.last - burst.first));
      }
      before += burst.edits;
    }
    return this.oldest.at(-1)?.last ?? 0;
  }

  editOf(position: number): number {
    let before = 0;
    for (const burst of this.oldest) {
      if (position < burst.first) return before;
      if (position < burst.last) {
        const share = (position - burst.first) / (burst.last - burst.first);
        return before + 1 + Math.round(share * (burst.edits - 1));
      }
      before += burst.edits;
    }
    return before;
  }
}

/** What one step of playback does to a text; where it ended, for the eye to follow. */
export function applied(text: string, step: Pick<Step, "changes">): { text: string; from: number; to: number } {
  let from = -1;
  let to = -1;
  let now = text;
  for (const [place, gone, comes] of step.changes as [number, number, string][]) {
    now = now.slice(0, place) + comes + now.slice(place + gone);
    [from, to] = [place, place + comes.length];
  }
  return { text: now, from, to };
}

/** How long to wait before a step: as long as its writer did, but never long. */
export function pauseBefore(earlier: number, at: number, speed: number): number {
  return Math.max(0, Math.min(at - earlier, LONGEST_PAUSE)) / speed;
}

export interface Shown {
  position: number;
  text: string;
  /** Lines that differ from what `against` says. */
  hunks: readonly Hunk[];
  against: "before" | "now";
  /** What playback has just written. */
  fresh: { from: number; to: number } | null;
}

export class Past {
  readonly bursts = signal<readonly Burst[]>([]);
  readonly marks = signal<readonly Mark[]>([]);
  readonly ready = signal(false);
  readonly edits = signal(0);
  readonly more = signal<number | null>(null);
  readonly shown = signal<Shown | null>(null);
  /** The burst that was chosen in the list; null while scrubbing freely. */
  readonly chosen = signal<Burst | null>(null);
  readonly playing = signal(false);
  readonly speed = signal<number>(4);
  readonly against = signal<"before" | "now">("before");
  readonly track = computed(() => new Track(this.bursts.value));
  readonly newest = computed(() => this.bursts.value[0]?.last ?? 0);
  private asked = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly session: string,
    readonly document: string,
  ) {}

  private get base(): string {
    return `/api/v1/sessions/${this.session}/documents/${this.document}/history`;
  }

  /** Reads who wrote when, and shows the newest burst. */
  async open(): Promise<void> {
    await this.refresh();
    const newest = this.bursts.peek()[0];
    if (newest !== undefined) await this.choose(newest);
  }

  /** Reads the list anew; what is shown stays. */
  async refresh(): Promise<void> {
    try {
      let bursts: Burst[] = [];
      let marks: Mark[] = [];
      let before: number | null = null;
      for (let page = 0; page < MOST_PAGES; page += 1) {
        const found: History = await call("GET", this.base + (before === null ? "" : `?before=${before}`));
        bursts = bursts.concat(found.items);
        marks = marks.concat(found.marks);
        if (page === 0) this.edits.value = found.edits;
        before = found.next ?? null;
        if (before === null) break;
      }
      this.bursts.value = bursts;
      this.marks.value = marks;
      this.more.value = before;
    } catch (error) {
      complain(error);
    }
    this.ready.value = true;
  }

  async choose(burst: Burst): Promise<void> {
    this.stop();
    this.chosen.value = burst;
    await this.show(burst.last, burst.first - 1);
  }

  async goTo(position: number): Promise<void> {
    this.stop();
    this.chosen.value = this.bursts.peek().find((burst) => burst.last === position) ?? null;
    await this.show(position, this.burstAt(position)?.first ?? position);
  }

  async compareWith(against: "before" | "now"): Promise<void> {
    this.against.value = against;
    const shown = this.shown.peek();
    if (shown !== null) await this.show(shown.position, (this.burstAt(shown.position)?.first ?? shown.position) - 1);
  }

  /** Moves by edits, as the scrubber does; the text follows as soon as it comes. */
  scrub(edit: number): void {
    const position = this.track.peek().positionOf(edit);
    void this.goTo(position);
  }

  private burstAt(position: number): Burst | undefined {
    return this.bursts.peek().find((burst) => burst.first <= position);
  }

  private async show(position: number, before: number): Promise<void> {
    const turn = (this.asked += 1);
    const against = this.against.peek();
    try {
      const compare = against === "now" ? `from=${position}` : `from=${Math.max(0, before)}&to=${position}`;
      const [point, diff] = await Promise.all([
        call<{ position: number; text: string }>("GET", `${this.base}/${position}`),
        call<Diff>("GET", `${this.base}/diff?${compare}`),
      ]);
      // Somebody who scrubs asks for many points: only the last one counts.
      if (turn === this.asked) this.shown.value = { position, text: point.text, hunks: diff.hunks, against, fresh: null };
    } catch (error) {
      if (turn === this.asked) complain(error);
    }
  }

  async play(): Promise<void> {
    if (this.playing.peek()) return this.stop();
    const shown = this.shown.peek();
    if (shown === null) return;
    const start = shown.position >= this.newest.peek() ? (this.bursts.peek().at(-1)?.first ?? 1) - 1 : shown.position;
    this.playing.value = true;
    this.chosen.value = null;
    const turn = (this.asked += 1);
    const going = (): boolean => this.playing.peek() && turn === this.asked;
    try {
      let page = await this.steps(start);
      let text = page.text;
      let at = page.steps[0]?.at ?? 0;
      while (going()) {
        // The next steps are fetched while these play.
        const following = page.next == null ? null : this.steps(page.next);
        following?.catch(() => undefined);
        let owed = 0;
        for (const step of page.steps) {
          owed += pauseBefore(at, step.at, this.speed.peek());
          at = step.at;
          const done = applied(text, step);
          text = done.text;
          if (owed < SHORTEST_FRAME) continue;
          await this.wait(owed);
          owed = 0;
          if (!going()) return;
          this.frame(step.position, text, done);
        }
        const last = page.steps.at(-1);
        if (last !== undefined && going()) this.frame(last.position, text, null);
        if (following === null) break;
        page = await following;
        text = page.text;
      }
    } catch (error) {
      complain(error);
    }
    if (turn === this.asked) this.playing.value = false;
  }

  private frame(position: number, text: string, fresh: { from: number; to: number } | null): void {
    this.shown.value = { position, text, hunks: [], against: "before", fresh: fresh !== null && fresh.from >= 0 ? fresh : null };
  }

  private steps(after: number): Promise<Playback> {
    return call("GET", `${this.base}/playback?after=${after}&limit=${STEPS}`);
  }

  private wait(ms: number): Promise<void> {
    return new Promise((resolve) => (this.timer = setTimeout(resolve, ms)));
  }

  stop(): void {
    clearTimeout(this.timer);
    this.asked += 1;
    this.playing.value = false;
  }
}
