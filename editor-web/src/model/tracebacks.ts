// Finds places in files in what a program printed, and what its last error said.

export interface Place {
  path: string;
  line: number; // 1-based
  column: number; // 0-based
  /** Where the mention stands in the printed line. */
  start: number;
  end: number;
}

export interface Failure {
  path: string;
  line: number;
  message: string;
}

const PYTHON = /File "([^"]+)", line (\d+)/g;
// What most others write too: a path, a line, and maybe a column.
const NODE = /((?:file:\/\/)?\/?[\w./@+ -]+?\.(?:[cm]?[jt]s|py|sh|bash|c|cc|cpp|cxx|h|hpp|go|rs|java|rb|lua)):(\d+)(?::(\d+))?/g;
/** What stands before a compiler's words: the line that is marked says it already. */
const PREFIX = /^\S+:\d+(?::\d+)?: /;
const PHP = /in ([\w./@+ -]+?\.php) on line (\d+)/g;
const BASH = /([\w./-]+\.(?:sh|bash)): line (\d+)/g;

/** Mentions of the session's own files in one printed line. */
export function places(line: string, paths: ReadonlySet<string>): Place[] {
  const found: Place[] = [];
  for (const pattern of [PYTHON, BASH, PHP, NODE]) {
    for (const match of line.matchAll(pattern)) {
      const mention = mentioned(match[1] as string, paths);
      if (mention === null) continue;
      const start = match.index + mention.skipped;
      const end = match.index + match[0].length;
      if (found.some((place) => start < place.end && end > place.start)) continue;
      found.push({ path: mention.path, line: Number(match[2]), column: Math.max(0, Number(match[3] ?? 1) - 1), start, end });
    }
  }
  return found.sort((a, b) => a.start - b.start);
}

/** The last error in a program's error output: its own innermost line, and the message. */
export function failureIn(stderr: string, paths: ReadonlySet<string>): Failure | null {
  const lines = stderr.split("\n");
  const begin = lines.findLastIndex((line) => line.startsWith("Traceback (most recent call last)"));
  const python = begin >= 0 || /^\s+File "/m.test(stderr);
  const mentions = lines.slice(Math.max(0, begin)).flatMap((line) => places(line, paths));
  // Python names the innermost call last, Node first.
  const place = python ? mentions[mentions.length - 1] : mentions[0];
  if (place === undefined) return null;
  const message =
    (python ? lines.findLast((line) => /^[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit|Warning|StopIteration|Group)?\b.*$/.test(line) && !line.startsWith("Traceback")) : undefined) ??
    lines.find((line) => /^(?:Uncaught )?[A-Z]\w*(?:Error|Exception)\b/.test(line)) ??
    lines.find((line) => places(line, paths).length > 0);
  return { path: place.path, line: place.line, message: (message ?? "").replace(PREFIX, "").trim().slice(0, 200) };
}

/** A path may hold spaces, and words may come before it: the longest end that is a file counts. */
function mentioned(words: string, paths: ReadonlySet<string>): { path: string; skipped: number } | null {
  for (let skipped = 0; skipped >= 0; skipped = words.indexOf(" ", skipped) + 1 || -1) {
    const path = ownPath(words.slice(skipped), paths);
    if (path !== null) return { path, skipped };
  }
  return null;
}

function ownPath(mentioned: string, paths: ReadonlySet<string>): string | null {
  const plain = mentioned.replace(/^file:\/\//, "").replace(/^\.\//, "");
  if (paths.has(plain)) return plain;
  // In the sandbox the session lies beneath a folder of its own: compare from the end, the longest first.
  const parts = plain.split("/").filter(Boolean);
  for (let from = plain.startsWith("/") ? 1 : 0; from < parts.length; from++) {
    const tail = parts.slice(from).join("/");
    if (paths.has(tail)) return tail;
  }
  return null;
}

const MISSED =
  /name resolution|Name or service not known|nodename nor servname|getaddrinfo|EAI_AGAIN|ENETUNREACH|Network is unreachable|[Cc]ould not resolve host|no such host|UnknownHostException/;

/** Says whether what a program printed looks as if the proxy had refused it. */
export const refusedByProxy = (printed: string): boolean => /CONNECT tunnel failed|Tunnel connection failed|Proxy response \(\d+\)|ERR_PROXY/.test(printed);

/** Says whether what a program printed looks as if it had no network. */
export const missedInternet = (printed: string): boolean => MISSED.test(printed);
