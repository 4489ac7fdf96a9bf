// Short messages that go by themselves, with at most one thing to do about them.
import { signal } from "@preact/signals";

import { ProblemError } from "../api/http";

export interface Toast {
  id: number;
  text: string;
  danger: boolean;
  action?: { label: string; run: () => void };
}

const SHOWN_MS = 6_000;
const WITH_ACTION_MS = 12_000;
export const toasts = signal<readonly Toast[]>([]);
let last = 0;

export function notify(text: string, action?: Toast["action"], danger = false): void {
  const toast: Toast = { id: ++last, text, danger, ...(action ? { action } : {}) };
  toasts.value = [...toasts.peek().slice(-3), toast];
  setTimeout(() => dismiss(toast.id), action || danger ? WITH_ACTION_MS : SHOWN_MS);
}

export function dismiss(id: number): void {
  toasts.value = toasts.peek().filter((toast) => toast.id !== id);
}

/** Says what went wrong in the server's words: what happened, what to do, the id to copy. */
export function complain(error: unknown): void {
  if (error instanceof ProblemError) {
    const { detail, next_step, id } = error.problem;
    notify([detail, next_step, id && `· ${id}`].filter(Boolean).join(" "), undefined, true);
  } else notify(error instanceof Error ? error.message : String(error), undefined, true);
}
