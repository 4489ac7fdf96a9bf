// All documents of a session over one link: opens them, routes frames, closes the ones that nobody looks at.
import { openKeep, type Keep } from "./keep";
import { SyncedDocument, type Host } from "./document";
import { Link, type LinkState, type Socket } from "./link";
import { pingFrame, pongFrame, readFrame } from "./wire";

export interface ClientOptions {
  address(): Promise<string>;
  connect(url: string): Socket;
  storage: IDBFactory | undefined;
  /** Names what this device keeps: one person in one session. */
  storageName: string;
  /** Something about the link or a document's account changed: read it again. */
  onChange(): void;
  onFault(fault: SyncFault): void;
}

export type SyncFault =
  | { kind: "storage"; error: unknown } // this device keeps nothing
  | { kind: "document"; document: string; error: unknown } // bytes that Yjs cannot read
  | { kind: "frame"; error: unknown };

const IDLE_DOCUMENTS = 24; // kept open though nobody looks at them

export class SyncClient {
  /** The awareness client id of this tab, the same in every document that is opened for the first time. */
  readonly clientId = crypto.getRandomValues(new Uint32Array(1))[0] as number;
  readonly documents = new Map<string, SyncedDocument>();
  readonly link: Link;
  private readonly opened = new Set<string>();
  private readonly holders = new Map<string, number>();
  private readonly keep: Promise<Keep>;
  private closed = false;

  constructor(private readonly options: ClientOptions) {
    this.keep = openKeep(options.storage, options.storageName, String(this.clientId), (error) =>
      options.onFault({ kind: "storage", error }),
    );
    this.link = new Link({
      address: options.address,
      connect: options.connect,
      ping: () => pingFrame(""),
      onState: (state) => this.onState(state),
      onFrame: (data) => this.onFrame(data),
    });
    void this.openUnsaved();
  }

  /** Opens a document, or returns the open one; `created` says that it is new and empty. */
  open(id: string, created = false): SyncedDocument {
    const existing = this.documents.get(id);
    if (existing !== undefined) {
      this.documents.delete(id); // to the end: the order is that of last use
      this.documents.set(id, existing);
      return existing;
    }
    // A client id is used once per document: a second life of the document here could hand out the same clocks again.
    const fresh = !this.opened.has(id);
    this.opened.add(id);
    const document = new SyncedDocument(id, this.host(), fresh ? this.clientId : null);
    this.documents.set(id, document);
    void this.load(document, created);
    this.prune();
    return document;
  }

  /** Keeps a document open until the returned function is called. */
  hold(id: string): () => void {
    this.holders.set(id, (this.holders.get(id) ?? 0) + 1);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      const left = (this.holders.get(id) ?? 1) - 1;
      if (left > 0) this.holders.set(id, left);
      else this.holders.delete(id);
      this.prune();
    };
  }

  /** Leaves all documents; this device forgets what it keeps of `forgotten`, so that a reload shows what the server has. */
  async close(forgotten: readonly string[] = []): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    for (const document of this.documents.values()) document.close();
    this.link.close();
    const keep = await this.keep;
    for (const id of forgotten) await keep.forget(id);
    keep.close();
  }

  private readonly pendingKeep: Keep = {
    load: async (document) => (await this.keep).load(document),
    add: (document, update, unsaved) => void this.keep.then((keep) => keep.add(document, update, unsaved)),
    settle: (document) => void this.keep.then((keep) => keep.settle(document)),
    unsaved: async () => (await this.keep).unsaved(),
    forget: async (document) => (await this.keep).forget(document),
    close: () => undefined,
  };

  private host(): Host {
    return {
      keep: this.pendingKeep,
      send: (frame) => this.link.send(frame),
      changed: () => this.options.onChange(),
      fault: (document, error) => this.options.onFault({ kind: "document", document, error }),
    };
  }

  private async load(document: SyncedDocument, created: boolean): Promise<void> {
    if (this.link.state.kind === "open") document.opened();
    await document.load(created);
  }

  private async openUnsaved(): Promise<void> {
    for (const id of await this.pendingKeep.unsaved()) if (!this.closed) this.open(id);
  }

  private onState(state: LinkState): void {
    if (state.kind === "open") for (const document of this.documents.values()) document.opened();
    else if (state.kind !== "opening") for (const document of this.documents.values()) document.lost();
    this.options.onChange();
  }

  private onFrame(data: Uint8Array): void {
    try {
      const { document: id, message } = readFrame(data);
      const document = this.documents.get(id);
      if (document !== undefined) document.receive(message);
      else if (message.kind === "ping") this.link.send(pongFrame(id));
    } catch (error) {
      this.options.onFault({ kind: "frame", error });
    }
    if ([...this.documents.values()].every((document) => document.joined)) this.link.settled();
  }

  private prune(): void {
    const idle = [...this.documents.values()].filter(
      (document) => !this.holders.has(document.id) && document.ready && document.changes === 0,
    );
    for (const document of idle.slice(0, Math.max(0, idle.length - IDLE_DOCUMENTS))) {
      document.close();
      this.documents.delete(document.id);
    }
  }
}
