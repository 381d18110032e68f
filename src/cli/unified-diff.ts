/**
 * The difference between two texts as people and `patch` read it: hunks of lines with three lines around them, without
 * the two header lines. Empty when they are the same.
 */
export function unifiedHunks(before: string, after: string): readonly string[] {
  const [a, b] = [linesOf(before), linesOf(after)];
  const steps = editSteps(a, b);
  return hunksOf(steps).flatMap((hunk) => {
    const first = steps[hunk.from];
    if (first === undefined) return [];
    const shown = steps.slice(hunk.from, hunk.to);
    const olds = shown.filter(({ kind }) => kind !== '+').length;
    const news = shown.filter(({ kind }) => kind !== '-').length;
    const head = `@@ -${rangeOf(first.a, olds)} +${rangeOf(first.b, news)} @@`;
    return [head, ...shown.map(({ kind, line }) => `${kind}${line}`)];
  });
}

/** A line that goes, comes or stays, and how many lines of each text stand before it. */
type Step = { readonly kind: '-' | '+' | ' '; readonly line: string; readonly a: number; readonly b: number };

/** The shortest way from one text to the other (Myers 1986); beyond a bound, what differs goes and comes whole. */
function editSteps(a: readonly string[], b: readonly string[]): readonly Step[] {
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (
    tail < a.length - head &&
    tail < b.length - head &&
    a[a.length - 1 - tail] === b[b.length - 1 - tail]
  ) {
    tail++;
  }
  const steps: Step[] = [];
  let [x, y] = [0, 0];
  const push = (kind: Step['kind']): void => {
    steps.push({ kind, line: (kind === '+' ? b[y] : a[x]) ?? '', a: x, b: y });
    if (kind !== '+') x++;
    if (kind !== '-') y++;
  };
  for (let i = 0; i < head; i++) push(' ');
  for (const kind of shortestEdit(a.slice(head, a.length - tail), b.slice(head, b.length - tail))) push(kind);
  for (let i = 0; i < tail; i++) push(' ');
  return steps;
}

function shortestEdit(a: readonly string[], b: readonly string[]): readonly Step['kind'][] {
  // After each number of edits: how far along `a` each diagonal has come.
  const trail: ReadonlyMap<number, number>[] = [];
  const reach = new Map<number, number>([[1, 0]]);
  for (let edits = 0; edits <= Math.min(a.length + b.length, maxEdits); edits++) {
    trail.push(new Map(reach));
    for (let k = -edits; k <= edits; k += 2) {
      const isDown = k === -edits || (k !== edits && at(reach, k - 1) < at(reach, k + 1));
      let x = isDown ? at(reach, k + 1) : at(reach, k - 1) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      reach.set(k, x);
      if (x >= a.length && x - k >= b.length) return walkBack(trail, a.length, b.length);
    }
  }
  return [...a.map(() => '-' as const), ...b.map(() => '+' as const)];
}

function walkBack(
  trail: readonly ReadonlyMap<number, number>[],
  endX: number,
  endY: number,
): readonly Step['kind'][] {
  const kinds: Step['kind'][] = [];
  let [x, y] = [endX, endY];
  for (let edits = trail.length - 1; edits >= 0; edits--) {
    const reach = trail[edits] ?? new Map<number, number>();
    const k = x - y;
    const isDown = k === -edits || (k !== edits && at(reach, k - 1) < at(reach, k + 1));
    const beforeX = edits === 0 ? 0 : at(reach, isDown ? k + 1 : k - 1);
    const beforeY = edits === 0 ? 0 : beforeX - (isDown ? k + 1 : k - 1);
    while (x > beforeX && y > beforeY) {
      kinds.push(' ');
      [x, y] = [x - 1, y - 1];
    }
    if (edits > 0) kinds.push(isDown ? '+' : '-');
    [x, y] = [beforeX, beforeY];
  }
  return kinds.reverse();
}

function hunksOf(steps: readonly Step[]): readonly { readonly from: number; readonly to: number }[] {
  const hunks: { from: number; to: number }[] = [];
  for (const [at, { kind }] of steps.entries()) {
    if (kind === ' ') continue;
    const [from, to] = [Math.max(0, at - context), Math.min(steps.length, at + 1 + context)];
    const last = hunks.at(-1);
    if (last !== undefined && from <= last.to) last.to = to;
    else hunks.push({ from, to });
  }
  return hunks;
}

function rangeOf(before: number, count: number): string {
  const start = count === 0 ? before : before + 1;
  return count === 1 ? `${start}` : `${start},${count}`;
}

function linesOf(text: string): readonly string[] {
  if (text === '') return [];
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  return lines;
}

function at(reach: ReadonlyMap<number, number>, k: number): number {
  return reach.get(k) ?? Number.NEGATIVE_INFINITY;
}

const context = 3;
const maxEdits = 1_000;
