// One document of the session: its Y.Doc, its awareness, and an account of what the server has.
//
// `load` brings what this device keeps; then each opened link is joined anew: auth, our state vector, and our presence
// are sent at once; the server answers with its vector and with what we lack, ending in step2. Only then is compared:
// what the server lacks (also edits of an earlier tab, or deletions, which no state vector shows) is sent, and `changes`
// falls to zero no earlier than every frame that was sent has been acknowledged as durable. Acknowledgements come in the
// order of the frames. A lost link forgets the frames in flight but never the changes.
import { applyAwarenessUpdate, Awareness, encodeAwarenessUpdate, removeAwarenessStates } from "y-protocols/awareness";
import * as Y from "yjs";

import type { Keep } from "./keep";
import { Known, split } from "./updates";
import {
  awarenessFrame,
  closeFrame,
  type Message,
  pongFrame,
  type Scope,
  step1Frame,
  tokenFrame,
  updateFrame,
} from "./wire";

/** Stays under the server's frame limit of 4 MB with room for the envelope. */
export const LONGEST_UPDATE = 3_500_000;
const REPLY_PART = 256_000; // bytes per frame when much has to be sent: no frame may clog a slow link

export interface Host {
  readonly keep: Keep;
  send(frame: Uint8Array): boolean;
  changed(): void;
  fault(document: string, error: unknown): void;
}

type Phase = "loading" | "away" | "joining" | "joined";

export class SyncedDocument {
  readonly doc: Y.Doc;
  readonly awareness: Awareness;
  scope: Scope = "read-write";
  /** Local edits, also of earlier tabs, that the server has not acknowledged as durable. */
  changes = 0;
  /** The server said no to a frame, or the role does not allow to send it. */
  refused = false;
  denied: string | null = null;
  /** Complete enough to be shown: synced once, or kept on this device from an earlier time. */
  ready = false;
  /** Edits that somebody made on this page and that wait until it is ready. */
  early = 0;

  private phase: Phase = "loading";
  private linked = false;
  private known = new Known();
  private local = false; // there is something local that the server may lack
  private vectorSeen = false;
  private endSeen = false;
  private readonly inFlight: number[] = []; // edits in each frame that waits for its acknowledgement
  private stale = 0; // acknowledgements still to come for frames from before a second join on the same link
  private readonly waiting: (() => void)[] = [];
  private closed = false;

  constructor(
    readonly id: string,
    private readonly host: Host,
    clientId: number | null,
  ) {
    this.doc = new Y.Doc({ gc: false });
    if (clientId !== null) this.doc.clientID = clientId;
    this.awareness = new Awareness(this.doc);
    this.awareness.setLocalState(null);
    this.doc.on("update", this.onUpdate);
    this.awareness.on("update", this.onAwareness);
  }

  get text(): Y.Text {
    return this.doc.getText("content");
  }

  /** Compared with the server on this link, and every change acknowledged. */
  get settled(): boolean {
    return (this.phase === "joined" || this.denied !== null) && this.changes === 0;
  }

  /** Nothing is awaited on this link. */
  get joined(): boolean {
    return this.phase === "joined" || this.denied !== null;
  }

  whenReady(): Promise<void> {
    return this.ready ? Promise.resolve() : new Promise((resolve) => this.waiting.push(resolve));
  }

  /** Brings what this device keeps; `created` says that the document was made here a moment ago. */
  async load(created = false): Promise<void> {
    if (created) this.becomeReady();
    const kept = await this.host.keep.load(this.id);
    if (this.closed) return;
    for (const update of kept.updates) this.apply(update, this.host.keep);
    this.changes += kept.unsaved;
    if (kept.known) this.becomeReady();
    this.phase = "away";
    if (this.linked) this.join();
    this.host.changed();
  }

  opened(): void {
    this.linked = true;
    if (this.phase !== "loading") this.join();
  }

  lost(): void {
    this.linked = false;
    if (this.phase !== "loading") this.phase = "away";
    this.inFlight.length = this.stale = 0;
    const others = [...this.awareness.meta.keys()].filter((client) => client !== this.awareness.clientID);
    removeAwarenessStates(this.awareness, others, this);
    for (const client of others) this.awareness.meta.delete(client); // they come back with the clock they left with
  }

  receive(message: Message): void {
    switch (message.kind) {
      case "step1":
        return this.onVector(message.vector);
      case "update":
        return this.onRemote(message.update, message.last);
      case "awareness":
        return applyAwarenessUpdate(this.awareness, message.update, this);
      case "query-awareness":
        return this.announce();
      case "authenticated":
        return this.onScope(message.scope);
      case "denied":
        return this.deny(message.reason);
      case "stored":
        return this.onStored(message.ok);
      case "close":
        this.lost(); // until the next link: which of the frames in flight were stored is not known
        return this.deny(message.reason);
      case "ping":
        this.host.send(pongFrame(this.id));
        return;
      default:
        return;
    }
  }

  /** Leaves the document; the caller made sure that nothing is unsaved. */
  close(): void {
    this.closed = true;
    this.awareness.setLocalState(null);
    if (this.linked) this.host.send(closeFrame(this.id, "closed"));
    this.awareness.destroy();
    this.doc.destroy();
  }

  private deny(reason: string): void {
    this.denied = reason;
    this.refused = this.changes > 0;
    this.host.changed();
  }

  private join(): void {
    this.phase = "joining";
    this.stale += this.inFlight.length;
    this.inFlight.length = 0;
    this.vectorSeen = this.endSeen = false;
    this.denied = null;
    this.known = new Known();
    this.local = this.doc.store.clients.size > 0;
    this.host.send(tokenFrame(this.id, ""));
    this.host.send(step1Frame(this.id, Y.encodeStateVector(this.doc)));
    this.awareness.setLocalState(this.awareness.getLocalState());
    this.host.changed();
  }

  private onVector(vector: Uint8Array): void {
    this.known.vector(vector);
    this.vectorSeen = true;
    this.compare();
  }

  private onRemote(update: Uint8Array, last: boolean): void {
    if (this.phase === "joining" && this.local) this.known.update(update);
    this.apply(update, this);
    if (!last || this.phase !== "joining") return;
    this.endSeen = true;
    this.becomeReady();
    this.compare();
  }

  /** Both sides said what they have: send what the server lacks, or know that it lacks nothing. */
  private compare(): void {
    if (this.phase !== "joining" || !this.vectorSeen || !this.endSeen) return;
    const missing = this.local ? this.known.missing(this.doc) : null;
    this.phase = "joined";
    this.refused = false;
    if (missing === null) this.settle();
    else {
      this.changes = Math.max(1, this.changes);
      if (this.scope === "readonly") this.refused = true;
      else this.transmit(missing, this.changes, REPLY_PART);
    }
    this.host.changed();
  }

  private readonly onUpdate = (update: Uint8Array, origin: unknown): void => {
    if (origin === this.host.keep) return;
    if (origin === this) {
      this.host.keep.add(this.id, update, null);
      return;
    }
    this.changes += 1;
    this.host.keep.add(this.id, update, this.changes);
    if (this.phase === "joined") {
      if (this.scope === "readonly") this.refused = true;
      if (!this.refused) this.transmit(update, 1, LONGEST_UPDATE);
    } else this.local = true;
    this.host.changed();
  };

  private transmit(update: Uint8Array, changes: number, limit: number): void {
    const parts = split(update, limit);
    if (parts.some((part) => part.byteLength > LONGEST_UPDATE)) {
      this.refused = true;
      return;
    }
    parts.forEach((part, index) => {
      // Counted before sending, for a server that answers at once; the last part stands for all of them.
      this.inFlight.push(index === parts.length - 1 ? changes : 0);
      this.host.send(updateFrame(this.id, part));
    });
  }

  private onStored(ok: boolean): void {
    if (this.stale > 0) {
      this.stale -= 1;
      return;
    }
    const count = this.inFlight.shift();
    if (count === undefined) return;
    if (!ok) this.refused = true;
    else if (!this.refused) {
      this.changes = Math.max(0, this.changes - count);
      if (this.inFlight.length === 0 && this.phase === "joined") this.settle();
    }
    this.host.changed();
  }

  private settle(): void {
    this.changes = 0;
    this.host.keep.settle(this.id);
  }

  private onScope(scope: Scope): void {
    const before = this.scope;
    this.scope = scope;
    // Whatever was refused before is offered again by a new comparison.
    const again = before !== scope || (this.refused && scope === "read-write");
    if (again && this.phase === "joined" && this.changes > 0) this.join();
    this.host.changed();
  }

  private apply(update: Uint8Array, origin: unknown): void {
    try {
      Y.applyUpdate(this.doc, update, origin);
    } catch (error) {
      this.host.fault(this.id, error);
    }
  }

  private becomeReady(): void {
    if (this.ready) return;
    this.ready = true;
    for (const resolve of this.waiting.splice(0)) resolve();
    this.host.changed();
  }

  private readonly onAwareness = (changes: { added: number[]; updated: number[]; removed: number[] }): void => {
    const own = this.awareness.clientID;
    if ([changes.added, changes.updated, changes.removed].some((list) => list.includes(own))) this.announce();
  };

  private announce(): void {
    if (!this.linked || this.phase === "loading" || !this.awareness.meta.has(this.awareness.clientID)) return;
    this.host.send(awarenessFrame(this.id, encodeAwarenessUpdate(this.awareness, [this.awareness.clientID])));
  }
}
