// The strip at the left edge and what it opens.
import { runCommand } from "../model/commands";
import type { Shell } from "../model/shell";
import { IconButton } from "./icons";
import { lazy } from "./Lazy";
import { Tree } from "./Tree";

const Search = lazy<{ shell: Shell }>(async () => (await import("./Search")).Search);

export function SideBar({ shell }: { shell: Shell }) {
  const { layout } = shell;
  const side = layout.side.value ?? (layout.view.value === "files" ? "files" : null);
  return (
    <>
      <nav class="strip" aria-label="Side bar">
        <IconButton icon="files" label="Files" pressed={layout.side.value === "files"} onClick={() => layout.toggleSide("files")} />
        <IconButton icon="search" label="Search" pressed={layout.side.value === "search"} onClick={() => layout.toggleSide("search")} />
        <span class="spacer" />
        <IconButton icon="output" label="Output" class="desktop-only" pressed={layout.bottom.value !== null} onClick={() => runCommand(shell, "output")} />
        <IconButton icon="help" label="Help" onClick={() => runCommand(shell, "help")} />
      </nav>
      {side !== null && <aside class="side" aria-label={side === "files" ? "Files" : "Search"}>{side === "files" ? <Tree shell={shell} /> : <Search shell={shell} />}</aside>}
    </>
  );
}
