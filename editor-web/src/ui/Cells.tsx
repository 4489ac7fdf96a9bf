// The Cells panel: what the session's interpreter was sent, what came of it, and a line to ask it something.
//
// Everything that a cell shows comes from a program: pictures are images, pages run in a frame without an origin.
import { useEffect, useRef, useState } from "preact/hooks";

import { type Cell, type CellEvent, endingOf, placeIn, titleOf } from "../model/cells";
import { colorOf, initialsOf } from "../model/palette";
import type { Chunk } from "../model/runs";
import type { Shell } from "../model/shell";
import { Lines } from "./Lines";
import "../styles/results.css";
import "../styles/cells.css";

const MOST_HEIGHT = 560;
const FIRST_HEIGHT = 120;

export function Cells({ shell }: { shell: Shell }) {
  const { cells, workspace } = shell;
  const list = cells.list.value;
  const scroller = useRef<HTMLDivElement>(null);
  const stuck = useRef(true);
  const seen = useRef(0);
  // Whatever grows (a line, a picture, a page) keeps the end in view, for who was there.
  useEffect(() => {
    const element = scroller.current;
    if (element === null) return;
    const growing = new ResizeObserver(() => {
      if (stuck.current) element.scrollTop = element.scrollHeight;
    });
    for (const child of [element, ...element.children]) growing.observe(child);
    return () => growing.disconnect();
  }, [list.length === 0]);
  return (
    <div class="cells" data-cells>
      <Bar shell={shell} />
      <div
        class="cells-list"
        ref={scroller}
        tabIndex={0}
        role="region"
        aria-label="Cells and what they show"
        onScroll={(event) => {
          const element = event.currentTarget;
          // Only who goes up leaves the end: what has grown meanwhile is not their doing.
          if (element.scrollHeight - element.scrollTop - element.clientHeight < 24) stuck.current = true;
          else if (element.scrollTop < seen.current) stuck.current = false;
          seen.current = element.scrollTop;
        }}
      >
        {list.length === 0 && <Empty shell={shell} />}
        <ol class="plain" aria-live="polite" aria-relevant="additions">
          {list.map((cell, index) => (
            <Entry key={cell.id} shell={shell} cell={cell} before={list[index - 1]} />
          ))}
        </ol>
      </div>
      {workspace.canRun.value && <Ask shell={shell} onSent={() => (stuck.current = true)} />}
    </div>
  );
}

function Bar({ shell }: { shell: Shell }) {
  const { cells, workspace } = shell;
  const running = cells.running.value;
  const waiting = cells.waiting.value.length;
  const interpreter = cells.interpreter.value;
  const state = running !== null ? `Runs [${running.number}]` : waiting > 0 ? "Starting…" : interpreter !== null ? "Ready" : "Not started";
  return (
    <div class="cells-bar">
      <span class="cells-state" data-busy={running !== null || waiting > 0} role="status">
        Python · {state}
        {waiting > 0 && running !== null && ` · ${waiting} ${waiting === 1 ? "waits" : "wait"}`}
      </span>
      {workspace.canRun.value && (
        <>
          <button type="button" class="button" disabled={running === null} title="Stop the cell that runs; the variables stay" onClick={() => running !== null && void cells.stop(running.id)}>
            Interrupt
          </button>
          <button type="button" class="button" disabled={interpreter === null && waiting === 0} title="Begin anew, without any variables" onClick={() => void cells.restart()}>
            Restart
          </button>
          <button type="button" class="button" disabled={cells.list.value.every(({ status }) => status !== "ended")} title="Take away the cells that have ended, for everyone; the variables stay" onClick={() => void cells.clear()}>
            Clear
          </button>
        </>
      )}
    </div>
  );
}

function Empty({ shell }: { shell: Shell }) {
  const active = shell.active.value;
  const python = active !== null && /\.py$/i.test(active.path);
  return (
    <div class="cells-empty">
      <p class="empty">
        Cells run in one Python that keeps its variables, for everyone here. In a Python file, a line that begins with <code># %%</code> begins a cell;{" "}
        <kbd>Shift+Enter</kbd> runs it.
      </p>
      {python && shell.workspace.canRun.value && (
        <button type="button" class="button button-primary" onClick={() => shell.runAllCells()}>
          Run {active.path.split("/").pop()} here
        </button>
      )}
    </div>
  );
}

interface EntryProps {
  shell: Shell;
  cell: Cell;
  before: Cell | undefined;
}

function Entry({ shell, cell, before }: EntryProps) {
  const [opened, setOpened] = useState(false);
  const { cells, workspace } = shell;
  const events = cells.events.value.get(cell.id);
  const by = cell.user_name ?? "Somebody";
  const fresh = cell.life !== null && before?.life != null && before.life !== cell.life;
  const ahead = cell.status === "queued" ? cells.waiting.value.findIndex(({ id }) => id === cell.id) + (cells.running.value === null ? 0 : 1) : 0;
  const place = cell.path !== null && cell.line !== null;
  const name = cell.number !== null ? `[${cell.number}]` : cell.status === "queued" ? "waits" : "–";
  return (
    <>
      {fresh && <li class="cell-life">A new interpreter: the variables from before are gone</li>}
      <li class="cell" data-state={cell.status} data-outcome={cell.outcome} aria-label={`Cell ${name} by ${by}`}>
        <div class="cell-head">
          <span class="cell-number">{cell.status === "running" ? `[${cell.number}] …` : name}</span>
          <button type="button" class="cell-title" aria-expanded={opened} title={opened ? "Hide the code" : "Show the code"} onClick={() => setOpened(!opened)}>
            {titleOf(cell.code)}
          </button>
          {ahead > 0 && <span class="quiet">{ahead} before it</span>}
          {place && (
            <button type="button" class="place cell-place" onClick={() => shell.open(cell.path as string, cell.line as number)}>
              {(cell.path as string).split("/").pop()}:{cell.line}
            </button>
          )}
          {cell.wall_seconds !== null && cell.wall_seconds >= 0.1 && <span class="quiet">{cell.wall_seconds.toFixed(1)} s</span>}
          <span class="avatar avatar-small" style={{ background: colorOf(cell.user_id ?? "") }} title={by}>
            {initialsOf(by)}
          </span>
          {cell.status === "queued" && workspace.canRun.value && (
            <button type="button" class="button cell-stop" aria-label={`Do not run ${titleOf(cell.code)}`} onClick={() => void cells.stop(cell.id)}>
              Cancel
            </button>
          )}
        </div>
        {opened && <pre class="cell-code">{cell.code}</pre>}
        {events !== undefined && <Shown shell={shell} cell={cell} events={events} />}
        {cells.unread.value.has(cell.id) && (
          <button type="button" class="button" onClick={() => void cells.load(cell.id)}>
            Show its output
          </button>
        )}
        {cell.error !== null && cell.outcome !== "interrupted" && (
          <div class="cell-error">
            <Lines shell={shell} chunks={[{ seq: 0, stream: "stderr", data: cell.error.text }]} find={(line) => placeIn(line, cell.life, cells.list.value)} />
          </div>
        )}
        {endingOf(cell) !== "" && <p class={`run-end ${cell.outcome === "died" ? "danger" : ""}`}>{endingOf(cell)}</p>}
        {cell.status === "running" && workspace.canRun.value && <Input shell={shell} cell={cell} />}
      </li>
    </>
  );
}

/** What a cell printed and showed, in its order: text together, everything else by itself. */
function Shown({ shell, cell, events }: { shell: Shell; cell: Cell; events: readonly CellEvent[] }) {
  const parts: ({ kind: "text"; key: number; chunks: Chunk[] } | { kind: "value" | "note"; key: number; event: CellEvent })[] = [];
  for (const event of events) {
    if (event.type === "value" || event.type === "note") {
      if (event.data["instead"] !== true) parts.push({ kind: event.type, key: event.seq, event });
      continue;
    }
    const chunk = { seq: event.seq, stream: event.type, data: String(event.data["data"] ?? "") };
    const last = parts.at(-1);
    if (last?.kind === "text") last.chunks.push(chunk);
    else parts.push({ kind: "text", key: event.seq, chunks: [chunk] });
  }
  return (
    <>
      {parts.map((part) =>
        part.kind === "text" ? (
          <Lines key={part.key} shell={shell} chunks={part.chunks} />
        ) : part.kind === "note" ? (
          <p key={part.key} class="run-end">{String(part.event.data["data"])}</p>
        ) : (
          <Value key={part.key} shell={shell} cell={cell} event={part.event} />
        ),
      )}
    </>
  );
}

function Value({ shell, cell, event }: { shell: Shell; cell: Cell; event: CellEvent }) {
  const [gone, setGone] = useState(false);
  const number = event.data["number"] as number | undefined;
  const media = String(event.data["media_type"]);
  if (number === undefined) return <pre class={`lines ${event.data["role"] === "value" ? "cell-value" : ""}`}>{String(event.data["data"])}</pre>;
  const address = shell.cells.fileUrl(cell.id, number);
  const label = `What cell ${cell.number ?? ""} shows`;
  if (gone) return <p class="quiet">It is not kept any more: newer cells needed the room.</p>;
  if (media === "text/html") return <Page address={address} label={label} mine={cell.user_id === shell.boot.me.id} />;
  return (
    <figure class="picture cell-picture">
      <a href={address} target="_blank" rel="noopener" title="Open the picture by itself">
        <img src={address} alt={label} onError={() => setGone(true)} />
      </a>
    </figure>
  );
}

/** A page of somebody else's waits for a click; each says how high it is, and is believed up to a point. */
function Page({ address, label, mine }: { address: string; label: string; mine: boolean }) {
  const frame = useRef<HTMLIFrameElement>(null);
  const [opened, setOpened] = useState(mine);
  const [height, setHeight] = useState(FIRST_HEIGHT);
  useEffect(() => {
    const hear = (event: MessageEvent): void => {
      const told: unknown = (event.data as { atelierHeight?: unknown } | null)?.atelierHeight;
      if (event.source === frame.current?.contentWindow && typeof told === "number" && Number.isFinite(told)) {
        setHeight(Math.max(32, Math.min(MOST_HEIGHT, told)));
      }
    };
    addEventListener("message", hear);
    return () => removeEventListener("message", hear);
  }, []);
  if (!opened) {
    return (
      <button type="button" class="button" onClick={() => setOpened(true)}>
        Show the page
      </button>
    );
  }
  return <iframe ref={frame} class="page cell-page" style={{ height: `${height}px` }} title={label} src={address} sandbox="allow-scripts" referrerpolicy="no-referrer" />;
}

function Input({ shell, cell }: { shell: Shell; cell: Cell }) {
  const [text, setText] = useState("");
  const [late, setLate] = useState(false);
  const [wanted, setWanted] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), 500); // most cells have ended by then
    return () => clearTimeout(timer);
  }, []);
  if (!late) return null;
  // A line that was printed and not ended is a question.
  const last = shell.cells.events.value.get(cell.id)?.at(-1);
  const asks = last?.type === "stdout" && !String(last.data["data"] ?? "\n").endsWith("\n");
  if (!asks && !wanted) {
    return (
      <button type="button" class="place cell-wants" onClick={() => setWanted(true)}>
        Type input
      </button>
    );
  }
  return (
    <form
      class="cell-input"
      onSubmit={(event) => {
        event.preventDefault();
        void shell.cells.input(`${text}\n`);
        setText("");
      }}
    >
      <input aria-label={`Input for cell ${cell.number}`} placeholder="Type input for the cell, Enter sends it" value={text} onInput={(event) => setText(event.currentTarget.value)} autocomplete="off" />
      <button type="submit" class="button">Send</button>
    </form>
  );
}

/** One line, or more with Shift+Enter; the arrows bring back what one has asked before. */
function Ask({ shell, onSent }: { shell: Shell; onSent: () => void }) {
  const [text, setText] = useState("");
  const [back, setBack] = useState(0);
  const kept = useRef("");
  const field = useRef<HTMLTextAreaElement>(null);
  const asked = [...new Set(shell.cells.list.value.filter((cell) => cell.path === null && cell.user_id === shell.boot.me.id).map((cell) => cell.code).reverse())];
  const recall = (steps: number): void => {
    if (back === 0) kept.current = text;
    const at = Math.max(0, Math.min(asked.length, back + steps));
    setBack(at);
    setText(at === 0 ? kept.current : (asked[at - 1] ?? ""));
  };
  const send = async (): Promise<void> => {
    if (text.trim() === "") return;
    onSent();
    setText("");
    setBack(0);
    if (!(await shell.cells.send([{ code: text }]))) setText(text);
  };
  return (
    <form
      class="cells-ask"
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
    >
      <textarea
        ref={field}
        rows={Math.min(6, text.split("\n").length)}
        aria-label="Ask the interpreter"
        placeholder="Python, Enter runs it"
        value={text}
        spellcheck={false}
        autocapitalize="off"
        autocomplete="off"
        onInput={(event) => {
          setText(event.currentTarget.value);
          setBack(0);
        }}
        onKeyDown={(event) => {
          const element = event.currentTarget;
          if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
            event.preventDefault();
            void send();
          } else if (event.key === "ArrowUp" && !text.slice(0, element.selectionStart).includes("\n") && back < asked.length) {
            event.preventDefault();
            recall(1);
          } else if (event.key === "ArrowDown" && !text.slice(element.selectionStart).includes("\n") && back > 0) {
            event.preventDefault();
            recall(-1);
          }
        }}
      />
      <button type="submit" class="button" disabled={text.trim() === ""}>Run</button>
    </form>
  );
}
