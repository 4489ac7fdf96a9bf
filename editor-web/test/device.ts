// A person's tab over a test hub: a real SyncClient, with helpers that let IndexedDB and promises finish.
import { vi } from "vitest";
import * as Y from "yjs";

import { statusOf } from "../src/model/status";
import type { Status } from "../src/model/types";
import { SyncClient, type SyncFault } from "../src/sync/client";
import type { TestHub } from "./hub";

/** Timers of the code under test stand still until advanced; IndexedDB's own scheduling (setImmediate) runs. */
export function fakeTimers(): void {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "Date"] });
}

/** Lets promises, microtasks and IndexedDB come to rest. */
export async function rest(rounds = 12): Promise<void> {
  for (let i = 0; i < rounds; i++) await new Promise((resolve) => setImmediate(resolve));
}

export async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 5000 && !condition(); i++) await new Promise((resolve) => setImmediate(resolve));
}

export class Tab {
  readonly client: SyncClient;
  readonly faults: SyncFault[] = [];
  private everOpen = false;

  constructor(hub: TestHub, storage: IDBFactory | undefined, name = "somebody") {
    this.client = new SyncClient({
      address: () => Promise.resolve("ws://hub/sync"),
      connect: hub.connect,
      storage,
      storageName: name,
      onChange: () => this.status,
      onFault: (fault) => this.faults.push(fault),
    });
    this.client.link.start();
  }

  get status(): Status {
    if (this.client === undefined) return { kind: "connecting" };
    const status = statusOf({
      link: this.client.link.state,
      everOpen: this.everOpen,
      documents: [...this.client.documents.values()],
      role: "edit",
      firstRole: "edit",
      writable: [...this.client.documents.values()].every((document) => document.scope === "read-write"),
    });
    if (status.kind === "saved") this.everOpen = true;
    return status;
  }

  text(id = "a"): Y.Text {
    return this.client.open(id).text;
  }

  /** Goes away as a crashed tab does: no goodbye. */
  vanish(): void {
    void this.client.close();
  }
}

/** Numbers from a seed, so that a failure can be replayed. */
export function seeded(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}
