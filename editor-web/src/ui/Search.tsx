// Search and replace over all files; a replacement can be taken back as a whole.
import { useEffect, useRef, useState } from "preact/hooks";

import { call } from "../api/http";
import type { components } from "../api/schema.generated";
import type { Shell } from "../model/shell";
import { complain, notify } from "../model/toasts";

type Found = components["schemas"]["SearchResult"];

const PAUSE_MS = 250;

export function Search({ shell }: { shell: Shell }) {
  const base = `/api/v1/sessions/${shell.session}`;
  const [q, setQ] = useState("");
  const [replacement, setReplacement] = useState("");
  const [options, setOptions] = useState({ case: false, word: false, regex: false });
  const [found, setFound] = useState<Found | null>(null);
  const [problem, setProblem] = useState("");
  const [again, setAgain] = useState(0);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), []);
  useEffect(() => {
    if (q === "") {
      setFound(null);
      setProblem("");
      return;
    }
    let stale = false;
    const timer = setTimeout(async () => {
      try {
        const query = new URLSearchParams({ q, ...Object.fromEntries(Object.entries(options).map(([k, v]) => [k, String(v)])) });
        const answer = await call<Found>("GET", `${base}/search?${query}`);
        if (!stale) {
          setFound(answer);
          setProblem("");
        }
      } catch (error) {
        if (!stale) setProblem(error instanceof Error ? error.message : String(error));
      }
    }, PAUSE_MS);
    return () => {
      stale = true;
      clearTimeout(timer);
    };
  }, [q, options, again]);

  const replaceAll = async (): Promise<void> => {
    try {
      const done = await call<components["schemas"]["Replaced"]>("POST", `${base}/replacements`, { q, replacement, ...options });
      notify(`${done.replacements} replaced in ${done.files} files.`, {
        label: "Undo",
        run: () => void call("POST", `${base}/undos/${done.id}`).then(() => setAgain((n) => n + 1), complain),
      });
      setAgain((n) => n + 1);
    } catch (error) {
      complain(error);
    }
  };
  const count = found?.items.reduce((sum, item) => sum + item.matches.length, 0) ?? 0;
  return (
    <div class="search-panel">
      <h2 class="panel-title">Search</h2>
      <input ref={field} type="search" aria-label="Search in files" placeholder="Search in files" value={q} onInput={(event) => setQ(event.currentTarget.value)} />
      <div class="search-options" role="group" aria-label="How to search">
        {(
          [
            ["case", "Aa", "Match case (Aa)"],
            ["word", "word", "Whole word"],
            ["regex", ".*", "Regular expression (.*)"],
          ] as const
        ).map(([name, sign, label]) => (
          <button key={name} type="button" class="icon-button" aria-label={label} title={label} aria-pressed={options[name]} onClick={() => setOptions({ ...options, [name]: !options[name] })}>
            {sign}
          </button>
        ))}
      </div>
      {shell.workspace.canEdit.value && (
        <div class="replace-row">
          <input aria-label="Replace by" placeholder="Replace by" value={replacement} onInput={(event) => setReplacement(event.currentTarget.value)} />
          <button type="button" class="button" disabled={count === 0} onClick={() => void replaceAll()}>
            Replace all
          </button>
        </div>
      )}
      <p class="quiet" role="status">
        {problem !== "" ? problem : found === null ? "" : count === 0 ? `Nothing found for “${q}”.` : `${count}${found.truncated ? "+" : ""} in ${found.items.length} files`}
      </p>
      <ul class="plain results">
        {found?.items.map((item) => (
          <li key={item.document_id}>
            <h3>{item.path}</h3>
            <ul class="plain">
              {item.matches.map((match, index) => (
                <li key={index}>
                  <button type="button" class="row-button" onClick={() => shell.open(item.path, match.line, match.column)}>
                    <span class="quiet">{match.line}</span>
                    <span class="match">
                      {match.text.slice(0, match.text_column)}
                      <mark>{match.text.slice(match.text_column, match.text_column + match.length)}</mark>
                      {match.text.slice(match.text_column + match.length)}
                    </span>
                  </button>
                </li>
              ))}
            </ul>
          </li>
        ))}
      </ul>
    </div>
  );
}
