import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { Link, LinkDelayed, LinkRefused, type LinkState, type Socket } from "../src/sync/link";
import { socketAddress } from "../src/sync/ticket";

class Line implements Socket {
  binaryType = "";
  bufferedAmount = 0;
  onopen: Socket["onopen"] = null;
  onmessage: Socket["onmessage"] = null;
  onclose: Socket["onclose"] = null;
  onerror: Socket["onerror"] = null;
  sent = 0;
  answers = true;
  closed = false;

  send(): void {
    this.sent += 1;
    if (this.answers) queueMicrotask(() => this.say());
  }
  say(): void {
    this.onmessage?.({ data: new ArrayBuffer(1) });
  }
  close(): void {
    this.closed = true;
  }
}

let lines: Line[];
let states: LinkState[];
let link: Link;
let address: () => Promise<string>;
let opens: boolean;

beforeEach(() => {
  vi.useFakeTimers();
  lines = [];
  states = [];
  opens = true;
  address = () => Promise.resolve("ws://x");
  link = new Link({
    address: () => address(),
    connect: () => {
      const line = new Line();
      lines.push(line);
      queueMicrotask(() => (opens ? line.onopen?.(undefined as never) : line.onclose?.({ code: 1006, reason: "" })));
      return line;
    },
    ping: () => new Uint8Array([0, 9]),
    onState: (state) => states.push(state),
    onFrame: () => undefined,
  });
});
afterEach(() => {
  link.close();
  vi.useRealTimers();
});

const start = async (): Promise<Line> => {
  link.start();
  await vi.advanceTimersByTimeAsync(1);
  return lines[0] as Line;
};

describe("a link", () => {
  test("that is silent is noticed within 5 s", async () => {
    const line = await start();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(link.state.kind).toBe("open"); // pings are answered
    line.say();
    line.answers = false;
    await vi.advanceTimersByTimeAsync(5000);
    expect(line.closed).toBe(true);
    expect(states.some((state) => state.kind === "waiting")).toBe(true);
  });

  test("is probed at once when the browser has doubts", async () => {
    const line = await start();
    line.answers = false;
    link.probe();
    await vi.advanceTimersByTimeAsync(2600);
    expect(line.closed).toBe(true);
  });

  test("is not taken for dead because the machine slept", async () => {
    const line = await start();
    line.answers = false;
    await vi.advanceTimersByTimeAsync(2000); // the ping is out, and sleep swallows its answer
    line.answers = true;
    vi.setSystemTime(Date.now() + 3_600_000);
    await vi.advanceTimersByTimeAsync(3000);
    expect(link.state.kind).toBe("open");
    expect(lines).toHaveLength(1);
  });

  test("is not given up while a large frame still drains", async () => {
    const line = await start();
    line.answers = false;
    line.bufferedAmount = 1_000_000;
    const drain = setInterval(() => (line.bufferedAmount = Math.max(0, line.bufferedAmount - 100_000)), 1000);
    await vi.advanceTimersByTimeAsync(9000);
    clearInterval(drain);
    expect(line.closed).toBe(false);
  });

  test("waits longer each time, up to 10 s, and never twice the same", async () => {
    opens = false;
    await start();
    await vi.advanceTimersByTimeAsync(120_000);
    const waits = states.flatMap((state) => (state.kind === "waiting" ? [state.retryAt] : []));
    expect(waits.length).toBeGreaterThan(12);
    const gaps = waits.slice(1).map((at, i) => at - (waits[i] as number));
    expect(Math.max(...gaps)).toBeLessThanOrEqual(10_001);
    expect(gaps[0]).toBeLessThan(600);
    expect(new Set(gaps.slice(-5)).size).toBeGreaterThan(1);
    expect(gaps.slice(-5).every((gap) => gap >= 5000)).toBe(true);
  });

  test("tries again at once when asked to", async () => {
    opens = false;
    await start();
    await vi.advanceTimersByTimeAsync(20_000);
    opens = true;
    const before = lines.length;
    link.retryNow();
    await vi.advanceTimersByTimeAsync(1);
    expect(lines.length).toBe(before + 1);
    expect(link.state.kind).toBe("open");
  });

  test.each([4403, 4404, 4400, 4422, 1009])("ends for good with %i", async (code) => {
    const line = await start();
    line.onclose?.({ code, reason: "why" });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(link.state).toEqual({ kind: "ended", code, reason: "why" });
    expect(lines).toHaveLength(1);
  });

  test.each([1006, 1011, 1012, 1013, 4503, 1001])("comes back after %i", async (code) => {
    const line = await start();
    line.onclose?.({ code, reason: "" });
    await vi.advanceTimersByTimeAsync(300);
    expect(link.state.kind).toBe("open");
  });

  test("slows down when told that it is too fast", async () => {
    const line = await start();
    line.onclose?.({ code: 4429, reason: "" });
    await vi.advanceTimersByTimeAsync(4900);
    expect(lines).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(200);
    expect(lines).toHaveLength(2);
  });

  test("asks for one more ticket before it believes to be logged out", async () => {
    const line = await start();
    line.onclose?.({ code: 4401, reason: "ticket" });
    await vi.advanceTimersByTimeAsync(300);
    expect(link.state.kind).toBe("open");
    lines[1]?.onclose?.({ code: 4401, reason: "ticket" });
    expect(link.state.kind).toBe("ended");
  });

  test("does as the ticket's route says", async () => {
    address = () => Promise.reject(new LinkDelayed(7000));
    await start();
    expect(link.state).toMatchObject({ kind: "waiting", retryAt: Date.now() - 1 + 7000 });
    address = () => Promise.reject(new LinkRefused(4401, "You are logged out."));
    await vi.advanceTimersByTimeAsync(7001);
    expect(link.state).toEqual({ kind: "ended", code: 4401, reason: "You are logged out." });
  });
});

describe("an address", () => {
  const answer = (status: number, body: unknown, headers: Record<string, string> = {}): typeof fetch => {
    return () => Promise.resolve(new Response(JSON.stringify(body), { status, headers }));
  };

  test("carries a ticket", async () => {
    const url = await socketAddress(answer(201, { ticket: "t/1", expires_in: 30 }), "https://a.b", "/sync");
    expect(url).toBe("wss://a.b/sync?token=t%2F1");
  });

  test("is refused, delayed or tried again by status", async () => {
    await expect(socketAddress(answer(401, {}), "http://a", "/")).rejects.toBeInstanceOf(LinkRefused);
    await expect(socketAddress(answer(429, {}, { "retry-after": "3" }), "http://a", "/")).rejects.toMatchObject({ wait: 3000 });
    await expect(socketAddress(answer(503, {}), "http://a", "/")).rejects.not.toBeInstanceOf(LinkRefused);
  });
});
