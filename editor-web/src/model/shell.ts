// The page as one object: the workspace, the layout, runs, events and what commands do with them.
import { computed, effect, signal } from "@preact/signals";

import { clearLines, markLines } from "../editor/marks";
import { call } from "../api/http";
import { type CodeCell, hasCells, offerCells, runAllCells, runCellAt } from "../editor/cells";
import { Cells } from "./cells";
import { Events, type SessionEvent } from "./events";
import { importProgress } from "./imports";
import { Layout } from "./layout";
import { Runs } from "./runs";
import { Terminals } from "./terminals";
import { complain, notify } from "./toasts";
import type { Boot, EditorHandle, FileNode, Role, SessionInfo, Workspace } from "./types";
import { openWorkspace } from "./workspace";

export type Dialog = "palette" | "files" | "share" | "help" | "trash" | "git" | "history" | "internet" | null;

export class Shell {
  readonly workspace: Workspace;
  readonly layout: Layout;
  readonly runs: Runs;
  readonly terminals: Terminals;
  readonly cells: Cells;
  readonly dialog = signal<Dialog>(null);
  readonly cursor = signal("1:1");
  /** The file whose name is being typed: a path to rename, or a new one in a folder. */
  readonly naming = signal<{ kind: "rename"; path: string } | { kind: "text" | "folder"; folder: string } | null>(null);
  readonly nodes;
  readonly active;
  /** What the editors of the panes are, by pane. */
  readonly editors = new Map<number, { id: string; handle: EditorHandle }>();
  readonly accessLost = signal(false);
  private wanted: { id: string; line: number; column: number } | null = null;

  constructor(readonly boot: Boot) {
    this.layout = new Layout(globalThis.localStorage, `atelier:layout:${boot.session.id}`);
    this.workspace = openWorkspace(boot, {
      openDocument: (id) => this.layout.open(id),
      notify: (message, action) => notify(message, action),
    });
    this.nodes = computed(() => new Map(this.workspace.tree.value.map((node) => [node.id, node])));
    this.active = computed(() => {
      const id = this.layout.panes.value[this.layout.focused.value]?.active ?? null;
      return id === null ? null : (this.nodes.value.get(id) ?? this.first(id));
    });
    const paths = computed(() => new Set(this.workspace.tree.value.map((node) => node.path)));
    this.runs = new Runs(
      boot.session.id,
      () => paths.value,
      () => this.layout.showBottom("output"),
    );
    this.terminals = new Terminals(boot.session.id);
    this.cells = new Cells(boot.session.id);
    new Events(
      boot.session.id,
      (event) => this.receive(event),
      () => {
        void this.runs.refresh();
        void this.terminals.refresh();
        void this.cells.refresh();
      },
    );
    if (boot.first !== null && this.layout.panes.peek().every((pane) => pane.tabs.length === 0)) {
      this.layout.open(boot.first.document_id);
    }
    effect(() => {
      if (this.workspace.treeReady.value && this.workspace.status.value.kind === "saved") {
        const nodes = this.nodes.value;
        this.layout.retain((id) => nodes.has(id));
      }
    });
    effect(() => this.workspace.showing(this.active.value?.kind === "text" ? this.active.value.id : null));
    effect(() => this.markFailure());
    effect(() => {
      void this.workspace.canRun.value;
      void this.nodes.value;
      for (const { id, handle } of this.editors.values()) this.offerCells(id, handle);
    });
  }

  get session(): string {
    return this.boot.session.id;
  }

  /** The file that came with the page, until the tree is there. */
  private first(id: string): FileNode | null {
    const first = this.boot.first;
    return first?.document_id === id && !this.workspace.treeReady.value
      ? { id, path: first.path, kind: "text", trashed: null }
      : null;
  }

  open(path: string, line?: number, column = 0): void {
    const node = this.workspace.tree.peek().find((candidate) => candidate.path === path && candidate.kind !== "folder");
    if (node === undefined) return;
    this.layout.open(node.id);
    if (line !== undefined) this.wanted = { id: node.id, line, column };
    queueMicrotask(() => this.goWhereWanted());
  }

  /** A pane shows a file now. */
  mounted(pane: number, id: string, handle: EditorHandle): void {
    this.editors.set(pane, { id, handle });
    this.goWhereWanted();
    this.markFailure();
    this.offerCells(id, handle);
  }

  /** Lets the cells of a Python file be run where they stand. */
  private offerCells(id: string, handle: EditorHandle): void {
    const node = this.nodes.peek().get(id) ?? this.first(id);
    const python = node !== null && /\.py$/i.test(node.path) && this.workspace.canRun.peek();
    offerCells(handle.view, python ? (cells) => void this.runCells(id, cells) : null);
  }

  private get editorInFront(): EditorHandle | undefined {
    return this.editors.get(this.layout.focused.peek())?.handle;
  }

  /** Whether a key that runs was pressed in the text of a file that is divided into cells. */
  stayInCell(event: KeyboardEvent): boolean {
    const view = this.editorInFront?.view;
    return view !== undefined && event.target instanceof Node && view.dom.contains(event.target) && hasCells(view);
  }

  runCell(goOn: boolean): void {
    const view = this.editorInFront?.view;
    if (view !== undefined && !runCellAt(view, goOn)) notify("There is nothing to run here: a line that begins with # %% begins a cell.");
  }

  runAllCells(): void {
    const view = this.editorInFront?.view;
    if (view !== undefined) runAllCells(view);
  }

  async runCells(id: string, cells: readonly CodeCell[]): Promise<void> {
    const path = (this.nodes.peek().get(id) ?? this.first(id))?.path ?? null;
    this.layout.showBottom("cells");
    await this.cells.send(cells.map(({ code, line }) => ({ code, path, line })));
  }

  unmounted(pane: number, handle: EditorHandle): void {
    if (this.editors.get(pane)?.handle === handle) this.editors.delete(pane);
  }

  focusEditor(): void {
    this.editors.get(this.layout.focused.peek())?.handle.focus();
  }

  async run(): Promise<void> {
    if (!this.workspace.canRun.peek()) return;
    const active = this.active.peek();
    await this.runs.start(active?.kind === "text" ? active.path : null);
  }

  /** Shows the terminals, with a first one where there is none; or goes back to the text. */
  toggleTerminal(): void {
    if (this.layout.bottom.peek() === "terminal" && this.layout.view.peek() !== "files") {
      this.layout.showBottom(null);
      this.layout.view.value = "code";
      this.focusEditor();
    } else this.showTerminal();
  }

  showTerminal(): void {
    this.layout.showBottom("terminal");
    if (this.terminals.list.peek().length === 0 && this.workspace.canRun.peek()) void this.terminals.open();
  }

  /** Runs the open file in a terminal of its own: for programs that ask, draw or play. */
  async runInTerminal(): Promise<void> {
    const active = this.active.peek();
    this.layout.showBottom("terminal");
    if (active?.kind === "text") await this.terminals.open(active.path);
  }

  async stop(): Promise<void> {
    const run = this.runs.active.peek();
    if (run !== null) await this.runs.stop(run.id);
  }

  remove(path: string): void {
    try {
      const undo = this.workspace.files.remove(path);
      notify(`${path} is in the trash.`, { label: "Undo", run: undo });
    } catch (error) {
      complain(error);
    }
  }

  async rename(name: string): Promise<void> {
    const before = this.workspace.session.peek();
    if (name.trim() === "" || name.trim() === before.name) return;
    this.workspace.session.value = { ...before, name: name.trim() };
    try {
      await call("PATCH", `/api/v1/sessions/${this.session}`, { name: name.trim() });
    } catch (error) {
      this.workspace.session.value = before;
      complain(error);
    }
  }

  /** Lets the session's programs reach the internet, or no longer. */
  async changeEgress(on: boolean): Promise<void> {
    try {
      const { egress } = await call<SessionInfo>("PUT", `/api/v1/sessions/${this.session}/egress`, { on });
      this.workspace.session.value = { ...this.workspace.session.peek(), egress };
    } catch (error) {
      complain(error);
    }
  }

  followNext(): void {
    const others = this.workspace.people.peek().filter((person) => !person.me);
    const at = others.findIndex((person) => person.key === this.workspace.following.peek());
    this.workspace.following.value = others[at + 1]?.key ?? null;
  }

  /** Gives what was not taken by the server back as files. */
  async keepCopy(): Promise<void> {
    const copies = this.workspace.refusedCopies();
    const active = this.active.peek();
    if (copies.length === 0 && active?.kind === "text") {
      copies.push({ path: active.path, text: await this.workspace.text(active.id) });
    }
    for (const { path, text } of copies) download(path.split("/").pop() ?? "copy.txt", text);
  }

  private goWhereWanted(): void {
    const wanted = this.wanted;
    if (wanted === null) return;
    for (const { id, handle } of this.editors.values()) {
      if (id !== wanted.id) continue;
      this.wanted = null;
      handle.reveal(wanted.line, wanted.column);
      handle.focus();
    }
  }

  private markFailure(): void {
    const failure = this.runs.failure.value;
    for (const { id, handle } of this.editors.values()) {
      const path = this.nodes.peek().get(id)?.path;
      if (failure !== null && failure.path === path) markLines(handle.view, [failure]);
      else clearLines(handle.view);
    }
  }

  private receive({ type, data }: SessionEvent): void {
    const mine = data["user_id"] === this.boot.me.id;
    const name = String(data["display_name"] ?? "Somebody");
    if (type.startsWith("run.")) {
      if (this.runs.receive(type, data)) this.layout.showBottom("output");
    } else if (type.startsWith("terminal.")) this.terminals.receive(type, data);
    else if (type.startsWith("cell.") || type.startsWith("interpreter.")) this.cells.receive(type, data);
    else if (type === "member.joined" && !mine) notify(`${name} joined.`);
    else if (type === "member.role" && mine) notify(`Your role is ${String(data["role"])} now.`);
    else if (type === "import.progress" && mine) importProgress(data);
    else if (type === "access") {
      this.workspace.session.value = { ...this.workspace.session.peek(), role: data["role"] as Role };
    } else if (type === "access.ended") this.accessLost.value = true;
    else if (type === "session.changed") {
      const { name, entry, egress } = data as unknown as SessionInfo;
      this.workspace.session.value = { ...this.workspace.session.peek(), name, entry, egress };
    }
  }
}

export function download(name: string, content: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "text/plain" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
