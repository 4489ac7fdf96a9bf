// What this device keeps of a session's documents, so that edits survive a reload without a server.
//
// One IndexedDB database per person and session (y-indexeddb makes one per document and drops failed writes silently):
// `updates` holds every update of every document, `unsaved` the count of edits that the server has not acknowledged, per
// document and tab, written in the same transaction as the edit itself.
import * as Y from "yjs";

export interface Kept {
  updates: Uint8Array[];
  /** The document was complete here at some time, so an empty one really is empty. */
  known: boolean;
  /** Edits of earlier tabs that nobody acknowledged. */
  unsaved: number;
}

export interface Keep {
  load(document: string): Promise<Kept>;
  /** Stores an update; `unsaved` is this tab's count after it, or null for what came from the server. */
  add(document: string, update: Uint8Array, unsaved: number | null): void;
  /** The server has everything that was loaded or added here. */
  settle(document: string): void;
  /** Documents with edits that nobody acknowledged. */
  unsaved(): Promise<string[]>;
  forget(document: string): Promise<void>;
  close(): void;
}

const MERGE_AT = 300; // updates of one document, then they are merged into one

/** Keeps nothing: for browsers that refuse storage. */
export const keepNothing: Keep = {
  load: () => Promise.resolve({ updates: [], known: false, unsaved: 0 }),
  add: () => undefined,
  settle: () => undefined,
  unsaved: () => Promise.resolve([]),
  forget: () => Promise.resolve(),
  close: () => undefined,
};

/**
 * Opens the database `name` for the tab `tab`. Never rejects: without storage it keeps nothing, and tells `onFault` once.
 */
export async function openKeep(
  factory: IDBFactory | undefined,
  name: string,
  tab: string,
  onFault: (error: unknown) => void,
): Promise<Keep> {
  try {
    if (factory === undefined) throw new Error("IndexedDB is missing");
    return new DeviceKeep(await openDatabase(factory, name), tab, onFault);
  } catch (error) {
    onFault(error);
    return keepNothing;
  }
}

function openDatabase(factory: IDBFactory, name: string): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const opening = factory.open(name, 1);
    const timer = setTimeout(() => reject(new Error("IndexedDB does not answer")), 3000);
    opening.onupgradeneeded = () => {
      const database = opening.result;
      database.createObjectStore("updates", { autoIncrement: true }).createIndex("document", "document");
      database.createObjectStore("known");
      database.createObjectStore("unsaved", { keyPath: ["document", "tab"] }).createIndex("document", "document");
    };
    opening.onsuccess = () => {
      clearTimeout(timer);
      opening.result.onversionchange = () => opening.result.close();
      resolve(opening.result);
    };
    opening.onerror = () => {
      clearTimeout(timer);
      reject(opening.error ?? new Error("IndexedDB cannot be opened"));
    };
  });
}

interface Row {
  document: string;
  update: Uint8Array;
}

interface Count {
  document: string;
  tab: string;
  changes: number;
}

function result<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("IndexedDB request failed"));
  });
}

class DeviceKeep implements Keep {
  private readonly added = new Map<string, number>(); // updates since the last merge
  private readonly adopted = new Map<string, string[]>(); // tabs whose edits were loaded here
  private faulty = false;

  constructor(
    private readonly database: IDBDatabase,
    private readonly tab: string,
    private readonly onFault: (error: unknown) => void,
  ) {}

  async load(document: string): Promise<Kept> {
    try {
      const transaction = this.database.transaction(["updates", "known", "unsaved"], "readonly");
      const [rows, known, counts] = await Promise.all([
        result<Row[]>(transaction.objectStore("updates").index("document").getAll(document)),
        result<unknown>(transaction.objectStore("known").get(document)),
        result<Count[]>(transaction.objectStore("unsaved").index("document").getAll(document)),
      ]);
      this.added.set(document, rows.length);
      this.adopted.set(
        document,
        counts.map((count) => count.tab),
      );
      const unsaved = counts.reduce((sum, count) => sum + count.changes, 0);
      return { updates: rows.map((row) => row.update), known: known !== undefined, unsaved };
    } catch (error) {
      this.fault(error);
      return { updates: [], known: false, unsaved: 0 };
    }
  }

  add(document: string, update: Uint8Array, unsaved: number | null): void {
    this.write(["updates", "unsaved", "known"], (transaction) => {
      transaction.objectStore("updates").add({ document, update } satisfies Row);
      if (unsaved === null) return;
      transaction.objectStore("known").put(1, document); // only complete documents can be edited
      const count: Count = { document, tab: this.tab, changes: unsaved };
      transaction.objectStore("unsaved").put(count);
    });
    const added = (this.added.get(document) ?? 0) + 1;
    this.added.set(document, added);
    if (added >= MERGE_AT) this.merge(document);
  }

  settle(document: string): void {
    const tabs = new Set([this.tab, ...(this.adopted.get(document) ?? [])]);
    this.adopted.delete(document);
    this.write(["known", "unsaved"], (transaction) => {
      transaction.objectStore("known").put(1, document);
      for (const tab of tabs) transaction.objectStore("unsaved").delete([document, tab]);
    });
  }

  async unsaved(): Promise<string[]> {
    try {
      const transaction = this.database.transaction("unsaved", "readonly");
      const counts = await result<Count[]>(transaction.objectStore("unsaved").getAll());
      return [...new Set(counts.filter((count) => count.changes > 0).map((count) => count.document))];
    } catch (error) {
      this.fault(error);
      return [];
    }
  }

  async forget(document: string): Promise<void> {
    const transaction = this.database.transaction(["updates", "known", "unsaved"], "readwrite");
    const updates = transaction.objectStore("updates");
    const counts = transaction.objectStore("unsaved");
    const [keys, tabs] = await Promise.all([
      result(updates.index("document").getAllKeys(document)),
      result(counts.index("document").getAllKeys(document)),
    ]);
    for (const key of keys) updates.delete(key);
    for (const key of tabs) counts.delete(key);
    await result(transaction.objectStore("known").delete(document));
  }

  close(): void {
    this.database.close();
  }

  /** Replaces a document's updates by one, inside one transaction, so that what another tab adds meanwhile stays. */
  private merge(document: string): void {
    this.added.set(document, 1);
    this.write(["updates"], (transaction) => {
      const store = transaction.objectStore("updates");
      const keys = store.index("document").getAllKeys(document);
      const rows = store.index("document").getAll(document) as IDBRequest<Row[]>;
      rows.onsuccess = () => {
        const update = Y.mergeUpdates(rows.result.map((row) => row.update));
        for (const key of keys.result) store.delete(key);
        store.add({ document, update } satisfies Row);
      };
    }, false);
  }

  /** `last`: `fill` makes all of the transaction's requests itself, none in answer to another. */
  private write(stores: string[], fill: (transaction: IDBTransaction) => void, last = true): void {
    try {
      const transaction = this.database.transaction(stores, "readwrite");
      transaction.onabort = () => this.fault(transaction.error);
      fill(transaction);
      // Committed at once and not when this tab next runs: a tab that is closed right after a key keeps it.
      if (last) transaction.commit?.();
    } catch (error) {
      this.fault(error);
    }
  }

  private fault(error: unknown): void {
    if (this.faulty) return;
    this.faulty = true;
    this.onFault(error);
  }
}
