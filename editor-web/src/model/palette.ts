// A person's colour, as the server computes it: the palette's entry number crc32(user id) mod 12.
const PALETTE = (
  "#e6003c #ba5702 #966a00 #767700 #278701 #048064 #017b80 #037ea7 #0169f9 #7a37fc #c701e9 #e10195"
).split(" ");

export function colorOf(userId: string): string {
  return PALETTE[crc32(new TextEncoder().encode(userId)) % PALETTE.length] as string;
}

function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/** Up to two letters: of the first and the last word. */
export function initialsOf(name: string): string {
  const words = name.trim().split(/\s+/).filter((word) => word !== "");
  const picked = words.length > 1 ? [words[0], words[words.length - 1]] : words;
  return picked.map((word) => [...(word as string)][0] ?? "").join("").toUpperCase() || "?";
}
