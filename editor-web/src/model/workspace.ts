// The live session of one tab: documents, tree, people and status as signals, and editors on top of them.
import { computed, type ReadonlySignal, signal } from "@preact/signals";
import * as Y from "yjs";

import { EditOrigin } from "../editor/collab";
import { mount } from "../editor/mount";
import { SyncClient, type SyncFault } from "../sync/client";
import type { SyncedDocument } from "../sync/document";
import { socketAddress } from "../sync/ticket";
import { browserEnvironment, type Environment } from "./environment";
import { entriesOf, fileActions } from "./files";
import { Follower } from "./follow";
import { peopleOf, userState } from "./presence";
import { mayEdit, mayRun, statusOf } from "./status";
import { type Derived, derive } from "./tree";
import type { Boot, EditorHandle, FileNode, Person, ShellHooks, Status, Workspace } from "./types";
import { TextUndo } from "./undo";

const TREE = "tree";

export function openWorkspace(boot: Boot, hooks: ShellHooks, environment = browserEnvironment()): Workspace {
  return new LiveWorkspace(boot, hooks, environment);
}

class LiveWorkspace implements Workspace {
  readonly me;
  readonly session;
  readonly status = signal<Status>({ kind: "connecting" });
  readonly treeReady = signal(false);
  readonly following = signal<string | null>(null);
  readonly people = signal<readonly Person[]>([]);
  readonly canEdit: ReadonlySignal<boolean>;
  readonly canRun: ReadonlySignal<boolean>;
  readonly tree: ReadonlySignal<readonly FileNode[]>;
  readonly trash: ReadonlySignal<readonly FileNode[]>;
  readonly files;

  private readonly derived = signal<Derived>({ tree: [], trash: [] });
  private readonly shown = signal<string | null>(null);
  private readonly writable = signal(true); // what the server last said about the tree document
  private readonly client: SyncClient;
  private readonly treeDocument: SyncedDocument;
  private readonly follower: Follower;
  private readonly undos = new Map<string, { document: SyncedDocument; undo: TextUndo }>();
  private readonly mounts = new Map<string, number>();
  private readonly stops: (() => void)[] = [];
  private everOpen = false;
  private keepsNothing = false;

  constructor(
    private readonly boot: Boot,
    private readonly hooks: ShellHooks,
    private readonly environment: Environment,
  ) {
    this.me = signal(boot.me);
    this.session = signal(boot.session);
    this.canEdit = computed(
      () => mayEdit(this.session.value.role) && this.writable.value && this.ended.value === false,
    );
    this.canRun = computed(() => mayRun(this.session.value.role) && this.ended.value === false);
    this.tree = computed(() => this.derived.value.tree);
    this.trash = computed(() => this.derived.value.trash);

    const path = `/api/v1/sessions/${boot.session.id}/sync`;
    this.client = new SyncClient({
      address: () => socketAddress(environment.fetch, environment.origin, path),
      connect: (url) => environment.connect(url),
      storage: environment.storage,
      storageName: `atelier:${boot.me.id}:${boot.session.id}`,
      onChange: () => this.refresh(),
      onFault: (fault) => this.onFault(fault),
    });
    this.treeDocument = this.client.open(TREE);
    this.client.hold(TREE);
    this.files = this.watchTree();
    this.follower = new Follower({ following: this.following, people: this.people, shown: this.shown, hooks });
    this.watchPage();
    this.client.link.start();
  }

  private readonly ended = signal(false);

  showing(documentId: string | null): void {
    if (this.shown.peek() === documentId) return;
    this.shown.value = documentId;
    this.treeDocument.awareness.setLocalStateField("view", { documentId });
  }

  mountEditor(parent: HTMLElement, node: FileNode, options: { readOnly?: boolean } = {}): EditorHandle {
    const id = node.id;
    const document = this.client.open(id);
    const release = this.client.hold(id);
    this.mounts.set(id, (this.mounts.get(id) ?? 0) + 1);
    if (document.awareness.getLocalState() === null) {
      document.awareness.setLocalState({ user: userState(this.me.peek()) });
    }
    let unwatch: () => void = () => undefined;
    return mount(parent, {
      document,
      undo: () => this.undoOf(document).manager,
      path: computed(() => this.tree.value.find((candidate) => candidate.id === id)?.path ?? node.path),
      editable: computed(() => this.canEdit.value && options.readOnly !== true),
      firstText: this.boot.first?.document_id === id ? this.boot.first.text : null,
      textBytes: this.boot.limits["text_bytes"] ?? 2 * 1024 * 1024,
      onOwnAction: () => this.follower.end(),
      onTooLarge: () => this.hooks.notify("That is too much for one text file, so nothing was inserted."),
      onReady: (view) => {
        unwatch = this.follower.watch(view, document);
      },
      onDestroy: () => {
        unwatch();
        const left = (this.mounts.get(id) ?? 1) - 1;
        this.mounts.set(id, left);
        if (left === 0) document.awareness.setLocalState(null);
        this.undos.get(id)?.undo.save();
        release();
      },
    });
  }

  async text(documentId: string): Promise<string> {
    const release = this.client.hold(documentId);
    try {
      const document = this.client.open(documentId);
      await document.whenReady();
      return document.text.toString();
    } finally {
      release();
    }
  }

  retryNow(): void {
    this.client.link.retryNow();
  }

  refusedCopies(): { path: string; text: string }[] {
    const copies: { path: string; text: string }[] = [];
    for (const document of this.client.documents.values()) {
      if (document.changes === 0 || document.id === TREE) continue;
      const node = this.tree.peek().find((candidate) => candidate.id === document.id);
      copies.push({ path: node?.path ?? `${document.id}.txt`, text: document.text.toString() });
    }
    return copies;
  }

  async discardRefused(): Promise<void> {
    const documents = [...this.client.documents.values()].filter((document) => document.changes > 0);
    this.leave();
    await this.client.close(documents.map((document) => document.id));
  }

  close(): void {
    this.leave();
    void this.client.close();
  }

  private leave(): void {
    for (const stop of this.stops.splice(0)) stop();
    for (const { undo } of this.undos.values()) {
      undo.save();
      undo.destroy();
    }
    this.undos.clear();
    this.follower.destroy();
  }

  private watchTree(): Workspace["files"] {
    const { doc, awareness } = this.treeDocument;
    const files = doc.getMap("files") as Y.Map<unknown>;
    const read = (): void => {
      this.derived.value = derive(entriesOf(files));
    };
    files.observeDeep(read);
    const people = (): void => {
      this.people.value = peopleOf(awareness, this.me.peek());
    };
    awareness.on("change", people);
    this.stops.push(
      () => files.unobserveDeep(read),
      () => awareness.off("change", people),
      this.me.subscribe((me) => {
        awareness.setLocalState({ ...awareness.getLocalState(), user: userState(me) });
        people();
      }),
    );
    return fileActions({
      files,
      newMap: () => new Y.Map<unknown>(),
      author: () => this.me.peek().id,
      guard: () => {
        if (!this.canEdit.peek() || !this.treeReady.peek()) throw new Error("You cannot change files here.");
      },
      fill: (id, text) => {
        const document = this.client.open(id, true);
        if (text !== "") document.text.insert(0, text);
      },
      now: () => Date.now(),
    });
  }

  private watchPage(): void {
    const { environment } = this;
    this.stops.push(
      environment.onDoubt(() => this.client.link.probe()),
      environment.onLeave(() => {
        for (const { undo } of this.undos.values()) undo.save();
      }),
      environment.guardLeaving(
        () => [...this.client.documents.values()].some((document) => document.early > 0 || (this.keepsNothing && document.changes > 0)),
      ),
      this.session.subscribe(() => this.refresh()),
    );
  }

  private undoOf(document: SyncedDocument): TextUndo {
    const existing = this.undos.get(document.id);
    if (existing?.document === document) return existing.undo;
    existing?.undo.destroy();
    const key = `atelier:undo:${this.boot.me.id}:${this.boot.session.id}:${document.id}`;
    const undo = new TextUndo(document.text, this.environment.tabStorage, key, [EditOrigin]);
    this.undos.set(document.id, { document, undo });
    return undo;
  }

  private refresh(): void {
    if (this.treeDocument === undefined) return; // the client reports while it is being made
    const link = this.client.link.state;
    this.treeReady.value = this.treeDocument.ready;
    this.ended.value = link.kind === "ended";
    if (link.kind === "open") this.writable.value = this.treeDocument.scope === "read-write";
    const documents = [...this.client.documents.values()];
    const next = statusOf({
      link,
      everOpen: this.everOpen,
      documents,
      role: this.session.peek().role,
      writable: this.writable.peek(),
      firstRole: this.boot.session.role,
    });
    if (next.kind === "saved" || next.kind === "readonly") this.everOpen = true;
    if (JSON.stringify(next) !== JSON.stringify(this.status.peek())) this.status.value = next;
  }

  private onFault(fault: SyncFault): void {
    if (fault.kind === "storage") {
      this.keepsNothing = true;
      this.hooks.notify("This browser keeps nothing on the device: stay online until your edits are saved.");
      return;
    }
    console.error("atelier: sync fault", fault);
    this.hooks.notify("Something from the server could not be read. Your edits are kept; reload to see the latest text.", {
      label: "Reload",
      run: () => location.reload(),
    });
  }
}
