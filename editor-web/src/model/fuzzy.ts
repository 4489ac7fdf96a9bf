// Scores how well letters typed in order fit a text; higher is better, null is no match.

/** Prefers matches at the start of words and in a row, and shorter texts. */
export function fuzzy(query: string, text: string): number | null {
  const wanted = query.toLowerCase().replace(/\s+/g, "");
  const lower = text.toLowerCase();
  let score = 0;
  let at = -1;
  for (const letter of wanted) {
    const next = lower.indexOf(letter, at + 1);
    if (next < 0) return null;
    const before = next === 0 ? "/" : (text[next - 1] as string);
    score += next === at + 1 ? 4 : /[\s/._-]/.test(before) ? 3 : 0;
    at = next;
  }
  return score - text.length / 100;
}

export function best<T>(items: readonly T[], query: string, textOf: (item: T) => string, most: number): T[] {
  if (query.trim() === "") return items.slice(0, most);
  return items
    .map((item) => ({ item, score: fuzzy(query, textOf(item)) }))
    .filter((found): found is { item: T; score: number } => found.score !== null)
    .sort((a, b) => b.score - a.score)
    .slice(0, most)
    .map(({ item }) => item);
}
