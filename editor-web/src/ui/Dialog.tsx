// A native dialog that closes by Escape, by its button and by a press beside it; the focus goes back where it was.
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

import type { Shell } from "../model/shell";
import { IconButton } from "./icons";
import { Toasts } from "./Toasts";

interface DialogProps {
  shell: Shell;
  title: string;
  bare?: boolean; // without the title's row
  class?: string;
  children: ComponentChildren;
}

export function Dialog({ shell, title, bare = false, class: name = "", children }: DialogProps) {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    element.current?.showModal();
    return () => before?.focus?.();
  }, []);
  const close = (): void => {
    shell.dialog.value = null;
  };
  return (
    <dialog
      ref={element}
      class={`dialog ${bare ? "dialog-bare" : ""} ${name}`}
      aria-label={title}
      onClose={close}
      onMouseDown={(event) => event.target === element.current && close()}
    >
      {!bare && (
        <div class="dialog-head">
          <h2>{title}</h2>
          <IconButton icon="close" label="Close" onClick={close} />
        </div>
      )}
      {children}
      {/* A modal dialog makes everything outside it inert: messages, and their Undo, have to be inside. */}
      <Toasts />
    </dialog>
  );
}
