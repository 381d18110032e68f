import type { Steps } from '../steps.ts';
import { anyMany, anyOne, type Glob, segmentMany, segmentOne } from './glob.ts';
import type { DomainState, TextDomain } from './text-domain.ts';

/** Texts that no glob tells apart, by one of them. */
export type TextClass = string;

/** The classes, and whether there may be more of them than were found. */
export type TextClasses = { readonly classes: readonly TextClass[]; readonly isComplete: boolean };

/**
 * One text for each combination of globs that some text of the domain matches and all others do not: all that can be told
 * apart. The product of the globs' automata is walked, shortest texts first.
 * @param wanted groups of globs, by their index: a text is of interest only when it matches one of each group
 * @param maxStates after so many states of the product the walk is given up as incomplete
 */
export function* classesOf(
  globs: readonly Glob[],
  domain: TextDomain,
  wanted: readonly (readonly number[])[],
  maxStates: number,
): Steps<TextClasses> {
  const walk = openWalk(globs, wanted);
  const found = new Map<string, TextClass>();
  const missed = new Set<string>();
  const note = (text: string, items: readonly number[]): void => {
    const matched = walk.matched(items);
    const signature = matched.join();
    if (found.has(signature)) return;
    if (domain.has(text)) {
      found.set(signature, text);
      missed.delete(signature);
      return;
    }
    // Another text of the class might be short enough; but of one that is written in full there is no other.
    const isOnly = matched.some((item) => globs[Math.trunc(item / span)]?.every((piece) => piece >= 0));
    if (!isOnly) missed.add(signature);
  };
  const start = walk.start();
  const first = { text: '', state: domain.start, items: start };
  for (const text of domain.usual) {
    const items = walk.run(start, text);
    if (walk.isWanted(items)) note(text, items);
  }
  // Written in full, so that those are met which no walk finds: addresses among the names of hosts.
  for (const glob of globs) {
    if (glob.some((piece) => piece < 0)) continue;
    const text = String.fromCharCode(...glob);
    if (!domain.has(text)) continue;
    const items = walk.run(start, text);
    if (walk.isWanted(items)) note(text, items);
    yield;
  }
  const queue: Walked[] = [first];
  const seen = new Set<string>([keyOf(first)]);
  let work = 0;
  for (const { text, state, items } of queue) {
    if (domain.ends(state)) note(text, items);
    const named = walk.named(items);
    const codes = [...named];
    for (const one of domain.classesAt(state)) {
      const other = firstOther(one, named);
      if (other !== undefined) codes.push(other);
    }
    for (const code of codes) {
      const next = domain.step(state, code);
      if (next === undefined) continue;
      const after = walk.step(items, code);
      work += items.length + 4;
      if (work > itemsInStep) {
        work = 0;
        yield;
      }
      if (!walk.isWanted(after)) continue;
      const walked = { text: text + String.fromCharCode(code), state: next, items: after };
      const key = keyOf(walked);
      if (seen.has(key)) continue;
      if (seen.size >= maxStates) return { classes: [...found.values()], isComplete: false };
      seen.add(key);
      queue.push(walked);
    }
  }
  return { classes: [...found.values()], isComplete: missed.size === 0 };
}

type Walked = { readonly text: string; readonly state: DomainState; readonly items: readonly number[] };

const itemsInStep = 4_096;

function keyOf({ state, items }: Walked): string {
  return `${state}|${items.join()}`;
}

function firstOther(characters: string, named: ReadonlySet<number>): number | undefined {
  for (let i = 0; i < characters.length; i++) {
    const code = characters.charCodeAt(i);
    if (!named.has(code)) return code;
  }
  return undefined;
}

/** Where the automata of all globs are, as sorted items: a glob and a place in it. */
function openWalk(globs: readonly Glob[], wanted: readonly (readonly number[])[]) {
  const groups = new Map<number, number>();
  for (const [i, group] of wanted.slice(0, maxGroups).entries()) {
    for (const glob of group) groups.set(glob, (groups.get(glob) ?? 0) | (1 << i));
  }
  const all = (1 << Math.min(wanted.length, maxGroups)) - 1;
  const pieceAt = (item: number): number | undefined => globs[Math.trunc(item / span)]?.[item % span];
  const enter = (items: number[], item: number): void => {
    let at = item;
    items.push(at);
    for (let piece = pieceAt(at); piece === anyMany || piece === segmentMany; piece = pieceAt(at)) {
      at += 1;
      items.push(at);
    }
  };
  const step = (items: readonly number[], code: number): readonly number[] => {
    const next: number[] = [];
    for (const item of items) {
      const piece = pieceAt(item);
      if (piece === undefined) continue;
      if (piece === code || piece === anyOne || (piece === segmentOne && code !== slash))
        enter(next, item + 1);
      else if (piece === anyMany || (piece === segmentMany && code !== slash)) enter(next, item);
    }
    return sorted(next);
  };
  return {
    start: (): readonly number[] => {
      const items: number[] = [];
      for (const i of globs.keys()) enter(items, i * span);
      return sorted(items);
    },
    step,
    run: (start: readonly number[], text: string): readonly number[] => {
      let items = start;
      for (let i = 0; i < text.length; i++) items = step(items, text.charCodeAt(i));
      return items;
    },
    /** The characters that a glob names where it is. */
    named: (items: readonly number[]): ReadonlySet<number> => {
      const codes = new Set<number>();
      for (const item of items) {
        const piece = pieceAt(item);
        if (piece !== undefined && piece >= 0) codes.add(piece);
      }
      return codes;
    },
    /** Which globs match a text that ends here. */
    matched: (items: readonly number[]): readonly number[] =>
      items.filter((item) => globs[Math.trunc(item / span)]?.length === item % span),
    isWanted: (items: readonly number[]): boolean => {
      if (all === 0) return true;
      let met = 0;
      for (const item of items) met |= groups.get(Math.trunc(item / span)) ?? 0;
      return met === all;
    },
  };
}

/** Sorted and without repetition, so that the same places make the same state. */
function sorted(items: number[]): readonly number[] {
  items.sort((a, b) => a - b);
  let kept = 0;
  for (const [i, item] of items.entries()) {
    if (i > 0 && item === items[kept - 1]) continue;
    items[kept] = item;
    kept += 1;
  }
  items.length = kept;
  return items;
}

/** More than the longest glob has pieces. */
const span = 0x10000;
const maxGroups = 30;
const slash = 0x2f;
