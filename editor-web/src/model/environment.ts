// What the workspace takes from the browser, in one place, so that it also runs without one.
import type { Socket } from "../sync/link";
import type { UndoStorage } from "./undo";

export interface Environment {
  origin: string;
  fetch: typeof fetch;
  connect(url: string): Socket;
  storage: IDBFactory | undefined;
  /** Lives as long as the tab. */
  tabStorage: UndoStorage | null;
  /** Calls back when the link may have come back or died unseen; returns the function that ends it. */
  onDoubt(callback: () => void): () => void;
  /** Calls back when the page may be going away. */
  onLeave(callback: () => void): () => void;
  /** Asks before the page goes, while `unsafe()` holds. */
  guardLeaving(unsafe: () => boolean): () => void;
}

export function browserEnvironment(): Environment {
  return {
    origin: location.origin,
    fetch: (input, init) => fetch(input, init),
    connect: (url) => new WebSocket(url) as unknown as Socket,
    storage: reach(() => indexedDB),
    tabStorage: reach(() => sessionStorage) ?? null,
    onDoubt(callback) {
      const visible = (): void => {
        if (document.visibilityState === "visible") callback();
      };
      return listen([
        [window, "online", callback],
        [window, "offline", callback],
        [window, "pageshow", callback],
        [document, "visibilitychange", visible],
      ]);
    },
    onLeave(callback) {
      const hidden = (): void => {
        if (document.visibilityState === "hidden") callback();
      };
      return listen([
        [window, "pagehide", callback],
        [document, "visibilitychange", hidden],
      ]);
    },
    guardLeaving(unsafe) {
      const ask = (event: Event): void => {
        if (unsafe()) event.preventDefault();
      };
      return listen([[window, "beforeunload", ask]]);
    },
  };
}

/** A browser set to block storage throws at the mere mention. */
function reach<T>(get: () => T): T | undefined {
  try {
    return get();
  } catch {
    return undefined;
  }
}

function listen(entries: [EventTarget, string, (event: Event) => void][]): () => void {
  for (const [target, name, callback] of entries) target.addEventListener(name, callback);
  return () => {
    for (const [target, name, callback] of entries) target.removeEventListener(name, callback);
  };
}
