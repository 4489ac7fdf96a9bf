// On a phone: one pane at a time, chosen here.
import type { View } from "../model/layout";
import type { Shell } from "../model/shell";
import { Icon, type IconName } from "./icons";

const VIEWS: readonly [View, string, IconName][] = [
  ["files", "Files", "files"],
  ["code", "Code", "code"],
  ["output", "Output", "output"],
  ["people", "People", "people"],
];

export function BottomBar({ shell }: { shell: Shell }) {
  const { layout } = shell;
  const choose = (view: View): void => {
    if (view === "output") layout.showBottom(layout.bottom.peek() ?? "output");
    layout.view.value = view;
  };
  return (
    <nav class="bottom-bar" aria-label="Views">
      {VIEWS.map(([view, label, icon]) => (
        <button key={view} type="button" aria-current={layout.view.value === view ? "page" : undefined} onClick={() => choose(view)}>
          <Icon name={icon} />
          <span>{label}</span>
        </button>
      ))}
    </nav>
  );
}
