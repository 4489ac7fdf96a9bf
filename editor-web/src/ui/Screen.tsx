// One terminal as xterm.js draws it. Its size is everybody's: that of the window which was last typed into.
import "@xterm/xterm/css/xterm.css";

import { FitAddon } from "@xterm/addon-fit";
import { WebLinksAddon } from "@xterm/addon-web-links";
import { type ITheme, Terminal } from "@xterm/xterm";
import { useEffect, useRef, useState } from "preact/hooks";

import type { Shell } from "../model/shell";
import { theme } from "../model/theme";
import { places } from "../model/tracebacks";
import { ScreenSocket, type ScreenState } from "../sync/screen";

interface Props {
  shell: Shell;
  id: string;
  onPeople: (people: ScreenState["people"]) => void;
}

export function Screen({ shell, id, onPeople }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const [away, setAway] = useState(false);
  useEffect(() => show(place.current as HTMLElement, shell, id, { onPeople, onAway: setAway }), [id]);
  return (
    <div class="screen-frame" data-terminal>
      <div class="screen" ref={place} data-readonly={!shell.workspace.canRun.value} />
      {away && (
        <p class="screen-away" role="status">
          Reconnecting…
        </p>
      )}
    </div>
  );
}

function show(element: HTMLElement, shell: Shell, id: string, on: { onPeople: Props["onPeople"]; onAway: (away: boolean) => void }): () => void {
  const terminal = new Terminal({
    allowProposedApi: false,
    cursorBlink: false,
    fontFamily: token("--code-font"),
    fontSize: 13,
    macOptionIsMeta: true,
    rightClickSelectsWord: true,
    scrollback: 5_000,
    theme: colors(),
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.loadAddon(new WebLinksAddon((_, address) => window.open(address, "_blank", "noopener,noreferrer")));
  terminal.open(element);
  terminal.textarea?.setAttribute("aria-label", "Terminal. Ctrl and ` leaves it.");

  let size = { columns: 0, rows: 0 }; // everybody's
  let alone = true;
  const connection = new ScreenSocket(shell.terminals.socketPath(id), {
    write: (data, shown) => terminal.write(data, shown),
    reset: () => terminal.reset(),
    connected: (connected) => on.onAway(!connected),
    state: (state) => {
      const first = size.columns === 0;
      size = { columns: state.columns, rows: state.rows };
      alone = state.people.length < 2;
      on.onPeople(state.people);
      if (first && alone) claim();
      terminal.resize(size.columns, size.rows);
    },
  });

  /** Gives the terminal the size of this window. */
  const claim = (): void => {
    const own = fit.proposeDimensions();
    if (own === undefined || !shell.workspace.canRun.peek() || Number.isNaN(own.cols) || Number.isNaN(own.rows)) return;
    const wanted = { columns: Math.max(20, own.cols), rows: Math.max(4, own.rows) };
    if (size.columns === 0 || (wanted.columns === size.columns && wanted.rows === size.rows)) return;
    connection.resize(wanted.columns, wanted.rows);
  };

  let control = false;
  const type = (keys: string): void => {
    const held = control && keys.length === 1 ? String.fromCharCode(keys.toUpperCase().charCodeAt(0) & 31) : keys;
    control = false;
    claim();
    connection.type(held);
  };
  shell.terminals.keyboard.value = { type, control: (held) => (control = held) };
  terminal.onData(type);
  terminal.onBinary((keys) => connection.type(keys));
  terminal.attachCustomKeyEventHandler((event) => {
    const mod = event.ctrlKey || event.metaKey;
    if (!mod || event.altKey || event.type !== "keydown") return true;
    if (event.code === "KeyC" && !event.shiftKey && terminal.hasSelection()) return false; // the browser copies
    if (event.code === "KeyV") return false; // and pastes
    return true;
  });
  terminal.registerLinkProvider({
    provideLinks: (row, callback) => {
      const line = terminal.buffer.active.getLine(row - 1)?.translateToString(true) ?? "";
      const paths = new Set(shell.workspace.tree.peek().map((node) => node.path));
      const links = places(line, paths).map((found) => ({
        range: { start: { x: found.start + 1, y: row }, end: { x: found.end, y: row } },
        text: line.slice(found.start, found.end),
        activate: () => shell.open(found.path, found.line, found.column),
      }));
      callback(links.length > 0 ? links : undefined);
    },
  });

  const focused = (): boolean => element.contains(document.activeElement);
  const resized = new ResizeObserver(() => (focused() || alone) && claim());
  resized.observe(element);
  terminal.textarea?.addEventListener("focus", claim);
  const unwatch = theme.subscribe(() => setTimeout(() => (terminal.options.theme = colors())));
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  const recolor = (): void => void (terminal.options.theme = colors());
  scheme.addEventListener("change", recolor);
  if (matchMedia("(pointer: fine)").matches) terminal.focus();

  return () => {
    shell.terminals.keyboard.value = null;
    unwatch();
    scheme.removeEventListener("change", recolor);
    resized.disconnect();
    connection.close();
    terminal.dispose();
  };
}

const token = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** The terminal's palette, of the same tokens as everything else. */
function colors(): ITheme {
  const [text, muted, background] = [token("--text"), token("--muted"), token("--bg")];
  const [red, green, yellow, blue] = [token("--danger"), token("--ok"), token("--warn"), token("--code-function")];
  const [magenta, cyan] = [token("--code-keyword"), token("--code-type")];
  return {
    background,
    foreground: text,
    cursor: token("--accent"),
    cursorAccent: background,
    selectionBackground: token("--code-selection"),
    black: muted,
    brightBlack: muted,
    red,
    brightRed: red,
    green,
    brightGreen: green,
    yellow,
    brightYellow: yellow,
    blue,
    brightBlue: blue,
    magenta,
    brightMagenta: magenta,
    cyan,
    brightCyan: cyan,
    white: text,
    brightWhite: text,
  };
}
