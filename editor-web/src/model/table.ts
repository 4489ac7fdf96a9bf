// Comma- or tab-separated values as rows, as RFC 4180 has them: quoted fields may hold separators, quotes and line ends.

export interface Table {
  head: readonly string[];
  rows: readonly (readonly string[])[];
  /** All rows below the head, also those that are not in `rows`. */
  count: number;
}

/** Reads at most `most` rows below the head; the rest is only counted. Empty lines are none. */
export function parseTable(text: string, separator: string, most: number): Table {
  const found: string[][] = [];
  let count = 0;
  let row: string[] = [];
  let field = "";
  let quoted = false;
  const end = (): void => {
    if (row.length > 0 || field !== "") {
      if (count <= most) found.push([...row, field]);
      count++;
    }
    row = [];
    field = "";
  };
  for (let at = text.startsWith("\ufeff") ? 1 : 0; at < text.length; at++) {
    const character = text[at] as string;
    if (quoted) {
      if (character !== '"') field += character;
      else if (text[at + 1] === '"') field += text[++at];
      else quoted = false;
    } else if (character === '"' && field === "") quoted = true;
    else if (character === separator) {
      row.push(field);
      field = "";
    } else if (character === "\n" || character === "\r") {
      if (character === "\r" && text[at + 1] === "\n") at++;
      end();
    } else field += character;
  }
  end();
  const [head = [], ...rows] = found;
  return { head, rows, count: Math.max(0, count - 1) };
}

/** Whether a column reads as numbers, which stand right. */
export function isNumeric(table: Table, column: number): boolean {
  const values = table.rows.map((row) => row[column]?.trim() ?? "").filter((value) => value !== "");
  return values.length > 0 && values.every((value) => Number.isFinite(Number(value)));
}
