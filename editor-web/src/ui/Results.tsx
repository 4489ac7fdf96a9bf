// What a run left: its figures and what else can be looked at, and the files that it made, changed and deleted.
//
// Everything here comes from a program, so nothing of it becomes part of this page: pictures (SVG too) are images, a page
// runs in a frame without an origin, tables and JSON are text. A page of somebody else's run waits for a click.
import { useEffect, useState } from "preact/hooks";

import { call } from "../api/http";
import type { Run, RunFile, RunFiles } from "../model/runs";
import type { Shell } from "../model/shell";
import { isNumeric, parseTable, type Table } from "../model/table";
import { complain, notify } from "../model/toasts";
import { Icon } from "./icons";
import { bytes } from "./Preview";
import "../styles/results.css";

const MOST_ROWS = 100;
const MOST_TEXT = 40_000; // characters of JSON on the page
const OPEN_AT_ONCE = 6;

interface Props {
  shell: Shell;
  run: Run;
  /** Something has loaded and takes more room now. */
  onGrown: () => void;
}

export function Results({ shell, run, onGrown }: Props) {
  const files = run.files as RunFiles;
  const shown = files.items.filter((file) => file.number !== null && viewOf(file) !== null);
  const pictures = shown.filter((file) => viewOf(file) === "picture");
  const others = shown.filter((file) => viewOf(file) !== "picture");
  const mine = run.user_id === shell.boot.me.id;
  useEffect(onGrown, [run.id]);
  return (
    <section class="results" aria-label={`What ${run.entry} left`}>
      <Files shell={shell} run={run} files={files} mine={mine} />
      {pictures.length > 0 && (
        <div class="pictures">
          {pictures.map((file) => (
            <Picture key={file.path} shell={shell} run={run} file={file} onGrown={onGrown} />
          ))}
        </div>
      )}
      {others.map((file, index) => (
        <View key={file.path} shell={shell} run={run} file={file} open={index < OPEN_AT_ONCE && (mine || viewOf(file) !== "page")} onGrown={onGrown} />
      ))}
    </section>
  );
}

type ViewKind = "picture" | "page" | "table" | "json";

function viewOf(file: RunFile): ViewKind | null {
  if (file.media_type.startsWith("image/")) return "picture";
  if (file.media_type === "text/html") return "page";
  if (file.media_type === "text/csv" || file.media_type === "text/tab-separated-values") return "table";
  return file.media_type === "application/json" ? "json" : null;
}

const address = (run: Run, file: RunFile): string => `/api/v1/sessions/${run.session_id}/runs/${run.id}/files/${file.number}`;
const title = (file: RunFile): string => (file.kind === "figure" ? `Figure ${Number.parseInt(file.path, 10) || file.path}` : file.path);

/** A name that leads to the file where it is now; what is not in the session can be opened by itself. */
function Name({ shell, run, file, label = title(file) }: { shell: Shell; run: Run; file: RunFile; label?: string }) {
  const place = file.place;
  const there = place !== null && shell.workspace.tree.value.some((node) => node.path === place);
  if (there) {
    return (
      <button type="button" class="place" title={`Open ${place}`} onClick={() => shell.open(place)}>
        {label}
      </button>
    );
  }
  if (file.number === null) return <span>{label}</span>;
  return (
    <a class="place" href={address(run, file)} target="_blank" rel="noopener" title="Open it by itself">
      {label}
    </a>
  );
}

function Picture({ shell, run, file, onGrown }: Props & { file: RunFile }) {
  const [gone, setGone] = useState(false);
  return (
    <figure class="picture">
      {gone ? (
        <p class="quiet">It cannot be shown: it is no picture, or newer runs needed the room.</p>
      ) : (
        <a href={address(run, file)} target="_blank" rel="noopener" title="Open the picture by itself">
          <img src={address(run, file)} alt={title(file)} onLoad={onGrown} onError={() => setGone(true)} />
        </a>
      )}
      <figcaption>
        <Name shell={shell} run={run} file={file} /> <span class="quiet">{bytes(file.size)}</span>
      </figcaption>
    </figure>
  );
}

function View({ shell, run, file, open, onGrown }: Props & { file: RunFile; open: boolean }) {
  const [opened, setOpened] = useState(open);
  const kind = viewOf(file);
  return (
    <details class="view" open={opened} onToggle={(event) => setOpened(event.currentTarget.open)}>
      <summary>
        <span class="view-title">{title(file)}</span> <span class="quiet">{bytes(file.size)}</span>
      </summary>
      {opened &&
        (kind === "page" ? (
          <iframe
            class="page"
            title={title(file)}
            src={address(run, file)}
            sandbox="allow-scripts"
            referrerpolicy="no-referrer"
            loading="lazy"
            onLoad={onGrown}
          />
        ) : (
          <Text run={run} file={file} kind={kind as "table" | "json"} onGrown={onGrown} />
        ))}
      <p class="view-foot">
        <Name shell={shell} run={run} file={file} label={file.place === null ? "Open by itself" : `Open ${file.place.split("/").pop()}`} />
      </p>
    </details>
  );
}

function Text({ run, file, kind, onGrown }: { run: Run; file: RunFile; kind: "table" | "json"; onGrown: () => void }) {
  const [text, setText] = useState<string | null>(null);
  const [gone, setGone] = useState(false);
  useEffect(() => {
    const leaving = new AbortController();
    fetch(address(run, file), { credentials: "same-origin", signal: leaving.signal })
      .then(async (answer) => (answer.ok ? setText(await answer.text()) : setGone(true)))
      .catch(() => undefined); // left, or offline: it is asked for again when it is opened again
    return () => leaving.abort();
  }, [run.id, file.number]);
  useEffect(onGrown, [text]);
  if (gone) return <p class="quiet">It is not kept any more: newer runs needed the room.</p>;
  if (text === null) return <p class="quiet">Loading…</p>;
  if (kind === "json") return <Json text={text} name={file.path} />;
  return <Rows table={parseTable(text, file.media_type === "text/csv" ? "," : "\t", MOST_ROWS)} name={file.path} />;
}

function Json({ text, name }: { text: string; name: string }) {
  let pretty = text;
  try {
    pretty = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // as it is
  }
  return (
    <pre class="text-view" tabIndex={0} role="region" aria-label={name}>
      {pretty.length > MOST_TEXT ? `${pretty.slice(0, MOST_TEXT)}\n…` : pretty}
    </pre>
  );
}

function Rows({ table, name }: { table: Table; name: string }) {
  if (table.head.length === 0) return <p class="quiet">The table is empty.</p>;
  const numeric = table.head.map((_, column) => isNumeric(table, column));
  return (
    <>
      <div class="rows-view" tabIndex={0} role="region" aria-label={name}>
        <table>
          <thead>
            <tr>
              {table.head.map((cell, column) => (
                <th key={column} scope="col" class={numeric[column] ? "number" : ""}>
                  {cell}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {table.rows.map((row, index) => (
              <tr key={index}>
                {row.map((cell, column) => (
                  <td key={column} class={numeric[column] ? "number" : ""}>
                    {cell}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="quiet rows-count">
        {table.count === 1 ? "1 row" : `${table.count.toLocaleString()} rows`}
        {table.count > table.rows.length && `, the first ${table.rows.length} are shown`}
      </p>
    </>
  );
}

function Files({ shell, run, files, mine }: { shell: Shell; run: Run; files: RunFiles; mine: boolean }) {
  const [undone, setUndone] = useState(false);
  const made = files.items.filter((file) => file.kind === "file");
  const undo = files.undo_id;
  const takeBack = async (): Promise<void> => {
    try {
      await call("POST", `/api/v1/sessions/${run.session_id}/undos/${undo}`);
      setUndone(true);
      notify(`What ${run.entry} wrote is taken back.`);
    } catch (error) {
      complain(error);
    }
  };
  if (made.length === 0 && files.deleted.length === 0 && files.left_out_count === 0 && files.complete && files.not_written === null) return null;
  return (
    <div class="made">
      {(made.length > 0 || files.deleted.length > 0) && (
        <ul class="made-files" aria-label="Files of this run">
          {made.map((file) => (
            <li key={file.path} class={`made-${file.change}`}>
              <Icon name={file.change === "created" ? "newFile" : "files"} />
              <Name shell={shell} run={run} file={file} />
              {file.place !== null && file.place !== file.path && <span class="quiet">as {file.place}</span>}
              <span class="quiet">{file.change === "created" ? `new, ${bytes(file.size)}` : "changed"}</span>
            </li>
          ))}
          {files.deleted.map((path) => (
            <li key={path} class="made-deleted">
              <Icon name="trash" />
              <span>{path}</span>
              <span class="quiet">in the trash</span>
            </li>
          ))}
          {undo !== null && mine && !undone && shell.workspace.canEdit.value && (
            <li class="made-undo">
              <button type="button" class="button" onClick={() => void takeBack()}>
                Take back
              </button>
            </li>
          )}
        </ul>
      )}
      {files.not_written !== null && <p class="quiet">{files.not_written}</p>}
      {!files.complete && <p class="quiet">There was no time to look at all files; some may be missing.</p>}
      {files.left_out_count > 0 && (
        <details class="left-behind">
          <summary>{files.left_out_count === 1 ? "1 thing was left out" : `${files.left_out_count.toLocaleString()} things were left out`}</summary>
          <ul class="plain">
            {files.left_out.map((item, index) => (
              <li key={index}>
                <span>{item.path}</span> <span class="quiet">{item.reason}</span>
              </li>
            ))}
            {files.left_out_count > files.left_out.length && <li class="quiet">… and {(files.left_out_count - files.left_out.length).toLocaleString()} more</li>}
          </ul>
        </details>
      )}
    </div>
  );
}
