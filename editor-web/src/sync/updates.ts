// Arithmetic on Yjs updates: what one side has that the other lacks, and cutting an update into frames.
import * as encoding from "lib0/encoding";
import * as Y from "yjs";

type Range = { clock: number; len: number };
/** Deleted ranges per client, as Yjs keeps them. */
export type Deletes = { clients: Map<number, Range[]> };

/** What the other side is known to hold: a clock per client, and its deletions. */
export class Known {
  readonly clocks: Map<number, number>;
  private readonly deletes: Deletes[] = [];

  constructor(vector: Map<number, number> = new Map()) {
    this.clocks = new Map(vector);
  }

  /** The other side sent its state vector. */
  vector(bytes: Uint8Array): void {
    for (const [client, clock] of Y.decodeStateVector(bytes)) this.raise(client, clock);
  }

  /** The other side sent this update, so it has what is in it. */
  update(bytes: Uint8Array): void {
    const { from, to } = Y.parseUpdateMeta(bytes);
    for (const [client, end] of to) {
      // A gap before it means that this update alone proves nothing about what comes earlier.
      if ((from.get(client) ?? 0) <= (this.clocks.get(client) ?? 0)) this.raise(client, end);
    }
    this.deletes.push(Y.decodeUpdate(bytes).ds as Deletes);
  }

  /** The update that would bring the other side up to `doc`, or null when it lacks nothing. */
  missing(doc: Y.Doc): Uint8Array | null {
    const lacksStructs = [...Y.decodeStateVector(Y.encodeStateVector(doc))].some(
      ([client, clock]) => clock > (this.clocks.get(client) ?? 0),
    );
    if (!lacksStructs && covers(this.deletes, Y.createDeleteSetFromStructStore(doc.store) as Deletes)) return null;
    return Y.encodeStateAsUpdate(doc, Y.encodeStateVector(this.clocks));
  }

  private raise(client: number, clock: number): void {
    if (clock > (this.clocks.get(client) ?? 0)) this.clocks.set(client, clock);
  }
}

/** Says whether every range of `wanted` lies inside the union of `parts`. */
export function covers(parts: Deletes[], wanted: Deletes): boolean {
  for (const [client, ranges] of wanted.clients) {
    const had = parts.flatMap((part) => part.clients.get(client) ?? []).sort((a, b) => a.clock - b.clock);
    for (const range of ranges) {
      let reached = range.clock;
      for (const part of had) {
        if (part.clock > reached) break;
        reached = Math.max(reached, part.clock + part.len);
      }
      if (reached < range.clock + range.len) return false;
    }
  }
  return true;
}

/**
 * Cuts an update into updates of about `limit` bytes (a single larger insertion stays whole). Applied in order, the
 * parts equal the whole; deletions come last.
 */
export function split(update: Uint8Array, limit: number): Uint8Array[] {
  if (update.byteLength <= limit) return [update];
  const { structs, ds } = Y.decodeUpdate(update);
  const parts: Uint8Array[] = [];
  let run: Y.AbstractStruct[] = [];
  let size = 0;
  const flush = (): void => {
    if (run.length > 0) parts.push(encode(run, EMPTY));
    run = [];
    size = 0;
  };
  for (const struct of structs) {
    const bytes = encode([struct], EMPTY).byteLength;
    const last = run[run.length - 1];
    const follows = last === undefined || last.id.client === struct.id.client;
    if (size + bytes > limit || !follows) flush();
    run.push(struct);
    size += bytes;
  }
  flush();
  if (ds.clients.size > 0) parts.push(encode([], ds as Deletes));
  return parts;
}

const EMPTY: Deletes = { clients: new Map() };

/** Encodes structs of one client, in clock order, and deletions, as an update v1. */
function encode(structs: Y.AbstractStruct[], deletes: Deletes): Uint8Array {
  const encoder = new Y.UpdateEncoderV1();
  const out = encoder.restEncoder;
  const first = structs[0];
  encoding.writeVarUint(out, first === undefined ? 0 : 1);
  if (first !== undefined) {
    encoding.writeVarUint(out, structs.length);
    encoder.writeClient(first.id.client);
    encoding.writeVarUint(out, first.id.clock);
    for (const struct of structs) struct.write(encoder, 0, 0);
  }
  writeDeletes(out, deletes);
  return encoder.toUint8Array();
}

/** Writes a delete set as update v1 does: clients, then ranges of clock and length. */
export function writeDeletes(out: encoding.Encoder, deletes: Deletes): void {
  encoding.writeVarUint(out, deletes.clients.size);
  for (const [client, ranges] of [...deletes.clients].sort((a, b) => b[0] - a[0])) {
    encoding.writeVarUint(out, client);
    encoding.writeVarUint(out, ranges.length);
    for (const { clock, len } of ranges) {
      encoding.writeVarUint(out, clock);
      encoding.writeVarUint(out, len);
    }
  }
}
