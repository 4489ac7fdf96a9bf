// One WebSocket that is kept alive.
//
// A link is `opening` → `open` → `waiting` (back-off) → `opening` … until it is `ended`: closed by us, or with a code
// that says trying again is pointless. TCP may take minutes to notice a cable that was pulled, so silence is probed: after
// 2 s without a message a ping is sent, and 2.5 s without any answer end the socket. Events of the browser (back online,
// tab visible, page restored) and timers that fire late (the machine slept) probe at once. A slow network is not a dead
// one: while bytes still drain, or while a first sync keeps timing out, the patience grows.

export interface Socket {
  binaryType: string;
  readonly bufferedAmount: number;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: Uint8Array): void;
  close(code?: number, reason?: string): void;
}

export type LinkState =
  | { kind: "opening"; attempt: number }
  | { kind: "open" }
  | { kind: "waiting"; retryAt: number }
  | { kind: "ended"; code: number; reason: string };

export interface LinkOptions {
  /** A fresh address with a fresh ticket. Throws `LinkRefused` when no further try makes sense. */
  address(): Promise<string>;
  connect(url: string): Socket;
  ping(): Uint8Array;
  onState(state: LinkState): void;
  onFrame(data: Uint8Array): void;
}

/** The server will not let this tab in, however often it asks. `code` is a close code of the 44xx band. */
export class LinkRefused extends Error {
  constructor(
    readonly code: number,
    reason: string,
  ) {
    super(reason);
  }
}

/** The server asked to wait this many milliseconds. */
export class LinkDelayed extends Error {
  constructor(readonly wait: number) {
    super("asked to wait");
  }
}

const IDLE = 2000; // ms of silence before a ping
const PATIENCE = 2500; // ms for an answer: 2 + 2.5 stays under the 5 s in which a dead link must show
const MOST_PATIENCE = 20_000;
const OPENING = 8000; // ms for ticket and handshake, each
const FIRST_WAIT = 250;
const LONGEST_WAIT = 10_000;
const STABLE = 5000; // ms after which a loss starts the back-off anew
const LATE = 2000; // a timer this late means that the machine slept

export const LOGGED_OUT = 4401;
const TIMED_OUT = 4408;
const TOO_FAST = 4429;
const TOO_LARGE = 1009; // coming again with the same message would go on for ever
const SLOWED = 5000; // ms to wait when told to slow down

export class Link {
  state: LinkState = { kind: "opening", attempt: 0 };
  private socket: Socket | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private generation = 0; // what an older attempt still brings is ignored
  private attempt = 0;
  private openedAt = 0;
  private patience = PATIENCE;
  private ticketRetried = false;

  constructor(private readonly options: LinkOptions) {}

  start(): void {
    if (this.socket === null && this.state.kind !== "ended") void this.open();
  }

  /** False when there is no open socket: the caller keeps what it wanted to say. */
  send(data: Uint8Array): boolean {
    if (this.state.kind !== "open" || this.socket === null) return false;
    this.socket.send(data);
    return true;
  }

  /** Everything that waited for this connection has arrived: the network keeps up. */
  settled(): void {
    this.patience = PATIENCE;
    this.ticketRetried = false;
  }

  retryNow(): void {
    if (this.state.kind === "waiting") void this.open();
    else this.probe();
  }

  /** Something happened that makes the link doubtful: find out now. */
  probe(): void {
    if (this.state.kind === "open") this.ping();
    else if (this.state.kind === "waiting") void this.open();
  }

  close(): void {
    this.end(1000, "closed");
  }

  private set(state: LinkState): void {
    this.state = state;
    this.options.onState(state);
  }

  private async open(): Promise<void> {
    const generation = ++this.generation;
    clearTimeout(this.timer);
    this.set({ kind: "opening", attempt: this.attempt });
    this.timer = setTimeout(() => this.lost(generation), OPENING);
    let url: string;
    try {
      url = await this.options.address();
    } catch (error) {
      if (generation !== this.generation) return;
      if (error instanceof LinkRefused) this.end(error.code, error.message);
      else this.lost(generation, error instanceof LinkDelayed ? error.wait : 0);
      return;
    }
    if (generation !== this.generation) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.lost(generation), OPENING);
    const socket = this.options.connect(url);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      if (generation !== this.generation) return;
      this.openedAt = Date.now();
      this.set({ kind: "open" });
      this.armPing();
    };
    socket.onmessage = (event) => {
      if (generation !== this.generation) return;
      this.armPing();
      if (event.data instanceof ArrayBuffer) this.options.onFrame(new Uint8Array(event.data));
    };
    socket.onclose = (event) => {
      if (generation !== this.generation) return;
      this.closed(generation, event.code, event.reason);
    };
    socket.onerror = null; // a close always follows
  }

  private closed(generation: number, code: number, reason: string): void {
    if (code === LOGGED_OUT && !this.ticketRetried) {
      this.ticketRetried = true; // the ticket may have aged on the way; whether the login is gone is for its route to say
      this.lost(generation);
    } else if (code === TOO_FAST || code === TIMED_OUT) this.lost(generation, SLOWED);
    else if ((code >= 4400 && code < 4500) || code === TOO_LARGE) this.end(code, reason);
    else this.lost(generation);
  }

  private lost(generation: number, atLeast = 0): void {
    if (generation !== this.generation) return;
    if (this.state.kind === "open" && Date.now() - this.openedAt > STABLE) this.attempt = 0;
    this.abandon();
    const ceiling = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.attempt);
    this.attempt = Math.min(this.attempt + 1, 16);
    const wait = Math.max(atLeast, ceiling * (0.5 + Math.random() / 2));
    this.timer = setTimeout(() => void this.open(), wait);
    this.set({ kind: "waiting", retryAt: Date.now() + wait });
  }

  private end(code: number, reason: string): void {
    if (this.state.kind === "ended") return;
    this.abandon();
    this.set({ kind: "ended", code, reason });
  }

  private abandon(): void {
    this.generation++;
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    if (socket === null) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(1000);
  }

  private armPing(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ping(), IDLE);
  }

  private ping(): void {
    clearTimeout(this.timer);
    if (!this.send(this.options.ping())) return;
    this.awaitAnswer(this.socket?.bufferedAmount ?? 0);
  }

  private awaitAnswer(buffered: number): void {
    const generation = this.generation;
    const due = Date.now() + this.patience;
    this.timer = setTimeout(() => {
      if (generation !== this.generation) return;
      const left = this.socket?.bufferedAmount ?? 0;
      if (Date.now() - due > LATE) this.ping();
      else if (left > 0 && left < buffered) this.awaitAnswer(left);
      else {
        this.patience = Math.min(MOST_PATIENCE, this.patience * 2);
        this.lost(generation);
      }
    }, this.patience);
  }
}
