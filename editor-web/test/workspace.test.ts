import { IDBFactory } from "fake-indexeddb";
import "fake-indexeddb/auto";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import type { Environment } from "../src/model/environment";
import type { Boot, ShellHooks, Workspace } from "../src/model/types";
import { openWorkspace } from "../src/model/workspace";
import { fakeTimers, rest } from "./device";
import { TestHub } from "./hub";

let hub: TestHub;
const opened: Workspace[] = [];

const boot = (id: string, role: Boot["session"]["role"] = "edit"): Boot => ({
  me: { id, kind: "guest", display_name: `Person ${id}`, email: null, is_admin: false, preferences: {} },
  session: { id: "ses_1", name: "Session", role, entry: null, egress: { on: false, allowed: true } },
  limits: { text_bytes: 1000 },
  first: null,
  version: "1",
});

interface Desk {
  workspace: Workspace;
  shell: string[];
}

function desk(id: string, role?: Boot["session"]["role"], storage: IDBFactory | undefined = new IDBFactory()): Desk {
  const shell: string[] = [];
  const environment: Environment = {
    origin: "http://a",
    fetch: () => Promise.resolve(new Response(JSON.stringify({ ticket: "t" }), { status: 201 })),
    connect: hub.connect,
    storage,
    tabStorage: null,
    onDoubt: () => () => undefined,
    onLeave: () => () => undefined,
    guardLeaving: () => () => undefined,
  };
  const hooks: ShellHooks = {
    openDocument: (document) => {
      shell.push(`open ${document}`);
      workspace.showing(document);
    },
    notify: (message) => shell.push(message),
  };
  const workspace = openWorkspace(boot(id, role), hooks, environment);
  opened.push(workspace);
  return { workspace, shell };
}

beforeEach(() => {
  fakeTimers();
  hub = new TestHub();
});
afterEach(() => {
  for (const workspace of opened.splice(0)) workspace.close();
  vi.useRealTimers();
});

describe("a workspace", () => {
  test("shares files and their texts", async () => {
    const [a, b] = [desk("a").workspace, desk("b").workspace];
    await rest();
    expect(a.treeReady.value).toBe(true);
    const node = a.files.createText("main.py", "print(1)\n");
    expect(a.tree.value.map((each) => each.path)).toEqual(["main.py"]);
    await rest();
    expect(b.tree.value).toEqual([node]);
    expect(await b.text(node.id)).toBe("print(1)\n");
    const undo = b.files.remove("main.py");
    await rest();
    expect([a.tree.value.length, a.trash.value.length]).toEqual([0, 1]);
    undo();
    await rest();
    expect(a.tree.value).toEqual([node]);
    expect([a.status.value, b.status.value]).toEqual([{ kind: "saved" }, { kind: "saved" }]);
  });

  test("makes a file offline that is there after a reload without a server", async () => {
    const storage = new IDBFactory();
    const first = desk("a", "edit", storage).workspace;
    await rest();
    hub.reachable = false;
    for (const connection of hub.connections) connection.cut(1006);
    const node = first.files.createText("offline.txt", "kept");
    await rest();
    first.close();

    const second = desk("a", "edit", storage).workspace;
    await rest(40);
    expect(second.treeReady.value).toBe(true);
    expect(second.tree.value.map((each) => each.path)).toEqual(["offline.txt"]);
    expect(await second.text(node.id)).toBe("kept");
    expect(second.status.value).toMatchObject({ kind: "offline", changes: 2 });
    hub.reachable = true;
    second.retryNow();
    await rest(40);
    expect(second.status.value).toEqual({ kind: "saved" });
    expect(hub.text(node.id)).toBe("kept");
  });

  test("shows who is here, and nobody who is gone", async () => {
    const [a, b] = [desk("a"), desk("b")];
    await rest();
    expect(a.workspace.people.value.map((person) => [person.id, person.me])).toEqual([["a", true], ["b", false]]);
    b.workspace.showing("doc_x");
    await rest();
    expect(a.workspace.people.value[1]?.documentId).toBe("doc_x");
    b.workspace.close();
    await rest();
    expect(a.workspace.people.value.map((person) => person.id)).toEqual(["a"]);
  });

  test("shows everybody again after a reconnect", async () => {
    const [a, b] = [desk("a"), desk("b")];
    await rest();
    for (const connection of [...hub.connections]) connection.cut(1006);
    expect(a.workspace.people.value).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(300);
    await rest();
    expect(a.workspace.people.value).toHaveLength(2);
    expect(b.workspace.people.value).toHaveLength(2);
  });

  test("follows a person from document to document until they leave", async () => {
    const [a, b] = [desk("a"), desk("b")];
    await rest();
    a.workspace.following.value = a.workspace.people.value[1]?.key ?? null;
    b.workspace.showing("doc_1");
    await rest();
    b.workspace.showing("doc_2");
    await rest();
    expect(a.shell).toEqual(["open doc_1", "open doc_2"]);
    b.workspace.close();
    await rest();
    expect(a.workspace.following.value).toBeNull();
    expect(a.shell[2]).toBe("Person b left, so you no longer follow.");
  });

  test("knows what a role allows, and when it changes", async () => {
    const a = desk("a").workspace;
    await rest();
    expect([a.canEdit.value, a.canRun.value]).toEqual([true, true]);
    hub.setScope("readonly"); // the socket may know before the event
    await rest();
    expect(a.canEdit.value).toBe(false);
    expect(a.status.value).toMatchObject({ kind: "readonly", reason: "Your access changed: you can no longer edit." });
    expect(() => a.files.createText("x")).toThrow("cannot change files");
    a.session.value = { ...a.session.value, role: "run" };
    expect([a.canEdit.value, a.canRun.value]).toEqual([false, true]);
    hub.setScope("read-write");
    a.session.value = { ...a.session.value, role: "edit" };
    await rest();
    expect(a.canEdit.value).toBe(true);
    expect(a.status.value).toEqual({ kind: "saved" });
  });

  test("offers texts with refused edits, and drops them when told to", async () => {
    const storage = new IDBFactory();
    const a = desk("a", "edit", storage).workspace;
    await rest();
    const node = a.files.createText("mine.txt", "old");
    await rest();
    for (const connection of hub.connections) connection.cut(1006);
    const other = a.files.createText("other.txt", "refused words");
    hub.scope = "readonly";
    await vi.advanceTimersByTimeAsync(300);
    await rest();
    expect(a.status.value).toMatchObject({ kind: "readonly", refused: 2 }); // the file and its text
    expect(a.refusedCopies()).toEqual([{ path: "other.txt", text: "refused words" }]);
    await a.discardRefused();
    hub.reachable = true;
    const again = desk("a", "edit", storage).workspace;
    await rest(40);
    expect(again.tree.value.map((each) => each.id)).toEqual([node.id]);
    expect(again.tree.value.some((each) => each.id === other.id)).toBe(false);
    expect(again.status.value.kind).toBe("readonly");
  });

  test("ends when one is removed, with the edits still countable", async () => {
    const a = desk("a").workspace;
    await rest();
    for (const connection of [...hub.connections]) connection.cut(4403, "access_ended: removed");
    expect(a.status.value).toEqual({
      kind: "readonly",
      reason: "You have no access to this session any more.",
      refused: 0,
    });
    expect(a.canRun.value).toBe(false);
  });

  test("notices a dead link within 5 s", async () => {
    const a = desk("a");
    await rest();
    expect(a.workspace.status.value.kind).toBe("saved");
    hub.reachable = false;
    for (const connection of hub.connections) connection.silent = true;
    await vi.advanceTimersByTimeAsync(5000);
    expect(a.workspace.status.value.kind).not.toBe("saved");
  });
});
