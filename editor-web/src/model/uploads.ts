// Files that are on their way to the server, with progress.
import { signal } from "@preact/signals";

import { filePath, upload } from "../api/http";
import { complain } from "./toasts";

export interface Upload {
  id: number;
  path: string;
  share: number;
}

export const uploads = signal<readonly Upload[]>([]);
let last = 0;

export async function uploadFiles(session: string, files: readonly File[], folder: string): Promise<void> {
  for (const file of files) {
    const name = file.webkitRelativePath || file.name;
    const path = folder === "" ? name : `${folder}/${name}`;
    const id = ++last;
    const report = (share: number): void => {
      uploads.value = uploads.peek().map((item) => (item.id === id ? { ...item, share } : item));
    };
    uploads.value = [...uploads.peek(), { id, path, share: 0 }];
    try {
      await upload(filePath(session, path), file, report);
    } catch (error) {
      complain(error);
    } finally {
      uploads.value = uploads.peek().filter((item) => item.id !== id);
    }
  }
}
