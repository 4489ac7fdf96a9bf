// A terminal's socket: bytes both ways, resumed at the byte where it broke off, no more sent than is being shown.
import { call } from "../api/http";

export interface ScreenState {
  columns: number;
  rows: number;
  people: readonly { user_id: string; name: string }[];
  ended: { reason: string; code: number | null; detail: string } | null;
}

export interface ScreenEvents {
  /** Shows bytes, and says when they have been shown. */
  write: (data: Uint8Array, shown: () => void) => void;
  /** What came before is not continued: begin with an empty screen. */
  reset: () => void;
  state: (state: ScreenState) => void;
  connected: (connected: boolean) => void;
}

const SAY_SHOWN = 16 * 1024; // bytes
const LONGEST = 32 * 1024;
const PING_MS = 15_000;
const DEAD_MS = 25_000;

export class ScreenSocket {
  private socket: WebSocket | null = null;
  private place = -1; // of the next byte
  private shown = 0;
  private saidShown = 0;
  private attempt = 0;
  private closed = false;
  private heard = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private pinging: ReturnType<typeof setInterval> | undefined;
  private size: { columns: number; rows: number } | null = null;

  constructor(
    private readonly path: string,
    private readonly events: ScreenEvents,
  ) {
    addEventListener("online", this.now);
    void this.connect();
  }

  /** Types; what is typed while there is no connection is gone, as it must never arrive late. */
  type(keys: string): void {
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    const bytes = new TextEncoder().encode(keys);
    for (let start = 0; start < bytes.length; start += LONGEST) this.socket.send(bytes.subarray(start, start + LONGEST));
  }

  resize(columns: number, rows: number): void {
    this.size = { columns, rows };
    this.say({ type: "resize", columns, rows });
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    clearInterval(this.pinging);
    removeEventListener("online", this.now);
    this.socket?.close();
  }

  private readonly now = (): void => this.again(0);

  private say(message: object): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  private async connect(): Promise<void> {
    if (this.closed || this.socket !== null) return;
    try {
      const { ticket } = await call<{ ticket: string }>("POST", "/api/v1/tickets", {});
      const after = this.place < 0 ? "" : `&after=${this.place}`;
      const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}${this.path}?token=${ticket}${after}`);
      if (this.closed) socket.close();
      else this.listen(socket);
    } catch {
      this.again(this.delay());
    }
  }

  private listen(socket: WebSocket): void {
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.attempt = 0;
      this.heard = Date.now();
      this.events.connected(true);
      if (this.size !== null && this.place < 0) this.say({ type: "resize", ...this.size });
      clearInterval(this.pinging);
      this.pinging = setInterval(() => {
        if (Date.now() - this.heard > DEAD_MS) socket.close();
        else if (socket.readyState === WebSocket.OPEN) socket.send("ping");
      }, PING_MS);
    };
    socket.onmessage = ({ data }) => {
      this.heard = Date.now();
      if (typeof data === "string") this.take(JSON.parse(data) as { type: string; place?: number } & ScreenState);
      else this.show(new Uint8Array(data as ArrayBuffer));
    };
    socket.onclose = (event) => {
      clearInterval(this.pinging);
      if (this.socket === socket) this.socket = null;
      this.events.connected(false);
      const over = event.code === 1000 || (event.code >= 4400 && event.code < 4500);
      if (!over) this.again(this.delay());
    };
  }

  private take(said: { type: string; place?: number } & ScreenState): void {
    if (said.type === "state") this.events.state(said);
    else if (said.type === "from") {
      const place = said.place ?? 0;
      if (this.place >= 0 && place !== this.place) this.events.reset();
      this.place = this.shown = this.saidShown = place;
    }
  }

  private show(data: Uint8Array): void {
    this.place += data.length;
    const place = this.place;
    this.events.write(data, () => {
      this.shown = Math.max(this.shown, place);
      if (this.shown - this.saidShown < SAY_SHOWN && this.shown !== this.place) return;
      this.saidShown = this.shown;
      this.say({ type: "shown", place: this.shown });
    });
  }

  private again(ms: number): void {
    clearTimeout(this.timer);
    if (!this.closed && this.socket === null) this.timer = setTimeout(() => void this.connect(), ms);
  }

  private delay(): number {
    return Math.min(10_000, 250 * 2 ** this.attempt++) * (0.75 + Math.random() / 2);
  }
}
