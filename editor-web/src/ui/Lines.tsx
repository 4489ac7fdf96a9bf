// What a program printed, line by line: colours, lines that are written anew, and places that lead to the code.
import { ansi } from "../model/ansi";
import type { Chunk } from "../model/runs";
import type { Shell } from "../model/shell";
import { type Place, places } from "../model/tracebacks";

const MOST_LINES = 5_000;

/** `find` finds other places in a line than files of the session. */
export function Lines({ shell, chunks, find }: { shell: Shell; chunks: readonly Chunk[]; find?: (line: string) => Place | undefined }) {
  const paths = new Set(shell.workspace.tree.value.map((node) => node.path));
  const lines = linesOf(chunks).slice(-MOST_LINES);
  let state = "";
  return (
    <pre class="lines">
      {lines.map((line, index) => {
        const parts = line.parts.map((part) => {
          const styled = ansi(part.text, state);
          state = styled.state;
          return { stream: part.stream, pieces: styled.pieces };
        });
        const plain = parts.flatMap((part) => part.pieces).map((piece) => piece.text).join("");
        const found = find?.(plain) ?? places(plain, paths)[0];
        return (
          <span key={index} class="line">
            {found !== undefined ? (
              <>
                <span class={parts[0]?.stream}>{plain.slice(0, found.start)}</span>
                <button type="button" class="place" onClick={() => shell.open(found.path, found.line, found.column)}>
                  {plain.slice(found.start, found.end)}
                </button>
                <span class={parts[0]?.stream}>{plain.slice(found.end)}</span>
              </>
            ) : (
              parts.map((part) => part.pieces.map((piece) => <span class={`${part.stream} ${piece.className}`}>{piece.text}</span>))
            )}
            {"\n"}
          </span>
        );
      })}
    </pre>
  );
}

function linesOf(chunks: readonly Chunk[]): { parts: { stream: Chunk["stream"]; text: string }[] }[] {
  const lines: { parts: { stream: Chunk["stream"]; text: string }[] }[] = [{ parts: [] }];
  for (const { stream, data } of chunks) {
    data.replace(/\r\n/g, "\n").split("\n").forEach((text, index) => {
      if (index > 0) lines.push({ parts: [] });
      // A carriage return alone starts the line anew, as progress bars do.
      const shown = text.slice(text.lastIndexOf("\r") + 1);
      if (shown !== "") (lines[lines.length - 1] as (typeof lines)[number]).parts.push({ stream, text: shown });
    });
  }
  if (lines[lines.length - 1]?.parts.length === 0) lines.pop();
  return lines;
}
