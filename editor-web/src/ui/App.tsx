// The whole page: header, strip and side bar, editors, people, output, status line; on a phone one of them at a time.
import type { Shell } from "../model/shell";
import { Banner } from "./Banner";
import { BottomBar } from "./BottomBar";
import { Editors } from "./Editors";
import { Header } from "./Header";
import { KeyRow } from "./KeyRow";
import { lazy } from "./Lazy";
import { Output } from "./Output";
import { People } from "./People";
import { SideBar } from "./SideBar";
import { StatusLine } from "./StatusLine";
import { Toasts } from "./Toasts";

const Palette = lazy<{ shell: Shell }>(async () => (await import("./Palette")).Palette);
const QuickOpen = lazy<{ shell: Shell }>(async () => (await import("./Palette")).QuickOpen);
const Share = lazy<{ shell: Shell }>(async () => (await import("./Share")).Share);
const Help = lazy<{ shell: Shell }>(async () => (await import("./Help")).Help);
const GitImport = lazy<{ shell: Shell }>(async () => (await import("./GitImport")).GitImport);
const History = lazy<{ shell: Shell }>(async () => (await import("./History")).History);
const Internet = lazy<{ shell: Shell }>(async () => (await import("./Internet")).Internet);
const Trash = lazy<{ shell: Shell }>(async () => (await import("./Trash")).Trash);

export function App({ shell }: { shell: Shell }) {
  const { layout, dialog } = shell;
  return (
    <div class="app" data-view={layout.view.value}>
      <Header shell={shell} />
      <Banner shell={shell} />
      <div class="middle">
        <SideBar shell={shell} />
        <main class="centre">
          <Editors shell={shell} />
          {layout.bottom.value !== null && <Output shell={shell} />}
        </main>
        {(layout.people.value || layout.view.value === "people") && <People shell={shell} />}
      </div>
      <KeyRow shell={shell} />
      <BottomBar shell={shell} />
      <StatusLine shell={shell} />
      {dialog.value === null && <Toasts />}
      {dialog.value === "palette" && <Palette shell={shell} />}
      {dialog.value === "files" && <QuickOpen shell={shell} />}
      {dialog.value === "share" && <Share shell={shell} />}
      {dialog.value === "help" && <Help shell={shell} />}
      {dialog.value === "trash" && <Trash shell={shell} />}
      {dialog.value === "history" && <History shell={shell} />}
      {dialog.value === "internet" && <Internet shell={shell} />}
      {dialog.value === "git" && <GitImport shell={shell} />}
    </div>
  );
}
