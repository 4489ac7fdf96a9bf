// Who wrote when, newest first; a chosen row says what can be done about it.
import { useState } from "preact/hooks";

import { colorOf, initialsOf } from "../model/palette";
import { type Burst, type Past, rowsOf } from "../model/past";
import type { Shell } from "../model/shell";
import { forgetUntil, takeBack } from "../model/versions";
import { Icon } from "./icons";

type Author = Burst["authors"][number];

const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

export function exactly(at: number): string {
  return new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

export function ago(at: number, now = Date.now()): string {
  const minutes = Math.round((at - now) / 60_000);
  if (minutes > -1) return "just now";
  if (minutes > -60) return relative.format(minutes, "minute");
  if (minutes > -60 * 24) return relative.format(Math.round(minutes / 60), "hour");
  if (minutes > -60 * 24 * 30) return relative.format(Math.round(minutes / 60 / 24), "day");
  return exactly(at);
}

export function Timeline({ shell, past }: { shell: Shell; past: Past }) {
  const rows = rowsOf(past.bursts.value, past.marks.value);
  const position = past.shown.value?.position;
  return (
    <section class="timeline" aria-label="Who wrote when">
      <ol class="plain">
        {rows.map((row) =>
          row.kind === "burst" ? (
            <BurstRow key={`b${row.burst.first}`} shell={shell} past={past} burst={row.burst} />
          ) : (
            <li key={`m${row.mark.position}${row.mark.version_id ?? ""}`}>
              <button type="button" class="mark-row" aria-pressed={position === row.mark.position && past.chosen.value === null} onClick={() => void past.goTo(row.mark.position)}>
                <Icon name={row.mark.kind === "version" ? "flag" : "clock"} />
                <span class="mark-name">{row.mark.kind === "version" ? row.mark.name : "Before a pause"}</span>
                <time class="quiet" dateTime={new Date(row.mark.at).toISOString()} title={exactly(row.mark.at)}>
                  {ago(row.mark.at)}
                </time>
              </button>
            </li>
          ),
        )}
      </ol>
      {past.more.value !== null && <p class="empty">Older edits are kept too; this list shows the newest.</p>}
    </section>
  );
}

function BurstRow({ shell, past, burst }: { shell: Shell; past: Past; burst: Burst }) {
  const chosen = past.chosen.value?.first === burst.first;
  const names = burst.authors.map(nameOf).join(", ");
  const inserted = burst.authors.reduce((sum, author) => sum + author.inserted, 0);
  const deleted = burst.authors.reduce((sum, author) => sum + author.deleted, 0);
  return (
    <li>
      <button type="button" class="burst-row" aria-pressed={chosen} onClick={() => void past.choose(burst)}>
        <span class="burst-who" aria-hidden="true">
          {burst.authors.slice(0, 3).map((author) => (
            <span key={author.id} class="dot" style={{ background: colorOf(author.id) }}>
              {initialsOf(nameOf(author))}
            </span>
          ))}
        </span>
        <span class="burst-words">
          <span class="burst-names">{names}</span>
          <time class="quiet" dateTime={new Date(burst.ended_at).toISOString()} title={exactly(burst.ended_at)}>
            {ago(burst.ended_at)}
          </time>
        </span>
        <span class="burst-size">
          {inserted > 0 && <span class="came" aria-label={`${inserted} characters written`}>+{inserted.toLocaleString()}</span>}
          {deleted > 0 && <span class="went" aria-label={`${deleted} characters deleted`}>−{deleted.toLocaleString()}</span>}
        </span>
      </button>
      {chosen && shell.workspace.canEdit.value && <Ways shell={shell} past={past} burst={burst} />}
    </li>
  );
}

interface Way {
  label: string;
  says: string;
  does: string;
  run: () => Promise<void>;
}

function Ways({ shell, past, burst }: { shell: Shell; past: Past; burst: Burst }) {
  const [asked, ask] = useState<Way | null>(null);
  const ways: Way[] = [
    {
      label: "Take back these edits",
      says: "What was written here goes, what was deleted here comes back. What others wrote stays. You can undo it.",
      does: "Take back",
      run: () => takeBack(shell.session, past.document, { from: burst.first, to: burst.last }),
    },
    ...burst.authors.filter((author) => author.id !== "").map((author) => ({
      label: `Take back everything by ${nameOf(author)}`,
      says: `All that ${nameOf(author)} ever wrote in this file goes, what they deleted comes back. What others wrote stays. You can undo it.`,
      does: "Take back",
      run: () => takeBack(shell.session, past.document, { author: author.id }),
    })),
    ...(shell.workspace.session.value.role === "owner"
      ? [
          {
            label: "Forget everything until here",
            says: "Who wrote what until here, and what was deleted by then, goes for good; the text stays. Nobody can undo this.",
            does: "Forget",
            run: () => forgetUntil(shell.session, past.document, burst.last),
          },
        ]
      : []),
  ];
  if (asked !== null) {
    return (
      <div class="ways" role="group" aria-label={asked.label}>
        <p>{asked.says}</p>
        <button
          type="button"
          class="button button-danger"
          autoFocus
          onClick={() => {
            ask(null);
            void asked.run().then(() => past.open());
          }}
        >
          {asked.does}
        </button>
        <button type="button" class="button" onClick={() => ask(null)}>
          Cancel
        </button>
      </div>
    );
  }
  return (
    <div class="ways">
      {ways.map((way) => (
        <button key={way.label} type="button" class="way" onClick={() => ask(way)}>
          {way.label}
        </button>
      ))}
    </div>
  );
}

const nameOf = (author: Author): string => author.name || (author.id === "" ? "Forgotten" : "Somebody who left");
