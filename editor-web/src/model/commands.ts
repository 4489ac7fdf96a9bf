// Every command: one list, from which the palette, the keys and the help are made.
import type { Shell } from "./shell";
import { cycleTheme } from "./theme";

export interface Command {
  id: string;
  title: string;
  keys?: string; // as shown; Mod is Ctrl, or Cmd on a Mac
  when?: (shell: Shell) => boolean;
  run: (shell: Shell) => void;
}

const canEdit = (shell: Shell): boolean => shell.workspace.canEdit.value;
const hasFile = (shell: Shell): boolean => shell.active.value !== null;
const owns = (shell: Shell): boolean => shell.workspace.session.value.role === "owner";
const inCells = (shell: Shell): boolean => shell.workspace.canRun.value && /\.py$/i.test(shell.active.value?.path ?? "");
const folderOf = (shell: Shell): string => shell.active.peek()?.path.split("/").slice(0, -1).join("/") ?? "";

export const commands: readonly Command[] = [
  { id: "run", title: "Run", keys: "Mod+Enter", when: (shell) => shell.workspace.canRun.value, run: (shell) => void shell.run() },
  { id: "cell", title: "Run the cell or the selection, and go on to the next", keys: "Shift+Enter", when: inCells, run: (shell) => shell.runCell(true) },
  { id: "cell-stay", title: "Run the cell or the selection", keys: "Mod+Enter in a file with # %%", when: inCells, run: (shell) => shell.runCell(false) },
  { id: "cells-all", title: "Run all cells of the file", when: inCells, run: (shell) => shell.runAllCells() },
  { id: "cells", title: "Cells on or off", run: (shell) => shell.layout.showBottom(shell.layout.bottom.peek() === "cells" ? null : "cells") },
  { id: "cells-restart", title: "Restart the interpreter", when: (shell) => shell.workspace.canRun.value && shell.cells.interpreter.value !== null, run: (shell) => void shell.cells.restart() },
  { id: "stop", title: "Stop the run", when: (shell) => shell.runs.active.value !== null, run: (shell) => void shell.stop() },
  { id: "palette", title: "All commands", keys: "F1", run: (shell) => (shell.dialog.value = "palette") },
  { id: "files", title: "Open a file", keys: "Mod+P", run: (shell) => (shell.dialog.value = "files") },
  { id: "share", title: "Share", when: owns, run: (shell) => (shell.dialog.value = "share") },
  { id: "search", title: "Search in files", keys: "Mod+Shift+F", run: (shell) => shell.layout.showSide("search") },
  { id: "tree", title: "Show files", run: (shell) => shell.layout.showSide("files") },
  { id: "side", title: "Side bar on or off", keys: "Mod+B", run: (shell) => shell.layout.toggleSide(shell.layout.side.peek() ?? "files") },
  { id: "output", title: "Output on or off", run: (shell) => shell.layout.showBottom(shell.layout.bottom.peek() === null ? "output" : null) },
  { id: "terminal", title: "Terminal on or off", keys: "Ctrl+`", run: (shell) => shell.toggleTerminal() },
  { id: "terminal-new", title: "New terminal", when: (shell) => shell.workspace.canRun.value, run: (shell) => (shell.layout.showBottom("terminal"), void shell.terminals.open()) },
  { id: "terminal-run", title: "Run the file in a terminal", when: (shell) => shell.workspace.canRun.value && hasFile(shell), run: (shell) => void shell.runInTerminal() },
  { id: "people", title: "People on or off", run: (shell) => shell.layout.togglePeople() },
  { id: "new", title: "New file", when: canEdit, run: (shell) => begin(shell, "text") },
  { id: "folder", title: "New folder", when: canEdit, run: (shell) => begin(shell, "folder") },
  {
    id: "rename",
    title: "Rename the file",
    keys: "F2",
    when: (shell) => canEdit(shell) && hasFile(shell),
    run: (shell) => {
      shell.layout.showSide("files");
      shell.naming.value = { kind: "rename", path: shell.active.peek()?.path ?? "" };
    },
  },
  { id: "delete", title: "Delete the file", when: (shell) => canEdit(shell) && hasFile(shell), run: (shell) => shell.remove(shell.active.peek()?.path ?? "") },
  { id: "trash", title: "Trash", run: (shell) => (shell.dialog.value = "trash") },
  { id: "history", title: "History and versions", keys: "Mod+Alt+H", run: (shell) => (shell.dialog.value = "history") },
  { id: "close", title: "Close the tab", when: hasFile, run: (shell) => shell.layout.close(shell.layout.focused.peek(), shell.active.peek()?.id ?? "") },
  { id: "split", title: "Split the editor, or join it again", when: hasFile, run: (shell) => shell.layout.split() },
  { id: "zip", title: "Download everything as a zip", run: (shell) => location.assign(`/api/v1/sessions/${shell.session}/export.zip`) },
  { id: "git", title: "Import from Git", when: canEdit, run: (shell) => (shell.dialog.value = "git") },
  { id: "internet", title: "Internet for programs", run: (shell) => (shell.dialog.value = "internet") },
  { id: "follow", title: "Follow the next person", keys: "Mod+Alt+F", run: (shell) => shell.followNext() },
  { id: "theme", title: "Theme: system, dark, light", run: () => cycleTheme() },
  { id: "help", title: "Help and keys", run: (shell) => (shell.dialog.value = "help") },
  { id: "sessions", title: "All sessions", run: () => location.assign("/sessions") },
  { id: "settings", title: "Settings", run: () => location.assign("/settings") },
];

export function runCommand(shell: Shell, id: string): void {
  const command = commands.find((candidate) => candidate.id === id);
  if (command !== undefined && (command.when?.(shell) ?? true)) command.run(shell);
}

const KEYS: readonly [string, (event: KeyboardEvent, mod: boolean) => boolean][] = [
  ["palette", (event, mod) => event.key === "F1" || (mod && event.shiftKey && event.code === "KeyP")],
  ["files", (event, mod) => mod && !event.shiftKey && !event.altKey && event.code === "KeyP"],
  ["search", (event, mod) => mod && event.shiftKey && event.code === "KeyF"],
  ["run", (event, mod) => mod && event.key === "Enter"],
  ["side", (event, mod) => mod && !event.shiftKey && !event.altKey && event.code === "KeyB"],
  ["terminal", (event) => event.ctrlKey && event.code === "Backquote"],
  ["follow", (event, mod) => mod && event.altKey && event.code === "KeyF"],
  ["history", (event, mod) => mod && event.altKey && event.code === "KeyH"],
  ["rename", (event) => event.key === "F2"],
];

const KEYS_OVER_TERMINALS: ReadonlySet<string> = new Set(["palette", "search", "terminal", "run", "follow", "history"]);

const inTerminal = (event: KeyboardEvent): boolean => !event.metaKey && (event.target as Element | null)?.closest?.("[data-terminal]") != null;

/** Listens for the keys of the whole page, before the editor does. */
export function listenForKeys(shell: Shell, save: () => void): void {
  addEventListener(
    "keydown",
    (event) => {
      const mod = event.ctrlKey || event.metaKey;
      if (mod && !event.shiftKey && !event.altKey && event.code === "KeyS" && !inTerminal(event)) {
        event.preventDefault();
        save();
        return;
      }
      const found = KEYS.find(([, fits]) => fits(event, mod));
      if (found === undefined) return;
      if (inTerminal(event) && !KEYS_OVER_TERMINALS.has(found[0])) return; // Ctrl+P and the like are the shell's
      event.preventDefault();
      event.stopPropagation();
      runCommand(shell, found[0] === "run" && shell.stayInCell(event) ? "cell-stay" : found[0]);
    },
    { capture: true },
  );
}

/** `Mod+P` as this keyboard says it. */
export function shownKeys(keys: string): string {
  return keys.replace("Mod", /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘" : "Ctrl");
}

function begin(shell: Shell, kind: "text" | "folder"): void {
  shell.layout.showSide("files");
  shell.naming.value = { kind, folder: folderOf(shell) };
}
