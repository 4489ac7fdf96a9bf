// A small hub in memory that speaks the Hocuspocus dialect over sockets that can be delayed, cut and killed by a test.
// Only the transport is made up: the clients under test are the real ones.
import * as decoding from "lib0/decoding";
import * as encoding from "lib0/encoding";
import * as Y from "yjs";

import type { Socket } from "../src/sync/link";

interface Pending {
  document: string;
  update: Uint8Array;
  from: Connection;
}

export class TestHub {
  /** What a power cut leaves. */
  durable = new Map<string, Y.Doc>();
  /** What the running process knows, relayed but maybe not on disk. */
  volatile = new Map<string, Y.Doc>();
  readonly connections = new Set<Connection>();
  readonly refusedUpdates: Uint8Array[] = [];
  readonly seen: { document: string; type: number; from: Connection }[] = [];
  scope: "read-write" | "readonly" = "read-write";
  reachable = true;
  automatic = true; // deliver and sync at once
  private unsynced: Pending[] = [];
  private readonly awareness = new Map<string, Map<Connection, Uint8Array>>();

  readonly connect = (url: string): Socket => {
    const connection = new Connection(this, url);
    if (this.reachable) this.connections.add(connection);
    connection.start(this.reachable);
    return connection;
  };

  doc(id: string, from = this.volatile): Y.Doc {
    let doc = from.get(id);
    if (doc === undefined) from.set(id, (doc = new Y.Doc({ gc: false })));
    return doc;
  }

  text(id: string): string {
    return this.doc(id, this.durable).getText("content").toString();
  }

  /** Writes to disk what was appended, and acknowledges it. */
  sync(count = this.unsynced.length): void {
    for (const { document, update, from } of this.unsynced.splice(0, count)) {
      Y.applyUpdate(this.doc(document, this.durable), update);
      from.toClient(frame(document, 8, (out) => encoding.writeVarUint(out, 1)));
    }
  }

  /** Stops the process at once: what was not on disk is gone. */
  kill(): void {
    for (const connection of [...this.connections]) connection.cut(1006);
    this.unsynced = [];
    this.volatile = new Map([...this.durable].map(([id, doc]) => [id, copy(doc)]));
  }

  /** Tells everybody what they may do from now on. */
  setScope(scope: "read-write" | "readonly"): void {
    this.scope = scope;
    for (const connection of this.connections) {
      for (const document of connection.joined) connection.toClient(authenticated(document, scope));
    }
  }

  receive(from: Connection, data: Uint8Array): void {
    const decoder = decoding.createDecoder(data);
    const document = decoding.readVarString(decoder);
    const type = decoding.readVarUint(decoder);
    this.seen.push({ document, type, from });
    if (type === 9) return from.toClient(frame(document, 10));
    if (type === 2) {
      from.joined.add(document);
      this.sync(); // a joiner is told of nothing that a power cut could still take back
      from.toClient(authenticated(document, this.scope));
      from.toClient(sync(document, 0, Y.encodeStateVector(this.doc(document))));
      for (const [other, update] of this.awareness.get(document) ?? []) {
        if (other !== from) from.toClient(awareness(document, update));
      }
      return;
    }
    if (type === 1) {
      const update = decoding.readVarUint8Array(decoder);
      const states = this.awareness.get(document) ?? new Map<Connection, Uint8Array>();
      this.awareness.set(document, states.set(from, update));
      return this.relay(from, document, awareness(document, update));
    }
    if (type === 0) this.receiveSync(from, document, decoder);
  }

  leave(connection: Connection): void {
    this.connections.delete(connection);
    for (const [document, states] of this.awareness) {
      const update = states.get(connection);
      if (update === undefined) continue;
      states.delete(connection);
      this.relay(connection, document, awareness(document, gone(update)));
    }
  }

  private receiveSync(from: Connection, document: string, decoder: decoding.Decoder): void {
    const step = decoding.readVarUint(decoder);
    const bytes = decoding.readVarUint8Array(decoder);
    if (step === 0) {
      // Chunked as the hub does it: what is missing, then an empty step2.
      from.toClient(sync(document, 2, Y.encodeStateAsUpdate(this.doc(document), bytes)));
      from.toClient(sync(document, 1, new Uint8Array([0, 0])));
      return;
    }
    if (this.scope === "readonly") {
      this.refusedUpdates.push(bytes);
      return from.toClient(frame(document, 8, (out) => encoding.writeVarUint(out, 0)));
    }
    Y.applyUpdate(this.doc(document), bytes);
    this.unsynced.push({ document, update: bytes, from });
    this.relay(from, document, sync(document, 2, bytes));
    if (this.automatic) this.sync();
  }

  private relay(from: Connection, document: string, data: Uint8Array): void {
    for (const connection of this.connections) {
      if (connection !== from && connection.joined.has(document)) connection.toClient(data);
    }
  }
}

export class Connection implements Socket {
  binaryType = "arraybuffer";
  bufferedAmount = 0;
  onopen: Socket["onopen"] = null;
  onmessage: Socket["onmessage"] = null;
  onclose: Socket["onclose"] = null;
  onerror: Socket["onerror"] = null;
  readonly joined = new Set<string>();
  readonly inbound: Uint8Array[] = [];
  readonly outbound: Uint8Array[] = [];
  /** Nothing arrives any more, and nobody is told. */
  silent = false;
  private over = false;

  constructor(
    private readonly hub: TestHub,
    readonly url: string,
  ) {}

  start(reachable: boolean): void {
    queueMicrotask(() => {
      if (this.over) return;
      if (reachable) this.onopen?.(undefined as never);
      else this.cut(1006);
    });
  }

  send(data: Uint8Array): void {
    if (this.over || this.silent) return;
    this.inbound.push(data.slice());
    if (this.hub.automatic) this.deliver();
  }

  toClient(data: Uint8Array): void {
    if (this.over || this.silent) return;
    this.outbound.push(data);
    if (this.hub.automatic) queueMicrotask(() => this.deliver());
  }

  /** Moves up to `count` messages each way. */
  deliver(count = Infinity): void {
    for (let n = 0; n < count && this.inbound.length > 0; n++) this.hub.receive(this, this.inbound.shift() as Uint8Array);
    for (let n = 0; n < count && this.outbound.length > 0; n++) {
      const data = this.outbound.shift() as Uint8Array;
      this.onmessage?.({ data: data.slice().buffer });
    }
  }

  /** Ends the socket as the network or the server would. */
  cut(code: number, reason = ""): void {
    if (this.over) return;
    this.over = true;
    this.hub.leave(this);
    this.onclose?.({ code, reason });
  }

  close(): void {
    if (this.over) return;
    this.over = true;
    this.hub.leave(this);
  }
}

function frame(document: string, type: number, body?: (out: encoding.Encoder) => void): Uint8Array {
  const out = encoding.createEncoder();
  encoding.writeVarString(out, document);
  encoding.writeVarUint(out, type);
  body?.(out);
  return encoding.toUint8Array(out);
}

const sync = (document: string, step: number, bytes: Uint8Array): Uint8Array =>
  frame(document, 0, (out) => {
    encoding.writeVarUint(out, step);
    encoding.writeVarUint8Array(out, bytes);
  });

const awareness = (document: string, update: Uint8Array): Uint8Array =>
  frame(document, 1, (out) => encoding.writeVarUint8Array(out, update));

const authenticated = (document: string, scope: string): Uint8Array =>
  frame(document, 2, (out) => {
    encoding.writeVarUint(out, 2);
    encoding.writeVarString(out, scope);
  });

function gone(update: Uint8Array): Uint8Array {
  const decoder = decoding.createDecoder(update);
  const out = encoding.createEncoder();
  const count = decoding.readVarUint(decoder);
  encoding.writeVarUint(out, count);
  for (let i = 0; i < count; i++) {
    encoding.writeVarUint(out, decoding.readVarUint(decoder));
    encoding.writeVarUint(out, decoding.readVarUint(decoder));
    decoding.readVarString(decoder);
    encoding.writeVarString(out, "null");
  }
  return encoding.toUint8Array(out);
}

function copy(doc: Y.Doc): Y.Doc {
  const twin = new Y.Doc({ gc: false });
  Y.applyUpdate(twin, Y.encodeStateAsUpdate(doc));
  return twin;
}
