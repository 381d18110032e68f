/**
 * The name nearest to a mistyped one: at most two edits away (one for names of up to three characters), letter case
 * not counted. Undefined when none is near. The mistyped name may be of any length.
 */
export function closestName(typed: string, names: readonly string[]): string | undefined {
  if (typed.length > maxTypedLength) return undefined;
  const lower = typed.toLowerCase();
  let best: string | undefined;
  let bestEdits = typed.length <= 3 ? 1 : 2;
  for (const name of names) {
    const edits = countEdits(lower, name.toLowerCase());
    if (edits < bestEdits || (edits === bestEdits && best === undefined)) {
      best = name;
      bestEdits = edits;
    }
  }
  return best;
}

const maxTypedLength = 64;

/** Levenshtein distance with swaps of neighbours counted as one (optimal string alignment). */
function countEdits(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let edits = Math.min((last[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (last[j - 1] ?? 0) + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        edits = Math.min(edits, (beforeLast[j - 2] ?? 0) + 1);
      }
      row.push(edits);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length] ?? 0;
}
