// Prints the first-load JavaScript in kB gzip: the entry and all that it imports statically. Fails over the limit.
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const LIMIT = 190;
const folder = new URL("../../server/atelier/static/editor/", import.meta.url);
const manifest = JSON.parse(readFileSync(new URL(".vite/manifest.json", folder), "utf8"));
const seen = new Set();
const visit = (name) => {
  if (seen.has(name)) return;
  seen.add(name);
  for (const imported of manifest[name].imports ?? []) visit(imported);
};
visit("src/main.tsx");
let total = 0;
for (const name of seen) {
  const size = gzipSync(readFileSync(new URL(manifest[name].file, folder)), { level: 9 }).length / 1000;
  total += size;
  console.log(`${size.toFixed(1).padStart(7)} kB  ${manifest[name].file}`);
}
console.log(`first-load JavaScript: ${total.toFixed(1)} kB gzip (limit ${LIMIT} kB)`);
process.exit(total > LIMIT ? 1 : 0);
