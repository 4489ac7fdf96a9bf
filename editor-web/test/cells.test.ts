import { Text } from "@codemirror/state";
import { describe, expect, it } from "vitest";

import { cellsOf } from "../src/editor/cells";
import { type Cell, Cells, merged, placeIn, titleOf } from "../src/model/cells";

const text = (...lines: string[]): Text => Text.of(lines);

describe("cells of a file", () => {
  it("lie between markers, with their first lines", () => {
    const found = cellsOf(text("import os", "# %% one", "x = 1", "", "#%%", "y = 2", "# %% [markdown]", "# words", "# %%", "# only a comment"));
    expect(found.map(({ line, code }) => [line, code])).toEqual([
      [1, "import os"],
      [2, "# %% one\nx = 1"],
      [5, "#%%\ny = 2"],
    ]);
  });

  it("are the whole file where there is no marker, and none where there is no code", () => {
    expect(cellsOf(text("a = 1", "b = 2")).map(({ code }) => code)).toEqual(["a = 1\nb = 2"]);
    expect(cellsOf(text(""))).toEqual([]);
    expect(cellsOf(text("# %%"))).toEqual([]);
  });

  it("cover the text without overlapping", () => {
    const doc = text("x", "# %%", "y", "# %%", "z", "");
    const found = cellsOf(doc);
    expect(found.every(({ from, to }, index) => from <= to && (found[index + 1] === undefined || to < (found[index + 1]?.from ?? 0)))).toBe(true);
    expect(found.at(-1)?.to).toBe(doc.length);
  });
});

const cell = (changes: Partial<Cell>): Cell => ({
  id: "a", session_id: "s", user_id: "u", user_name: "Ada", position: 1, batch: "b", path: null, line: null, code: "1", status: "queued",
  life: null, number: null, outcome: null, detail: null, error: null, wall_seconds: null, created_at: 1, started_at: null, ended_at: null, ...changes,
});

describe("what is told of cells", () => {
  it("ends as the server has it, in whatever order it comes", () => {
    const cells = new Cells("s");
    const told: [string, Record<string, unknown>][] = [
      ["cell.ended", { cell: cell({ status: "ended", outcome: "done", number: 1, life: 1 }) }],
      ["cell.event", { cell_id: "a", seq: 2, type: "stdout", data: { data: "b" } }],
      ["cell.started", { cell: cell({ status: "running", number: 1, life: 1 }) }],
      ["cell.event", { cell_id: "a", seq: 1, type: "stdout", data: { data: "a" } }],
      ["cell.queued", { cells: [cell({}), cell({ id: "b", position: 2 })] }],
      ["cell.event", { cell_id: "a", seq: 2, type: "stdout", data: { data: "b" } }],
    ];
    for (const [type, data] of told) cells.receive(type, data);
    expect(cells.list.value.map(({ id, status }) => [id, status])).toEqual([["a", "ended"], ["b", "queued"]]);
    expect(cells.events.value.get("a")?.map(({ data }) => data["data"])).toEqual(["a", "b"]);
    expect(cells.running.value).toBeNull();
    expect(cells.waiting.value.map(({ id }) => id)).toEqual(["b"]);
  });

  it("keeps what is whole when a part of it comes again", () => {
    const whole = { seq: 1, type: "value" as const, data: { data: "long text" } };
    const cut = { seq: 1, type: "value" as const, data: { data: "long", cut: true } };
    expect(merged([whole], [cut])).toEqual([whole]);
    expect(merged([cut], [whole])).toEqual([whole]);
  });

  it("leads from a traceback to the line of the file", () => {
    const cells = [cell({ life: 1, number: 4, path: "old.py", line: 1 }), cell({ life: 2, number: 4, path: "main.py", line: 10 }), cell({ life: 2, number: 5 })];
    expect(placeIn("  Cell [4], line 3, in f", 2, cells)).toEqual({ path: "main.py", line: 12, column: 0, start: 2, end: 18 });
    expect(placeIn("  Cell [5], line 1, in f", 2, cells)).toBeUndefined();
    expect(placeIn("nothing", 2, cells)).toBeUndefined();
  });

  it("names a cell by its marker, else by its first code", () => {
    expect(titleOf("# %% load data\nx = 1")).toBe("load data");
    expect(titleOf("# %%\n\nx = 1")).toBe("x = 1");
  });
});
