// The language of a file, by its name, loaded when first needed.
import { StreamLanguage } from "@codemirror/language";
import type { Extension } from "@codemirror/state";

type Loader = () => Promise<Extension>;

const script = (options: { jsx?: boolean; typescript?: boolean }): Loader => {
  return async () => (await import("@codemirror/lang-javascript")).javascript(options);
};
const shell: Loader = async () => StreamLanguage.define((await import("@codemirror/legacy-modes/mode/shell")).shell);
const markdown: Loader = async () => (await import("@codemirror/lang-markdown")).markdown();
const html: Loader = async () => (await import("@codemirror/lang-html")).html();
const json: Loader = async () => (await import("@codemirror/lang-json")).json();
const python: Loader = async () => (await import("@codemirror/lang-python")).python();

const LOADERS: Readonly<Record<string, Loader>> = {
  py: python,
  pyi: python,
  js: script({}),
  mjs: script({}),
  cjs: script({}),
  jsx: script({ jsx: true }),
  ts: script({ typescript: true }),
  mts: script({ typescript: true }),
  tsx: script({ jsx: true, typescript: true }),
  html,
  htm: html,
  svg: html,
  xml: html,
  css: async () => (await import("@codemirror/lang-css")).css(),
  json,
  ipynb: json,
  md: markdown,
  markdown,
  sh: shell,
  bash: shell,
  zsh: shell,
};

/** Resolves to the language's extension, or to nothing for a plain text. */
export async function languageFor(path: string): Promise<Extension> {
  const name = path.slice(path.lastIndexOf("/") + 1).toLowerCase();
  const load = LOADERS[name.slice(name.lastIndexOf(".") + 1)];
  return load === undefined || !name.includes(".") ? [] : load();
}
