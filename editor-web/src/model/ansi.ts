// Terminal colours as pieces of text with a class; every other escape sequence is left out, nothing becomes HTML.

export interface Piece {
  text: string;
  className: string;
}

// CSI, OSC and two-character sequences.
const ESCAPE = /\u001b(?:\[([0-9;?]*)([@-~])|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\-_])/g;
const COLORS = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

/** Splits a text; `state` is what the pieces before left on, and the state after comes back. */
export function ansi(text: string, state = ""): { pieces: Piece[]; state: string } {
  const pieces: Piece[] = [];
  let at = 0;
  const add = (part: string): void => {
    const clean = part.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001a\u001c-\u001f\u007f]/g, "");
    if (clean !== "") pieces.push({ text: clean, className: state });
  };
  for (const match of text.matchAll(ESCAPE)) {
    add(text.slice(at, match.index));
    at = match.index + match[0].length;
    if (match[2] === "m") state = styled(state, match[1] ?? "");
  }
  add(text.slice(at));
  return { pieces, state };
}

function styled(state: string, codes: string): string {
  const classes = new Set(state.split(" ").filter(Boolean));
  for (const code of (codes === "" ? "0" : codes).split(";").map(Number)) {
    if (code === 0) classes.clear();
    else if (code === 1) classes.add("ansi-bold");
    else if (code === 22) classes.delete("ansi-bold");
    else if (code === 39) dropColor(classes);
    else if ((code >= 30 && code <= 37) || (code >= 90 && code <= 97)) {
      dropColor(classes);
      classes.add(`ansi-${COLORS[code % 10]}`);
    }
  }
  return [...classes].join(" ");
}

function dropColor(classes: Set<string>): void {
  for (const name of COLORS) classes.delete(`ansi-${name}`);
}
