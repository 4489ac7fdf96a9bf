// Calls to the HTTP API: JSON in and out, every failure a `ProblemError` with the server's own words.
import type { Problem } from "../model/types";

export class ProblemError extends Error {
  constructor(readonly problem: Problem) {
    super(problem.detail);
  }
}

const offline: Problem = {
  code: "offline",
  title: "The server cannot be reached",
  detail: "The server cannot be reached just now.",
  id: "",
  next_step: "Try again when you are online.",
  status: 0,
};

export async function problemOf(response: Response): Promise<Problem> {
  try {
    const body = (await response.json()) as Partial<Problem>;
    if (typeof body.code === "string" && typeof body.detail === "string") return body as Problem;
  } catch {
    // not JSON: a proxy's own page
  }
  return { ...offline, code: `http_${response.status}`, detail: `The server answered ${response.status}.`, status: response.status };
}

export async function call<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, {
      method,
      credentials: "same-origin",
      ...(signal === undefined ? {} : { signal }),
      ...(body === undefined ? {} : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
    });
  } catch {
    throw new ProblemError(offline);
  }
  if (!response.ok) throw new ProblemError(await problemOf(response));
  return (response.status === 204 ? undefined : await response.json()) as T;
}

/** Uploads one file with progress (0 to 1); XMLHttpRequest, since fetch does not tell how much has gone out. */
export function upload(path: string, file: Blob, progress: (share: number) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", path);
    request.upload.onprogress = (event) => progress(event.lengthComputable ? event.loaded / event.total : 0);
    request.onload = () => {
      if (request.status < 300) resolve();
      else void problemOf(new Response(request.responseText, { status: request.status })).then((p) => reject(new ProblemError(p)));
    };
    request.onerror = () => reject(new ProblemError(offline));
    request.send(file);
  });
}

export const filePath = (session: string, path: string): string =>
  `/api/v1/sessions/${session}/files/${path.split("/").map(encodeURIComponent).join("/")}`;
