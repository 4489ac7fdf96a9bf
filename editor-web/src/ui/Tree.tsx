// The file tree: folders are made of paths; keyboard as in the ARIA tree pattern, mouse, drag and drop.
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

import { filePath, ProblemError, problemOf } from "../api/http";
import { runCommand } from "../model/commands";
import type { Shell } from "../model/shell";
import { complain } from "../model/toasts";
import { uploadFiles, uploads } from "../model/uploads";
import type { FileNode } from "../model/types";
import { Icon, IconButton } from "./icons";

interface Row {
  path: string;
  name: string;
  depth: number;
  node: FileNode | null; // null: a folder
}

const closed = signal<ReadonlySet<string>>(new Set());
const selected = signal<string | null>(null);
const DRAG = "application/x-atelier-path";

export function Tree({ shell }: { shell: Shell }) {
  const { workspace, naming } = shell;
  const list = useRef<HTMLUListElement>(null);
  const picker = useRef<HTMLInputElement>(null);
  const rows = rowsOf(workspace.tree.value, closed.value);
  const canEdit = workspace.canEdit.value;
  const current = selected.value ?? shell.active.value?.path ?? rows[0]?.path ?? null;
  const name = naming.value;

  const focusRow = (path: string): void => {
    selected.value = path;
    requestAnimationFrame(() => list.current?.querySelector<HTMLElement>(`[data-path="${CSS.escape(path)}"]`)?.focus());
  };
  const open = (row: Row): void => {
    selected.value = row.path;
    if (row.node === null) toggle(row.path);
    else shell.layout.open(row.node.id);
  };
  const onKeyDown = (event: KeyboardEvent, row: Row): void => {
    const at = rows.indexOf(row);
    const to = (index: number): void => {
      const next = rows[Math.max(0, Math.min(rows.length - 1, index))];
      if (next !== undefined) focusRow(next.path);
    };
    switch (event.key) {
      case "ArrowDown": to(at + 1); break;
      case "ArrowUp": to(at - 1); break;
      case "Home": to(0); break;
      case "End": to(rows.length - 1); break;
      case "ArrowRight":
        if (row.node === null && closed.value.has(row.path)) toggle(row.path);
        else to(at + 1);
        break;
      case "ArrowLeft":
        if (row.node === null && !closed.value.has(row.path)) toggle(row.path);
        else focusRow(parentOf(row.path) || row.path);
        break;
      case "Enter": case " ": open(row); break;
      case "F2": if (canEdit) naming.value = { kind: "rename", path: row.path }; break;
      case "Delete": if (canEdit) shell.remove(row.path); break;
      default: return;
    }
    event.preventDefault();
    event.stopPropagation();
  };
  const drop = (event: DragEvent, folder: string): void => {
    event.preventDefault();
    event.stopPropagation();
    if (!canEdit || event.dataTransfer === null) return;
    const path = event.dataTransfer.getData(DRAG);
    if (path !== "") attempt(() => workspace.files.move(path, join(folder, path.split("/").pop() ?? path)));
    else void uploadFiles(shell.session, [...event.dataTransfer.files], folder);
  };
  const folderOfCurrent = current === null ? "" : (rows.find((row) => row.path === current)?.node === null ? current : parentOf(current));

  return (
    <div class="tree-panel" onDragOver={(event) => event.preventDefault()} onDrop={(event) => drop(event, "")}>
      <div class="panel-head">
        <h2 class="panel-title">Files</h2>
        {canEdit && (
          <>
            <IconButton icon="newFile" label="New file" onClick={() => (naming.value = { kind: "text", folder: folderOfCurrent })} />
            <IconButton icon="newFolder" label="New folder" onClick={() => (naming.value = { kind: "folder", folder: folderOfCurrent })} />
            <IconButton icon="upload" label="Upload files" onClick={() => picker.current?.click()} />
            <IconButton icon="branch" label="Import from Git" onClick={() => runCommand(shell, "git")} />
          </>
        )}
        <IconButton icon="trash" label="Trash" onClick={() => runCommand(shell, "trash")} />
        <IconButton icon="download" label="Download everything as a zip" onClick={() => runCommand(shell, "zip")} />
      </div>
      <input
        ref={picker}
        type="file"
        multiple
        hidden
        onChange={(event) => {
          const files = [...(event.currentTarget.files ?? [])];
          event.currentTarget.value = "";
          void uploadOrUnpack(shell, files, folderOfCurrent);
        }}
      />
      {name !== null && name.kind !== "rename" && (
        <NameField
          label={name.kind === "text" ? "Name of the new file" : "Name of the new folder"}
          value={name.folder === "" ? "" : `${name.folder}/`}
          onDone={(path) => {
            naming.value = null;
            if (path === null || path === "") return;
            attempt(() => {
              if (name.kind === "text") shell.layout.open(workspace.files.createText(path).id);
              else workspace.files.createFolder(path);
            });
          }}
        />
      )}
      {rows.length === 0 && workspace.treeReady.value && (
        <p class="empty">
          No files yet. {canEdit && "Create one, drop files here, or import them from Git."}
        </p>
      )}
      <ul class="tree" role="tree" aria-label="Files" ref={list}>
        {rows.map((row) =>
          name?.kind === "rename" && name.path === row.path ? (
            <li key={row.path} role="none">
              <NameField
                label={`New path of ${row.path}`}
                value={row.path}
                onDone={(path) => {
                  naming.value = null;
                  if (path !== null && path !== "") attempt(() => workspace.files.move(row.path, path));
                }}
              />
            </li>
          ) : (
            <li
              key={row.path}
              role="treeitem"
              class="tree-row"
              aria-level={row.depth + 1}
              aria-expanded={row.node === null ? !closed.value.has(row.path) : undefined}
              aria-selected={row.node !== null && row.node.id === shell.active.value?.id}
              tabIndex={row.path === current ? 0 : -1}
              data-path={row.path}
              style={{ paddingLeft: `${8 + row.depth * 14}px` }}
              draggable={canEdit}
              onClick={() => open(row)}
              onKeyDown={(event) => onKeyDown(event, row)}
              onFocus={() => (selected.value = row.path)}
              onDragStart={(event) => event.dataTransfer?.setData(DRAG, row.path)}
              onDragOver={(event) => event.preventDefault()}
              onDrop={(event) => drop(event, row.node === null ? row.path : parentOf(row.path))}
            >
              <Icon name={row.node !== null ? "files" : closed.value.has(row.path) ? "right" : "down"} />
              <span class="tree-name">{row.name}</span>
              <Here shell={shell} id={row.node?.id} />
              <RowMenu shell={shell} row={row} canEdit={canEdit} />
            </li>
          ),
        )}
      </ul>
      {uploads.value.map((item) => (
        <label key={item.id} class="upload">
          {item.path}
          <progress value={item.share} />
        </label>
      ))}
    </div>
  );
}

/** Dots of the people who are in this file. */
function Here({ shell, id }: { shell: Shell; id: string | undefined }) {
  const people = shell.workspace.people.value.filter((person) => !person.me && person.documentId === id && id !== undefined);
  return (
    <>
      {people.slice(0, 3).map((person) => (
        <span key={person.key} class="here" style={{ background: person.color }} title={person.name} />
      ))}
    </>
  );
}

function RowMenu({ shell, row, canEdit }: { shell: Shell; row: Row; canEdit: boolean }) {
  const stop = (event: Event): void => event.stopPropagation();
  return (
    <span class="row-actions" onClick={stop} onKeyDown={stop}>
      {row.node !== null && (
        <a class="icon-button" tabIndex={-1} aria-label={`Download ${row.name}`} title="Download" href={`${filePath(shell.session, row.path)}?download=true`} download>
          <Icon name="download" />
        </a>
      )}
      {canEdit && (
        <button type="button" class="icon-button" tabIndex={-1} aria-label={`Delete ${row.name}`} title="Delete" onClick={() => shell.remove(row.path)}>
          <Icon name="trash" />
        </button>
      )}
    </span>
  );
}

interface NameFieldProps {
  label: string;
  value: string;
  onDone: (path: string | null) => void;
}

function NameField({ label, value, onDone }: NameFieldProps) {
  const field = useRef<HTMLInputElement>(null);
  const done = useRef(false);
  useEffect(() => {
    const input = field.current as HTMLInputElement;
    input.focus();
    const start = value.lastIndexOf("/") + 1;
    const dot = value.lastIndexOf(".");
    input.setSelectionRange(start, dot > start ? dot : value.length);
  }, []);
  const finish = (path: string | null): void => {
    if (done.current) return;
    done.current = true;
    onDone(path);
  };
  return (
    <input
      ref={field}
      class="name-field"
      aria-label={label}
      placeholder="folder/name.py"
      defaultValue={value}
      onBlur={(event) => finish(event.currentTarget.value.trim() === value ? null : event.currentTarget.value.trim())}
      onKeyDown={(event) => {
        event.stopPropagation();
        if (event.key === "Enter") finish(event.currentTarget.value.trim());
        else if (event.key === "Escape") finish(null);
      }}
    />
  );
}

export function rowsOf(tree: readonly FileNode[], shut: ReadonlySet<string>): Row[] {
  const folders = new Set<string>();
  const files: FileNode[] = [];
  for (const node of tree) {
    if (node.kind === "folder") folders.add(node.path);
    else files.push(node);
    for (let path = parentOf(node.path); path !== ""; path = parentOf(path)) folders.add(path);
  }
  const all: Row[] = [
    ...[...folders].map((path) => row(path, null)),
    ...files.map((node) => row(node.path, node)),
  ];
  const hidden = (path: string): boolean => {
    for (let up = parentOf(path); up !== ""; up = parentOf(up)) if (shut.has(up)) return true;
    return false;
  };
  return all.filter(({ path }) => !hidden(path)).sort((a, b) => order(a, b, folders));
}

const row = (path: string, node: FileNode | null): Row => ({ path, name: path.split("/").pop() ?? path, depth: path.split("/").length - 1, node });
const parentOf = (path: string): string => path.split("/").slice(0, -1).join("/");
const join = (folder: string, name: string): string => (folder === "" ? name : `${folder}/${name}`);

/** Folder by folder, folders before files, then by name. */
function order(a: Row, b: Row, folders: ReadonlySet<string>): number {
  const left = a.path.split("/");
  const right = b.path.split("/");
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    if (left[i] === right[i]) continue;
    const isFolder = (parts: string[], of: Row): boolean => folders.has(parts.slice(0, i + 1).join("/")) && (i < parts.length - 1 || of.node === null);
    const first = Number(isFolder(right, b)) - Number(isFolder(left, a));
    return first || (left[i] as string).localeCompare(right[i] as string);
  }
  return left.length - right.length;
}

function toggle(path: string): void {
  const next = new Set(closed.peek());
  if (!next.delete(path)) next.add(path);
  closed.value = next;
}

function attempt(change: () => void): void {
  try {
    change();
  } catch (error) {
    complain(error);
  }
}

async function uploadOrUnpack(shell: Shell, files: File[], folder: string): Promise<void> {
  const zips = files.filter((file) => file.name.toLowerCase().endsWith(".zip"));
  await uploadFiles(shell.session, files.filter((file) => !zips.includes(file)), folder);
  for (const zip of zips) {
    const answer = await fetch(`/api/v1/sessions/${shell.session}/import?into=${encodeURIComponent(folder)}`, { method: "POST", body: zip });
    if (!answer.ok) {
      complain(new ProblemError(await problemOf(answer)));
    }
  }
}
