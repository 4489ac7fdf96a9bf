// All commands, and all files, by a few letters.
import { useState } from "preact/hooks";

import { commands, runCommand, shownKeys } from "../model/commands";
import { best } from "../model/fuzzy";
import type { Shell } from "../model/shell";
import { Dialog } from "./Dialog";

interface Choice {
  id: string;
  title: string;
  hint: string;
}

export function Palette({ shell }: { shell: Shell }) {
  const offered = commands
    .filter((command) => command.id !== "palette" && (command.when?.(shell) ?? true))
    .map((command) => ({ id: command.id, title: command.title, hint: command.keys === undefined ? "" : shownKeys(command.keys) }));
  return <Chooser shell={shell} title="All commands" placeholder="What do you want to do?" choices={offered} onChoose={(id) => runCommand(shell, id)} />;
}

export function QuickOpen({ shell }: { shell: Shell }) {
  const files = shell.workspace.tree.value.filter((node) => node.kind !== "folder").map((node) => ({ id: node.id, title: node.path, hint: "" }));
  return (
    <Chooser
      shell={shell}
      title="Open a file"
      placeholder="Part of a file's name"
      choices={files}
      onChoose={(id) => {
        shell.layout.open(id);
        setTimeout(() => shell.focusEditor(), 50);
      }}
    />
  );
}

interface ChooserProps {
  shell: Shell;
  title: string;
  placeholder: string;
  choices: readonly Choice[];
  onChoose: (id: string) => void;
}

function Chooser({ shell, title, placeholder, choices, onChoose }: ChooserProps) {
  const [query, setQuery] = useState("");
  const [at, setAt] = useState(0);
  const found = best(choices, query, (choice) => choice.title, 50);
  const choose = (choice: Choice | undefined): void => {
    if (choice === undefined) return;
    shell.dialog.value = null;
    setTimeout(() => onChoose(choice.id)); // the dialog gives the focus back first
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key === "ArrowDown") setAt(Math.min(found.length - 1, at + 1));
    else if (event.key === "ArrowUp") setAt(Math.max(0, at - 1));
    else if (event.key === "Enter") choose(found[at]);
    else return;
    event.preventDefault();
  };
  return (
    <Dialog shell={shell} title={title} bare>
      <input
        class="chooser-field"
        role="combobox"
        aria-expanded="true"
        aria-controls="choices"
        aria-activedescendant={found[at] === undefined ? undefined : `choice-${found[at].id}`}
        aria-label={title}
        placeholder={placeholder}
        autofocus
        autocomplete="off"
        value={query}
        onInput={(event) => {
          setQuery(event.currentTarget.value);
          setAt(0);
        }}
        onKeyDown={onKeyDown}
      />
      <ul class="choices" role="listbox" id="choices" aria-label={title} tabIndex={-1}>
        {found.map((choice, index) => (
          <li
            key={choice.id}
            id={`choice-${choice.id}`}
            role="option"
            aria-selected={index === at}
            onMouseMove={() => setAt(index)}
            onClick={() => choose(choice)}
            ref={(element) => {
              if (index === at) element?.scrollIntoView({ block: "nearest" });
            }}
          >
            <span>{choice.title}</span>
            {choice.hint !== "" && <kbd>{choice.hint}</kbd>}
          </li>
        ))}
      </ul>
      {found.length === 0 && <p class="empty">Nothing fits “{query}”.</p>}
    </Dialog>
  );
}
