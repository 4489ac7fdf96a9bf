import { describe, expect, test } from "vitest";

import { isNumeric, parseTable } from "../src/model/table";

describe("tables", () => {
  test("rows end with any line end, and the last may have none", () => {
    for (const end of ["\n", "\r\n", "\r"]) {
      expect(parseTable(["a,b", "1,2", "3,4"].join(end), ",", 9)).toEqual({ head: ["a", "b"], rows: [["1", "2"], ["3", "4"]], count: 2 });
    }
  });

  test("quoted fields hold separators, quotes and line ends", () => {
    const { rows } = parseTable('a,b\n"x,y","she said ""no""\nand left"\n', ",", 9);
    expect(rows).toEqual([["x,y", 'she said "no"\nand left']]);
  });

  test("a quote inside a field is a character, and one that never ends takes the rest", () => {
    expect(parseTable('a\n5" pipe\n', ",", 9).rows).toEqual([['5" pipe']]);
    expect(parseTable('a\n"open\nend', ",", 9).rows).toEqual([["open\nend"]]);
  });

  test("only so many rows are kept, and all are counted", () => {
    const text = `n\n${Array.from({ length: 5_000 }, (_, i) => i).join("\n")}\n\n`;
    const table = parseTable(text, ",", 100);
    expect([table.rows.length, table.count, table.rows[99]]).toEqual([100, 5_000, ["99"]]);
  });

  test("tabs, rows of any length, a byte order mark, nothing", () => {
    expect(parseTable("\ufeffa\tb\n1\n1\t2\t3", "\t", 9)).toEqual({ head: ["a", "b"], rows: [["1"], ["1", "2", "3"]], count: 2 });
    expect(parseTable("", ",", 9)).toEqual({ head: [], rows: [], count: 0 });
    expect(parseTable("a,,\n,,", ",", 9)).toEqual({ head: ["a", "", ""], rows: [["", "", ""]], count: 1 });
  });

  test("columns of numbers are known", () => {
    const table = parseTable("a,b,c,d\n1,x,,1e3\n-2.5,1,,\n", ",", 9);
    expect([0, 1, 2, 3].map((column) => isNumeric(table, column))).toEqual([true, false, false, true]);
  });
});
