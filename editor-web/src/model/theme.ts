// System, light or dark; the cookie lets the server render the choice before any script runs.
import { signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";

const NEXT: Record<Theme, Theme> = { system: "dark", dark: "light", light: "system" };
const chosen = document.documentElement.dataset["theme"];
export const theme = signal<Theme>(chosen === "light" || chosen === "dark" ? chosen : "system");

export function setTheme(next: Theme): void {
  theme.value = next;
  if (next === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = next;
  document.cookie = `atelier_theme=${next === "system" ? "" : next}; path=/; max-age=31536000; samesite=lax`;
}

export function cycleTheme(): void {
  setTheme(NEXT[theme.peek()]);
}
