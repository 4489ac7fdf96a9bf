// The language of a file, by its name, loaded when first needed.
import { StreamLanguage } from "@codemirror/language";
import type { Extension } from "@codemirror/state";

type Loader = () => Promise<Extension>;

const script = (options: { jsx?: boolean; typescript?: boolean }): Loader => {
  return async () => (await import("@codemirror/lang-javascript")).javascript(options);
};
const shell: Loader = async () => StreamLanguage.define((await import("@codemirror/legacy-modes/mode/shell")).shell);
const c: Loader = async () => StreamLanguage.define((await import("@codemirror/legacy-modes/mode/clike")).c);
const cpp: Loader = async () => StreamLanguage.define((await import("@codemirror/legacy-modes/mode/clike")).cpp);
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
  c,
  h: c,
  cpp,
  cc: cpp,
  cxx: cpp,
  hpp: cpp,
  java: async () => StreamLanguage.define((await import("@codemirror/legacy-modes/mode/clike")).java),
  go: async () => StreamLanguage.define((await import("@codemirror/legacy-modes/mode/go")).go),
  rs: async () => StreamLanguage.define((await import("@codemirror/legacy-modes/mode/rust")).rust),
  rb: async () => StreamLanguage.define((await import("@codemirror/legacy-modes/mode/ruby")).ruby),
  lua: async () => StreamLanguage.define((await import("@codemirror/legacy-modes/mode/lua")).lua),
  r: async () => StreamLanguage.define((await import("@codemirror/legacy-modes/mode/r")).r),
  sql: async () => StreamLanguage.define((await import("@codemirror/legacy-modes/mode/sql")).sqlite),
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
