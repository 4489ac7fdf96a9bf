// A file that is not text: an image as it is, anything else by its facts; always to be had.
import { filePath } from "../api/http";
import type { Shell } from "../model/shell";
import type { FileNode } from "../model/types";

export function Preview({ shell, node }: { shell: Shell; node: FileNode }) {
  const address = filePath(shell.session, node.path);
  const image = /^image\/(png|jpeg|gif|webp|avif)$/.test(node.mediaType ?? "");
  return (
    <div class="preview-pane">
      {image && <img src={`${address}?v=${node.blob ?? ""}`} alt={node.path} />}
      <p>
        {node.path} · {bytes(node.size ?? 0)}
      </p>
      <a class="button" href={`${address}?download=true`} download>
        Download
      </a>
    </div>
  );
}

export function bytes(count: number): string {
  if (count < 1000) return `${count} bytes`;
  return count < 1e6 ? `${(count / 1000).toFixed(1)} kB` : `${(count / 1e6).toFixed(1)} MB`;
}
