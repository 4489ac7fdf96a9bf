// Who is here: the awareness of the tree document, which every tab of the session has open.
import type { Awareness } from "y-protocols/awareness";

import { colorOf, initialsOf } from "./palette";
import type { Me, Person } from "./types";

interface PresenceState {
  user?: { id?: unknown; name?: unknown; color?: unknown };
  view?: { documentId?: unknown } | null;
}

/** The awareness state's `user`; the server writes over it with what it knows. */
export const userState = (me: Me): Record<string, string> => ({
  id: me.id,
  name: me.display_name,
  color: colorOf(me.id),
});

/** Everybody, this tab first, then by name. */
export function peopleOf(awareness: Awareness, me: Me): Person[] {
  const people: Person[] = [];
  for (const [client, raw] of awareness.getStates() as Map<number, PresenceState>) {
    const own = client === awareness.clientID;
    const user = own ? userState(me) : (raw.user ?? {});
    if (typeof user.id !== "string" || typeof user.name !== "string") continue;
    const place = raw.view?.documentId;
    people.push({
      key: String(client),
      id: user.id,
      name: user.name,
      initials: initialsOf(user.name),
      color: typeof user.color === "string" && /^#[0-9a-f]{6}$/i.test(user.color) ? user.color : colorOf(user.id),
      me: own,
      documentId: typeof place === "string" ? place : null,
    });
  }
  return people.sort((a, b) => Number(b.me) - Number(a.me) || a.name.localeCompare(b.name) || Number(a.key) - Number(b.key));
}
