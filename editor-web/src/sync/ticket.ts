// A socket's address: the cookie cannot be trusted on a WebSocket, so a one-time ticket is fetched for each attempt.
import { LinkDelayed, LinkRefused, LOGGED_OUT } from "./link";

/** Returns `wss://…/sync?token=…`; throws `LinkRefused` when the login or the membership is gone. */
export async function socketAddress(fetcher: typeof fetch, origin: string, path: string): Promise<string> {
  const response = await fetcher(`${origin}/api/v1/tickets`, {
    method: "POST",
    credentials: "same-origin",
    headers: { "content-type": "application/json" },
    body: "{}",
    signal: AbortSignal.timeout(8000),
  });
  if (response.status === 401) throw new LinkRefused(LOGGED_OUT, "You are logged out.");
  if (response.status === 403) throw new LinkRefused(4403, "You have no access to this session any more.");
  if (response.status === 429) throw new LinkDelayed(1000 * Number(response.headers.get("retry-after") ?? 5));
  if (!response.ok) throw new Error(`ticket: HTTP ${response.status}`);
  const { ticket } = (await response.json()) as { ticket: string };
  return `${origin.replace(/^http/, "ws")}${path}?token=${encodeURIComponent(ticket)}`;
}
