// What runs in the session at this moment, by whom and since when: shown from the status line, stopped with a press.
import { useEffect, useState } from "preact/hooks";

import { colorOf, initialsOf } from "../model/palette";
import type { Shell } from "../model/shell";

interface Process {
  id: string;
  title: string;
  state: string;
  userId: string | null;
  by: string;
  since: number;
  show: () => void;
  stop: () => void;
}

export function Running({ shell }: { shell: Shell }) {
  const processes = processesOf(shell);
  if (processes.length === 0) return null;
  return (
    <>
      <button type="button" class="status-button" popovertarget="running">
        {processes.length} running
      </button>
      <div id="running" popover="auto" class="running" role="dialog" aria-label="What runs">
        <ul class="plain">
          {processes.map((process) => (
            <li key={process.id} class="running-row">
              <span class="avatar avatar-small" style={{ background: colorOf(process.userId ?? "") }} aria-hidden="true">
                {initialsOf(process.by)}
              </span>
              <button type="button" class="row-button" onClick={process.show} popovertarget="running" popovertargetaction="hide">
                {process.title}
                <span class="quiet">
                  {process.state} · {process.by} · <Since time={process.since} />
                </span>
              </button>
              {shell.workspace.canRun.value && (
                <button type="button" class="button" aria-label={`Stop ${process.title}`} onClick={process.stop}>
                  Stop
                </button>
              )}
            </li>
          ))}
        </ul>
      </div>
    </>
  );
}

function processesOf(shell: Shell): Process[] {
  const { cells, runs, terminals, layout } = shell;
  const interpreter = cells.interpreter.value;
  const going = runs.list.value.filter((run) => run.status !== "ended");
  return [
    ...going.map((run) => ({
      id: run.id,
      title: run.entry,
      state: run.status === "running" ? "runs" : run.position ? `waits, ${run.position} before it` : "waits",
      userId: run.user_id,
      by: run.user_name ?? "somebody",
      since: run.started_at ?? run.created_at,
      show: () => {
        runs.show(run.id);
        layout.showBottom("output");
      },
      stop: () => void runs.stop(run.id),
    })),
    ...(interpreter === null
      ? []
      : [
          {
            id: `interpreter ${interpreter.life}`,
            title: "Python interpreter",
            state: cells.running.value === null ? "waits for cells" : "runs a cell",
            userId: interpreter.user_id,
            by: interpreter.user_name ?? "somebody",
            since: interpreter.created_at,
            show: () => layout.showBottom("cells"),
            stop: () => void cells.restart(),
          },
        ]),
    ...terminals.list.value.map((terminal) => ({
      id: terminal.id,
      title: terminal.title,
      state: "terminal",
      userId: terminal.user_id,
      by: terminal.user_name ?? "somebody",
      since: terminal.created_at,
      show: () => {
        terminals.show(terminal.id);
        layout.showBottom("terminal");
      },
      stop: () => void terminals.end(terminal.id),
    })),
  ];
}

/** How long it has been, as a clock. */
function Since({ time }: { time: number }) {
  const [now, tick] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => tick(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  const seconds = Math.max(0, Math.floor((now - time) / 1000));
  const minutes = Math.floor(seconds / 60);
  const two = (n: number): string => String(n).padStart(2, "0");
  return <>{minutes < 60 ? `${minutes}:${two(seconds % 60)}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(seconds % 60)}`}</>;
}
