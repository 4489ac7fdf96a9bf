// First steps and every key, made from the list of commands.
import { commands, shownKeys } from "../model/commands";
import type { Shell } from "../model/shell";
import { Dialog } from "./Dialog";

const MORE: readonly [string, string][] = [
  ["Mod+S", "says whether it is saved"],
  ["Mod+F", "find in this file"],
  ["Mod+/", "comment lines"],
  ["Mod+Z", "undo your own edits"],
  ["Esc, then Tab", "leave the text by keyboard"],
];

export function Help({ shell }: { shell: Shell }) {
  const keys = commands.filter((command) => command.keys !== undefined);
  return (
    <Dialog shell={shell} title="Help and keys">
      <p>
        <strong>Run</strong> shows everyone what the program prints. <strong>Share</strong> copies a link; who opens it needs no account. What you
        type is on the server's disk when the line below says <strong>Saved</strong>; offline it is kept on this device and merged later.
      </p>
      <table class="table">
        <tbody>
          {keys.map((command) => (
            <tr key={command.id}>
              <th scope="row">
                <kbd>{shownKeys(command.keys as string)}</kbd>
              </th>
              <td>{command.title}</td>
            </tr>
          ))}
          {MORE.map(([key, what]) => (
            <tr key={key}>
              <th scope="row">
                <kbd>{shownKeys(key)}</kbd>
              </th>
              <td>{what}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <p>
        <a href="/help">More about roles and limits</a>
      </p>
    </Dialog>
  );
}
