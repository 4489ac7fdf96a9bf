// Paths of files: what is valid, and what two paths have in common. Mirrors the server's rules.

export type PathFault =
  | "path_empty"
  | "path_absolute"
  | "path_traversal"
  | "path_nul"
  | "path_control"
  | "path_backslash"
  | "path_component_too_long"
  | "path_too_long"
  | "path_space"
  | "path_taken";

const WORDS: Readonly<Record<PathFault, string>> = {
  path_empty: "A name is needed.",
  path_absolute: "A path starts with a name, not with a slash.",
  path_traversal: "A path may not have . or .. in it.",
  path_nul: "A path may not have a NUL character in it.",
  path_control: "A path may not have control characters in it.",
  path_backslash: "Folders are parted by /, not by \\.",
  path_component_too_long: "One name may have up to 255 bytes.",
  path_too_long: "A path may have up to 1024 bytes.",
  path_space: "A name may not start or end with a space.",
  path_taken: "There is a file or folder of that name already.",
};

/** A path that cannot be used; `code` is the same as the server's. */
export class PathError extends Error {
  readonly title = "The path cannot be used";
  readonly status = 422;
  readonly next_step = "Choose another name.";
  constructor(
    readonly code: PathFault,
    readonly path: string,
  ) {
    super(WORDS[code]);
  }

  get detail(): string {
    return this.message;
  }
}

const bytes = (text: string): number => new TextEncoder().encode(text).byteLength;

/** Says what is wrong with a path, or null. */
export function pathFault(path: string): PathFault | null {
  if (path === "") return "path_empty";
  if (path.includes("\0")) return "path_nul";
  if (/[\u0001-\u001f\u007f]/.test(path) || !path.isWellFormed()) return "path_control";
  if (path.includes("\\")) return "path_backslash";
  if (path.startsWith("/")) return "path_absolute";
  if (bytes(path) > 1024) return "path_too_long";
  for (const component of path.split("/")) {
    if (component === "") return "path_empty";
    if (component === "." || component === "..") return "path_traversal";
    if (component.startsWith(" ") || component.endsWith(" ")) return "path_space";
    if (bytes(component) > 255) return "path_component_too_long";
  }
  return null;
}

/** NFC, so that equal-looking names are equal. Throws `PathError`. */
export function checkedPath(path: string): string {
  const normal = path.normalize("NFC");
  const fault = pathFault(path) ?? pathFault(normal);
  if (fault !== null) throw new PathError(fault, path);
  return normal;
}

/** Two paths of equal key cannot be beside each other on every file system. */
export const clashKey = (path: string): string => path.normalize("NFC").toLowerCase();

/** `a/b/c` → `a`, `a/b`. */
export function* foldersOf(path: string): Generator<string> {
  for (let end = path.indexOf("/"); end >= 0; end = path.indexOf("/", end + 1)) yield path.slice(0, end);
}

/** `dir/name.ext` → `dir/name (n).ext`. */
export function numbered(path: string, n: number): string {
  const slash = path.lastIndexOf("/") + 1;
  const name = path.slice(slash);
  const dot = name.lastIndexOf(".");
  const stem = dot > 0 ? name.slice(0, dot) : name;
  return `${path.slice(0, slash)}${stem} (${n})${dot > 0 ? name.slice(dot) : ""}`;
}
