// One or two panes, each with its tabs and what the active one shows.
import { useEffect, useRef } from "preact/hooks";

import { runCommand, shownKeys } from "../model/commands";
import type { Pane } from "../model/layout";
import type { Shell } from "../model/shell";
import type { FileNode } from "../model/types";
import { Icon, IconButton } from "./icons";
import { Preview } from "./Preview";

export function Editors({ shell }: { shell: Shell }) {
  const panes = shell.layout.panes.value;
  return (
    <div class="panes">
      {panes.map((pane, index) => (
        <PaneView key={index} shell={shell} pane={pane} index={index} />
      ))}
    </div>
  );
}

function PaneView({ shell, pane, index }: { shell: Shell; pane: Pane; index: number }) {
  const { layout } = shell;
  const followed = shell.workspace.people.value.find((person) => person.key === shell.workspace.following.value);
  const node = pane.active === null ? null : nodeOf(shell, pane.active);
  const outlined = followed !== undefined && layout.focused.value === index;
  return (
    <section
      class="pane"
      aria-label={layout.panes.value.length > 1 ? `Editor ${index + 1}` : "Editor"}
      style={outlined ? { boxShadow: `inset 0 0 0 2px ${followed.color}` } : undefined}
      onFocusCapture={() => layout.focus(index)}
    >
      {pane.tabs.length > 0 && <Tabs shell={shell} pane={pane} index={index} />}
      {node === null ? <Empty shell={shell} /> : node.kind === "text" ? <Text key={node.id} shell={shell} node={node} index={index} /> : <Preview shell={shell} node={node} />}
    </section>
  );
}

function nodeOf(shell: Shell, id: string): FileNode | null {
  const known = shell.nodes.value.get(id);
  if (known !== undefined) return known;
  const first = shell.boot.first;
  return first?.document_id === id ? { id, path: first.path, kind: "text", trashed: null } : null;
}

function Tabs({ shell, pane, index }: { shell: Shell; pane: Pane; index: number }) {
  const { layout } = shell;
  const onKeyDown = (event: KeyboardEvent, id: string): void => {
    const at = pane.tabs.indexOf(id);
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (step !== 0 && event.altKey) layout.move(index, id, step);
    else if (step !== 0) {
      const next = pane.tabs[(at + step + pane.tabs.length) % pane.tabs.length] as string;
      layout.open(next);
      const row = (event.currentTarget as HTMLElement).closest("[role=tablist]");
      requestAnimationFrame(() => row?.querySelector<HTMLElement>("[aria-selected=true]")?.focus());
    } else if (event.key === "Delete") layout.close(index, id);
    else return;
    event.preventDefault();
  };
  return (
    <div class="tab-row">
      <div class="tabs" role="tablist" aria-label="Open files">
        {pane.tabs.map((id) => {
          const path = nodeOf(shell, id)?.path ?? "…";
          const name = path.split("/").pop() ?? path;
          const twin = pane.tabs.some((other) => other !== id && nodeOf(shell, other)?.path.split("/").pop() === name);
          const active = pane.active === id;
          return (
            <div key={id} class="tab" role="presentation" data-active={active}>
              <button
                type="button"
                role="tab"
                aria-selected={active}
                tabIndex={active ? 0 : -1}
                title={path}
                onClick={() => layout.open(id)}
                onKeyDown={(event) => onKeyDown(event, id)}
                onAuxClick={(event) => event.button === 1 && layout.close(index, id)}
              >
                {twin ? path : name}
              </button>
              {/* Only tabs may be in a tablist: this is the mouse's way, Delete and the palette are the keyboard's. */}
              <button type="button" class="tab-close" tabIndex={-1} aria-hidden="true" title={`Close ${name}`} onClick={() => layout.close(index, id)}>
                <Icon name="close" />
              </button>
            </div>
          );
        })}
      </div>
      <IconButton icon="clock" label="History" onClick={() => runCommand(shell, "history")} />
      <IconButton icon="split" label={layout.panes.value.length > 1 ? "Join the editors" : "Split the editor"} class="desktop-only" onClick={() => layout.split()} />
    </div>
  );
}

function Text({ shell, node, index }: { shell: Shell; node: FileNode; index: number }) {
  const holder = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const handle = shell.workspace.mountEditor(holder.current as HTMLElement, node);
    const place = (): void => {
      const { state } = handle.view;
      const line = state.doc.lineAt(state.selection.main.head);
      shell.cursor.value = `${line.number}:${state.selection.main.head - line.from + 1}`;
    };
    const watch = (): void => queueMicrotask(place);
    for (const name of ["keyup", "pointerup", "focusin"]) handle.view.dom.addEventListener(name, watch);
    shell.mounted(index, node.id, handle);
    return () => {
      shell.unmounted(index, handle);
      handle.destroy();
    };
  }, [node.id, index]);
  return <div class="editor" ref={holder} />;
}

function Empty({ shell }: { shell: Shell }) {
  return (
    <div class="empty-pane">
      <p>No file is open.</p>
      <p class="actions">
        <button type="button" class="button" onClick={() => (shell.dialog.value = "files")}>
          Open a file <kbd>{shownKeys("Mod+P")}</kbd>
        </button>
        {shell.workspace.canEdit.value && (
          <button
            type="button"
            class="button"
            onClick={() => {
              shell.layout.showSide("files");
              shell.naming.value = { kind: "text", folder: "" };
            }}
          >
            New file
          </button>
        )}
      </p>
    </div>
  );
}
