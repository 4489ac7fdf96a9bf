// The session's events over their own socket: numbered, resumed after a break, the rest told as it comes.
import { call } from "../api/http";

export interface SessionEvent {
  type: string;
  seq?: number;
  at?: number;
  data: Record<string, unknown>;
}

const PING_MS = 15_000;
const DEAD_MS = 10_000;

export class Events {
  private socket: WebSocket | null = null;
  private seq: number | null = null;
  private attempt = 0;
  private closed = false;
  private pinging: ReturnType<typeof setInterval> | undefined;
  private heard = 0;

  constructor(
    private readonly session: string,
    private readonly on: (event: SessionEvent) => void,
    /** Called on each connection: what was live only may have been missed. */
    private readonly onOpen: () => void,
  ) {
    void this.connect();
    addEventListener("online", () => this.again(0));
  }

  close(): void {
    this.closed = true;
    this.socket?.close();
  }

  private async connect(): Promise<void> {
    if (this.closed || this.socket !== null) return;
    try {
      const { ticket } = await call<{ ticket: string }>("POST", "/api/v1/tickets", {});
      const after = this.seq === null ? "" : `&after=${this.seq}`;
      const address = `${location.origin.replace(/^http/, "ws")}/api/v1/sessions/${this.session}/events?token=${ticket}${after}`;
      this.open(new WebSocket(address));
    } catch {
      this.again(this.delay());
    }
  }

  private open(socket: WebSocket): void {
    this.socket = socket;
    socket.onmessage = (message) => this.receive(JSON.parse(String(message.data)) as SessionEvent);
    socket.onclose = (event) => {
      clearInterval(this.pinging);
      if (this.socket === socket) this.socket = null;
      if (event.code >= 4400 && event.code < 4500) {
        if (event.code === 4403) this.on({ type: "access.ended", data: {} });
        return;
      }
      this.again(this.delay());
    };
    socket.onopen = () => {
      this.attempt = 0;
      this.heard = Date.now();
      clearInterval(this.pinging);
      this.pinging = setInterval(() => {
        if (Date.now() - this.heard > PING_MS + DEAD_MS) socket.close();
        else if (socket.readyState === WebSocket.OPEN) socket.send("ping");
      }, PING_MS);
      this.onOpen();
    };
  }

  private receive(event: SessionEvent): void {
    this.heard = Date.now();
    if (event.type === "pong") return;
    if (event.type === "hello") {
      this.seq ??= event.seq ?? 0;
      return;
    }
    if (event.seq !== undefined) this.seq = event.seq;
    this.on(event);
  }

  private again(ms: number): void {
    if (!this.closed && this.socket === null) setTimeout(() => void this.connect(), ms);
  }

  private delay(): number {
    return Math.min(10_000, 250 * 2 ** this.attempt++) * (0.75 + Math.random() / 2);
  }
}
