// Share links and members: one press copies a link with its role beside it.
import { useEffect, useRef, useState } from "preact/hooks";

import { call } from "../api/http";
import type { components } from "../api/schema.generated";
import type { Shell } from "../model/shell";
import { complain, notify } from "../model/toasts";
import type { Role } from "../model/types";
import { Dialog } from "./Dialog";

type Link = components["schemas"]["Link"];
type Member = components["schemas"]["Member"];

const ROLES: readonly [Role, string][] = [
  ["edit", "can edit and run"],
  ["run", "can run, not edit"],
  ["comment", "can comment"],
  ["view", "can view"],
];
const EXPIRIES: readonly [string, string][] = [
  ["", "never expires"],
  ["3600", "for an hour"],
  ["86400", "for a day"],
  ["604800", "for a week"],
];

export function Share({ shell }: { shell: Shell }) {
  const base = `/api/v1/sessions/${shell.session}`;
  const [role, setRole] = useState<Role>("edit");
  const [expires, setExpires] = useState("");
  const [uses, setUses] = useState("");
  const [made, setMade] = useState("");
  const [links, setLinks] = useState<readonly Link[]>([]);
  const [members, setMembers] = useState<readonly Member[]>([]);
  const field = useRef<HTMLInputElement>(null);

  const refresh = async (): Promise<void> => {
    try {
      setLinks((await call<{ items: Link[] }>("GET", `${base}/links`)).items);
      setMembers((await call<{ items: Member[] }>("GET", `${base}/members`)).items);
    } catch (error) {
      complain(error);
    }
  };
  useEffect(() => void refresh(), []);
  const attempt = async (work: () => Promise<unknown>): Promise<void> => {
    try {
      await work();
      await refresh();
    } catch (error) {
      complain(error);
    }
  };
  const copy = (): Promise<void> =>
    attempt(async () => {
      const link = await call<{ url: string }>("POST", `${base}/links`, {
        role,
        expires_in: expires === "" ? null : Number(expires),
        max_uses: uses === "" ? null : Number(uses),
      });
      // What people type may not be what the server was told: this page's own address always works for who reads it.
      const url = new URL(new URL(link.url).pathname, location.origin).href;
      setMade(url);
      await navigator.clipboard?.writeText(url).then(
        () => notify("The link is on your clipboard."),
        () => field.current?.select(),
      );
    });

  return (
    <Dialog shell={shell} title="Share">
      <p class="quiet">
        Whoever opens the link needs no account.
        {shell.workspace.session.value.egress.on && " Programs here reach the internet, also those that guests run."}
      </p>
      <form
        class="share-form"
        onSubmit={(event) => {
          event.preventDefault();
          void copy();
        }}
      >
        <label class="field">
          Role
          <select value={role} onChange={(event) => setRole(event.currentTarget.value as Role)}>
            {ROLES.map(([value, words]) => (
              <option key={value} value={value}>
                {words}
              </option>
            ))}
          </select>
        </label>
        <label class="field">
          Expiry
          <select value={expires} onChange={(event) => setExpires(event.currentTarget.value)}>
            {EXPIRIES.map(([value, words]) => (
              <option key={value} value={value}>
                {words}
              </option>
            ))}
          </select>
        </label>
        <label class="field">
          Most uses
          <input type="number" min="1" max="100000" placeholder="any" value={uses} onInput={(event) => setUses(event.currentTarget.value)} />
        </label>
        <button type="submit" class="button button-primary">
          Copy link
        </button>
      </form>
      {made !== "" && <input ref={field} class="made-link" readOnly aria-label="The link" value={made} onFocus={(event) => event.currentTarget.select()} />}
      {links.length > 0 && <h3>Links that work</h3>}
      <ul class="plain rows">
        {links.map((link) => (
          <li key={link.id}>
            <span>
              {ROLES.find(([value]) => value === link.role)?.[1]}{" "}
              <span class="quiet">
                · {link.uses}
                {link.max_uses === null ? "" : ` of ${link.max_uses}`} used
                {link.expires_at === null ? "" : ` · until ${new Date(link.expires_at).toLocaleString()}`}
              </span>
            </span>
            <button type="button" class="button" onClick={() => void attempt(() => call("DELETE", `${base}/links/${link.id}`))}>
              Revoke
            </button>
          </li>
        ))}
      </ul>
      <h3>Members</h3>
      <ul class="plain rows">
        {members.map((member) => (
          <li key={member.user_id}>
            <span>
              {member.display_name} {member.user_id === shell.boot.me.id && <span class="quiet">(you)</span>}
            </span>
            {member.user_id === shell.boot.me.id ? (
              <span class="quiet">{member.role}</span>
            ) : (
              <span class="row-tools">
                <select
                  aria-label={`Role of ${member.display_name}`}
                  value={member.role}
                  onChange={(event) => void attempt(() => call("PATCH", `${base}/members/${member.user_id}`, { role: event.currentTarget.value }))}
                >
                  {(["owner", "edit", "run", "comment", "view"] as const).map((value) => (
                    <option key={value}>{value}</option>
                  ))}
                </select>
                <button type="button" class="button" aria-label={`Remove ${member.display_name}`} onClick={() => void attempt(() => call("DELETE", `${base}/members/${member.user_id}`))}>
                  Remove
                </button>
              </span>
            )}
          </li>
        ))}
      </ul>
    </Dialog>
  );
}
