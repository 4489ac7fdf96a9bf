// What a run prints, line by line, with places that lead to the code, and a line to type into while it runs.
import { useEffect, useRef, useState } from "preact/hooks";

import { type Chunk, ending, type Run } from "../model/runs";
import type { Shell } from "../model/shell";
import { missedInternet, refusedByProxy } from "../model/tracebacks";
import { IconButton } from "./icons";
import { lazy } from "./Lazy";
import { Lines } from "./Lines";
import { Terminals } from "./Terminals";

const Cells = lazy(() => import("./Cells").then((module) => module.Cells));
const Results = lazy(() => import("./Results").then((module) => module.Results));

const TITLES = { output: "Output", terminal: "Terminal", cells: "Cells" } as const;

export function Output({ shell }: { shell: Shell }) {
  const { layout, runs } = shell;
  const run = runs.shown.value;
  const problems = runs.failure.value;
  return (
    <section class="bottom" aria-label="Output">
      <div class="bottom-head">
        <div role="tablist" aria-label="Bottom panel" class="tabs">
          {(["output", "terminal", "cells", "problems"] as const).map((name) => (
            <div key={name} class="tab" role="presentation" data-active={layout.bottom.value === name}>
              <button type="button" role="tab" aria-selected={layout.bottom.value === name} onClick={() => (name === "terminal" ? shell.showTerminal() : layout.showBottom(name))}>
                {name === "problems" ? `Problems${problems === null ? "" : " (1)"}` : TITLES[name]}
              </button>
            </div>
          ))}
        </div>
        {layout.bottom.value === "output" && runs.list.value.length > 1 && (
          <select class="run-select" aria-label="Earlier runs" value={run?.id ?? ""} onChange={(event) => runs.show(event.currentTarget.value)}>
            {runs.list.value.map((item) => (
              <option key={item.id} value={item.id}>
                {new Date(item.created_at).toLocaleTimeString()} {item.entry}
              </option>
            ))}
          </select>
        )}
        <IconButton icon="close" label="Close the panel" class="desktop-only" onClick={() => layout.showBottom(null)} />
      </div>
      {layout.bottom.value === "problems" && <Problems shell={shell} />}
      {layout.bottom.value === "terminal" && <Terminals shell={shell} />}
      {layout.bottom.value === "cells" && <Cells shell={shell} />}
      {layout.bottom.value === "output" && <Printed shell={shell} run={run} />}
    </section>
  );
}

function Problems({ shell }: { shell: Shell }) {
  const failure = shell.runs.failure.value;
  if (failure === null) return <p class="empty">No problems. Errors of the last run appear here.</p>;
  return (
    <ul class="plain problems">
      <li>
        <button type="button" class="row-button" onClick={() => shell.open(failure.path, failure.line)}>
          <span class="danger">{failure.message || "Error"}</span> <span class="quiet">{failure.path}:{failure.line}</span>
        </button>
      </li>
    </ul>
  );
}

function Printed({ shell, run }: { shell: Shell; run: Run | null }) {
  const scroller = useRef<HTMLDivElement>(null);
  const stuck = useRef(true);
  const chunks = run === null ? [] : (shell.runs.output.value.get(run.id) ?? []);
  useEffect(() => {
    stuck.current = true;
  }, [run?.id]);
  useEffect(() => {
    const element = scroller.current;
    if (element !== null && stuck.current) element.scrollTop = element.scrollHeight;
  });
  if (run === null) {
    return (
      <div class="printed" data-output>
        <p class="empty">{shell.runs.starting.value ? "Starting…" : "Nothing has run yet. Run shows here what your program prints."}</p>
      </div>
    );
  }
  // What has loaded under the output comes into view, from its top, for who was at the end.
  const grown = (): void => {
    const element = scroller.current;
    const results = element?.querySelector<HTMLElement>(".results");
    if (element === null || results === null || results === undefined || !stuck.current) return;
    const top = results.getBoundingClientRect().top - element.getBoundingClientRect().top + element.scrollTop;
    element.scrollTop = Math.min(element.scrollHeight, Math.max(0, top - 28));
  };
  const bad = run.result !== null && !(run.result.reason === "exited" && run.result.code === 0) && run.result.reason !== "cancelled";
  return (
    <div class="printed-frame" data-output>
      <div
        class="printed"
        ref={scroller}
        tabIndex={0}
        role="region"
        aria-label={`Output of ${run.entry}`}
        onScroll={(event) => {
          const element = event.currentTarget;
          stuck.current = element.scrollHeight - element.scrollTop - element.clientHeight < 24;
        }}
      >
        <div role="log">
          <p class="run-head">
            {run.entry} <span class="quiet">· {run.user_name ?? "somebody"}</span>
          </p>
          <Lines shell={shell} chunks={chunks} />
          <p class={`run-end ${bad ? "danger" : ""}`}>{ending(run, chunks.some((chunk) => chunk.stream === "install"))}</p>
        </div>
        {bad && <NoInternet shell={shell} chunks={chunks} />}
        {run.files != null && <Results key={run.id} shell={shell} run={run} onGrown={grown} />}
      </div>
      {run.status === "running" && shell.workspace.canRun.value && <Stdin shell={shell} run={run} />}
    </div>
  );
}

/** A program that looked for the internet in vain: why, and where that is decided. Some tools print no more than a number. */
function NoInternet({ shell, chunks }: { shell: Shell; chunks: readonly Chunk[] }) {
  const { on } = shell.workspace.session.value.egress;
  const printed = chunks.map((chunk) => chunk.data).join("");
  if (!(on ? refusedByProxy(printed) : missedInternet(printed))) return null;
  return (
    <p class="run-end">
      {on ? "The proxy refused it: programs reach public websites over HTTP and HTTPS." : "Programs of this session reach no network."}{" "}
      <button type="button" class="link" onClick={() => (shell.dialog.value = "internet")}>
        Internet…
      </button>
    </p>
  );
}

function Stdin({ shell, run }: { shell: Shell; run: Run }) {
  const [text, setText] = useState("");
  return (
    <form
      class="stdin"
      onSubmit={(event) => {
        event.preventDefault();
        void shell.runs.write(run.id, `${text}\n`);
        setText("");
      }}
    >
      <input aria-label="Input for the program" placeholder="Type input for the program, Enter sends it" value={text} onInput={(event) => setText(event.currentTarget.value)} autocomplete="off" />
      <button type="submit" class="button">Send</button>
      <button type="button" class="button" title="Says that no more input comes" onClick={() => void shell.runs.write(run.id, "", true)}>
        End input
      </button>
    </form>
  );
}
