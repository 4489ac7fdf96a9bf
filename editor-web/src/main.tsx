// The entry of the session page: what the server rendered says who, where and what is shown first.
import { render } from "preact";

import { listenForKeys } from "./model/commands";
import { Shell } from "./model/shell";
import { notify } from "./model/toasts";
import type { Boot } from "./model/types";
import "./styles/tokens.css";
import "./styles/app.css";
import "./styles/panels.css";
import { App } from "./ui/App";

const boot = JSON.parse(document.getElementById("boot")?.textContent ?? "null") as Boot;
const root = document.getElementById("app") as HTMLElement;
const shell = new Shell(boot);

listenForKeys(shell, () =>
  notify(shell.workspace.status.peek().kind === "saved" ? "Already saved: everything you type is." : "It saves by itself as soon as it can."),
);
root.replaceChildren();
render(<App shell={shell} />, root);

if ("serviceWorker" in navigator && isSecureContext) {
  void navigator.serviceWorker.register("/sw.js").then(async () => {
    const { active } = await navigator.serviceWorker.ready;
    const files = performance.getEntriesByType("resource").map((entry) => new URL(entry.name).pathname);
    active?.postMessage({ keep: files.filter((path) => path.startsWith("/static/editor/assets/")), page: location.pathname });
  });
}
