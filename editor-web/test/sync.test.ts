import { IDBFactory } from "fake-indexeddb";
import "fake-indexeddb/auto";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import * as Y from "yjs";

import { fakeTimers, rest, seeded, Tab, until } from "./device";
import { TestHub } from "./hub";
import { covers, type Deletes } from "../src/sync/updates";

let hub: TestHub;
let storage: IDBFactory;
const tabs: Tab[] = [];

const tab = (own: IDBFactory = storage, name?: string): Tab => {
  const made = new Tab(hub, own, name);
  tabs.push(made);
  return made;
};

beforeEach(() => {
  fakeTimers();
  hub = new TestHub();
  storage = new IDBFactory();
});

afterEach(() => {
  for (const made of tabs.splice(0)) void made.client.close();
  vi.useRealTimers();
});

describe("one document", () => {
  test("two tabs converge and both say Saved", async () => {
    const [a, b] = [tab(), tab(new IDBFactory())];
    a.text();
    b.text();
    await rest();
    a.text().insert(0, "hello");
    b.text().insert(0, "x");
    await rest();
    expect(a.text().toString()).toBe(b.text().toString());
    expect(hub.text("a")).toBe(a.text().toString());
    expect([a.status.kind, b.status.kind]).toEqual(["saved", "saved"]);
  });

  test("Saved waits for the durable acknowledgement", async () => {
    const a = tab();
    a.text();
    await rest();
    hub.automatic = false;
    a.text().insert(0, "hello");
    expect(a.status).toEqual({ kind: "saving" });
    for (const connection of hub.connections) connection.deliver();
    await rest();
    expect(hub.doc("a").getText("content").toString()).toBe("hello"); // relayed, not on disk
    expect(a.status).toEqual({ kind: "saving" });
    hub.sync();
    for (const connection of hub.connections) connection.deliver();
    expect(a.status).toEqual({ kind: "saved" });
  });

  test("what a killed server forgot is sent again, deletions too", async () => {
    const a = tab();
    a.text();
    await rest();
    a.text().insert(0, "abcdef");
    await rest();
    hub.automatic = false;
    a.text().delete(1, 2);
    for (const connection of hub.connections) connection.deliver();
    hub.kill();
    expect(a.status).toMatchObject({ kind: "offline", changes: 1 });
    hub.automatic = true;
    await vi.advanceTimersByTimeAsync(300);
    await rest();
    expect(hub.text("a")).toBe("adef");
    expect(a.status).toEqual({ kind: "saved" });
  });

  test("after a reconnect nothing is sent when nothing is missing", async () => {
    const a = tab();
    a.text();
    await rest();
    a.text().insert(0, "abcdef");
    a.text().delete(0, 3);
    await rest();
    for (const connection of hub.connections) connection.cut(1006);
    hub.seen.length = 0;
    await vi.advanceTimersByTimeAsync(300);
    await rest();
    expect(a.status).toEqual({ kind: "saved" });
    expect(hub.seen.filter((message) => message.type === 0)).toHaveLength(1); // step1 alone
  });

  test("a large text is cut into frames and arrives whole", async () => {
    const a = tab();
    a.text();
    await rest();
    for (const connection of hub.connections) connection.cut(1006);
    for (let i = 0; i < 60; i++) a.text().insert(0, `${String(i).repeat(10_000)}\n`);
    await vi.advanceTimersByTimeAsync(300);
    await rest();
    expect(hub.text("a")).toBe(a.text().toString());
    expect(hub.seen.filter((message) => message.type === 0).length).toBeGreaterThan(4);
    expect(a.status).toEqual({ kind: "saved" });
  });
});

describe("a device", () => {
  test("keeps offline edits over a reload and counts them until the server has them", async () => {
    const first = tab();
    first.text();
    await rest();
    first.text().insert(0, "online ");
    await rest();
    hub.reachable = false;
    for (const connection of hub.connections) connection.cut(1006);
    first.text().insert(7, "off");
    first.text().insert(10, "line");
    await rest();
    expect(first.status).toMatchObject({ kind: "offline", changes: 2 });
    first.vanish();

    const second = tab();
    await rest();
    // Nobody opened the document in the new tab: it opens by itself, since it has something to send.
    expect(second.client.documents.has("a")).toBe(true);
    expect(second.status).toMatchObject({ kind: "offline", changes: 2 });
    expect(second.text().toString()).toBe("online offline");
    expect(second.client.open("a").ready).toBe(true);

    hub.reachable = true;
    await vi.advanceTimersByTimeAsync(20_000);
    await rest();
    expect(hub.text("a")).toBe("online offline");
    expect(second.status).toEqual({ kind: "saved" });
    second.vanish();

    const third = tab();
    await rest();
    expect(third.client.documents.size).toBe(0); // nothing is unsaved any more
  });

  test("does not take what it loaded for new edits", async () => {
    const first = tab();
    first.text();
    await rest();
    first.text().insert(0, "kept");
    await rest();
    first.vanish();
    hub.reachable = false;
    const second = tab();
    second.text();
    await rest();
    expect(second.text().toString()).toBe("kept");
    expect(second.status).toMatchObject({ kind: "offline", changes: 0 });
  });

  test("shows a document only when it is complete", async () => {
    hub.doc("a").getText("content").insert(0, "there");
    hub.reachable = false;
    const a = tab();
    const document = a.client.open("a");
    await rest();
    expect(document.ready).toBe(false);
    hub.reachable = true;
    a.client.link.retryNow();
    await rest();
    expect(document.ready).toBe(true);
    expect(document.text.toString()).toBe("there");
  });

  test("works without storage, and says so once", async () => {
    const a = new Tab(hub, undefined);
    tabs.push(a);
    a.text();
    await rest();
    a.text().insert(0, "still");
    await rest();
    expect(hub.text("a")).toBe("still");
    expect(a.faults.map((fault) => fault.kind)).toEqual(["storage"]);
  });

  test("merges many small updates on the device and loses none", async () => {
    const a = tab();
    a.text();
    await rest();
    hub.reachable = false;
    for (const connection of hub.connections) connection.cut(1006);
    for (let i = 0; i < 700; i++) a.text().insert(i, "x");
    a.vanish();
    const b = tab();
    const document = b.client.open("a");
    await until(() => document.ready);
    expect(b.text().length).toBe(700);
    expect(b.status).toMatchObject({ changes: 700 });
  });
});

describe("rights", () => {
  test("edits that were refused are kept, counted, and taken when the right comes back", async () => {
    const a = tab();
    a.text();
    await rest();
    hub.scope = "readonly";
    a.text().insert(0, "too late");
    await rest();
    expect(a.status).toMatchObject({ kind: "readonly", refused: 1 });
    expect(hub.text("a")).toBe("");
    hub.setScope("read-write");
    await rest();
    expect(hub.text("a")).toBe("too late");
    expect(a.status).toEqual({ kind: "saved" });
  });

  test("offline edits of somebody who may only read by now are not sent", async () => {
    const a = tab();
    a.text();
    await rest();
    for (const connection of hub.connections) connection.cut(1006);
    a.text().insert(0, "mine");
    hub.scope = "readonly";
    await vi.advanceTimersByTimeAsync(300);
    await rest();
    expect(hub.refusedUpdates).toHaveLength(0);
    expect(a.status).toMatchObject({ kind: "readonly", refused: 1 });
    expect(a.text().toString()).toBe("mine");
  });

  test("a permanent close ends the link and keeps the count", async () => {
    const a = tab();
    a.text();
    await rest();
    hub.automatic = false;
    a.text().insert(0, "mine");
    for (const connection of [...hub.connections]) connection.cut(4403, "removed");
    await vi.advanceTimersByTimeAsync(60_000);
    expect(a.status).toMatchObject({ kind: "readonly", refused: 1 });
    expect(hub.connections.size).toBe(0);
  });
});

const SEEDS = Number(process.env["SEEDS"] ?? 20);

describe("randomized", () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    test(`edits, drops, kills and reloads converge, and Saved never lies (seed ${seed})`, async () => {
      await randomized(seed);
    });
  }
});

/** What a device did itself, to hold against what the server has on disk. */
class Deeds {
  readonly clocks = new Map<number, number>();
  readonly deletes: Deletes[] = [];

  watch(doc: Y.Doc): void {
    doc.on("update", (update: Uint8Array, _origin: unknown, _doc: unknown, transaction: Y.Transaction) => {
      if (!transaction.local) return;
      this.clocks.set(doc.clientID, Y.getState(doc.store, doc.clientID));
      this.deletes.push(Y.decodeUpdate(update).ds as Deletes);
    });
  }

  on(doc: Y.Doc): boolean {
    const stored = Y.createDeleteSetFromStructStore(doc.store) as Deletes;
    return (
      [...this.clocks].every(([client, clock]) => Y.getState(doc.store, client) >= clock) &&
      this.deletes.every((deletes) => covers([stored], deletes))
    );
  }
}

async function randomized(seed: number): Promise<void> {
  const below = seeded(seed);
  const random = vi.spyOn(Math, "random").mockImplementation(() => below(1000) / 1000);
  hub.automatic = false;
  const devices = [0, 1, 2].map((n) => ({ storage: new IDBFactory(), deeds: new Deeds(), name: `p${n}` }));
  const live = devices.map((device) => tab(device.storage, device.name));
  live.forEach((made, n) => devices[n]?.deeds.watch(made.client.open("a").doc));
  await rest(60);
  let saved = 0;
  const check = (): void => {
    live.forEach((made, n) => {
      if (made.status.kind !== "saved") return;
      if (made.text().length > 0) saved += 1;
      expect(devices[n]?.deeds.on(hub.doc("a", hub.durable)), `seed ${seed}, device ${n}`).toBe(true);
    });
  };
  const connection = (): { deliver(n: number): void; cut(code: number): void; silent: boolean } | undefined =>
    [...hub.connections][below(Math.max(1, hub.connections.size))];
  for (let step = 0; step < 250; step++) {
    const n = below(3);
    const made = live[n] as Tab;
    const device = devices[n] as (typeof devices)[number];
    const dice = below(100);
    if (dice < 36) {
      if (made.client.open("a").ready) edit(made.text(), below, `${n}${step}`);
    } else if (dice < 70) connection()?.deliver(1 + below(8));
    else if (dice < 80) hub.sync(1 + below(4));
    else if (dice < 83) connection()?.cut(1006);
    else if (dice < 85) {
      const victim = connection();
      if (victim !== undefined) victim.silent = true;
    } else if (dice < 87) hub.kill();
    else if (dice < 90) {
      await rest(60); // a tab's writes to its device are done before it goes
      made.vanish();
      const next = tab(device.storage, device.name);
      live[n] = next;
      device.deeds.watch(next.client.open("a").doc);
      await rest(60);
    } else await vi.advanceTimersByTimeAsync(below(3000));
    check();
  }
  hub.automatic = true;
  for (let round = 0; round < 8; round++) {
    for (const open of [...hub.connections]) open.deliver();
    hub.sync();
    await vi.advanceTimersByTimeAsync(6000);
    await rest();
    check();
  }
  random.mockRestore();
  expect(saved).toBeGreaterThan(0); // otherwise nothing was tried
  const texts = live.map((made) => made.text().toString());
  expect(new Set([...texts, hub.text("a")]).size).toBe(1);
  expect(live.map((made) => made.status.kind)).toEqual(["saved", "saved", "saved"]);
  expect(live.flatMap((made) => made.faults)).toEqual([]);
}

function edit(text: Y.Text, below: (n: number) => number, mark: string): void {
  const at = below(text.length + 1);
  if (below(3) === 0 && at < text.length) text.delete(at, Math.min(1 + below(4), text.length - at));
  else text.insert(at, mark);
}
