import type { Facts } from './facts.ts';
import type { CompiledRule } from './match.ts';
import type { RuleFinder } from './rule-index.ts';
import { rulesInStep, type Steps } from './steps.ts';

/** In a tree of ends all texts are read from their last character on, labels too. */
type Branch = {
  label: string;
  rules: CompiledRule[];
  finder: RuleFinder | undefined;
  /** By their first characters; most branches have none. */
  children: Map<number, Branch> | undefined;
  /** The same when the tree is sealed and the characters stand close together: by how far one is from `lowest`. */
  near: readonly (Branch | undefined)[] | undefined;
  lowest: number;
};

/** From which side of a text a tree reads. */
export type Reading = 'from the start' | 'from the end';

/**
 * Rules by prefix, or by suffix, in a radix tree: a walk costs the depth at which the text leaves the tree, whatever
 * their number. Fill it with `add`, then `seal` it once; it is walked only after that.
 */
export class PrefixTree {
  readonly #root: Branch = grow('', []);
  readonly #isOfEnds: boolean;

  constructor(reading: Reading = 'from the start') {
    this.#isOfEnds = reading === 'from the end';
  }

  /** @param text not empty */
  add(text: string, rule: CompiledRule): void {
    let branch = this.#root;
    let rest = this.#isOfEnds ? reverse(text) : text;
    while (rest !== '') {
      const child = branch.children?.get(rest.charCodeAt(0));
      if (child === undefined) {
        (branch.children ??= new Map()).set(rest.charCodeAt(0), grow(rest, [rule]));
        return;
      }
      const shared = sharedLength(rest, child.label);
      if (shared < child.label.length) split(child, shared);
      rest = rest.slice(shared);
      branch = child;
    }
    branch.rules.push(rule);
  }

  /** Turns the rules at each branch into something to search. */
  *seal(build: (rules: readonly CompiledRule[]) => Steps<RuleFinder>): Steps<void> {
    const open = [this.#root];
    let sealed = 0;
    for (let branch = open.pop(); branch !== undefined; branch = open.pop()) {
      if (sealed++ % rulesInStep === 0) yield;
      if (branch.rules.length > 0) branch.finder = yield* build(branch.rules);
      branch.rules = [];
      if (branch.children === undefined) continue;
      open.push(...branch.children.values());
      layOut(branch, branch.children);
    }
  }

  /** The best rule filed under any prefix (or suffix) of the text. */
  find(text: string, facts: Facts, best: CompiledRule | undefined): CompiledRule | undefined {
    let found = best;
    let at = 0;
    for (let branch = this.#next(this.#root, text, at); branch; branch = this.#next(branch, text, at)) {
      at += branch.label.length;
      if (branch.finder !== undefined) found = branch.finder.find(facts, found);
    }
    return found;
  }

  /** Adds the rules that those prefixes (or suffixes) lead to, until `into` holds `limit`. */
  gather(text: string, facts: Facts, into: CompiledRule[], limit: number): void {
    let at = 0;
    for (let branch = this.#next(this.#root, text, at); branch; branch = this.#next(branch, text, at)) {
      at += branch.label.length;
      branch.finder?.gather(facts, into, limit);
    }
  }

  /** What is filed under the prefixes (or suffixes) of the text, shortest first. */
  walk(text: string): readonly RuleFinder[] {
    const passed: RuleFinder[] = [];
    let at = 0;
    for (let branch = this.#next(this.#root, text, at); branch; branch = this.#next(branch, text, at)) {
      at += branch.label.length;
      if (branch.finder !== undefined) passed.push(branch.finder);
    }
    return passed;
  }

  /** The branch with which the text goes on after `at` characters. */
  #next({ children, near, lowest }: Branch, text: string, at: number): Branch | undefined {
    const { length } = text;
    if (at >= length || (near === undefined && children === undefined)) return undefined;
    const isOfEnds = this.#isOfEnds;
    const code = text.charCodeAt(isOfEnds ? length - 1 - at : at);
    const place = code - lowest;
    const child =
      near === undefined ? children?.get(code) : place >= 0 && place < near.length ? near[place] : undefined;
    if (child === undefined) return undefined;
    const { label } = child;
    // Most labels are of one character, which has been read.
    if (label.length === 1) return child;
    if (isOfEnds ? !endsInReverse(text, label, length - at) : !text.startsWith(label, at)) return undefined;
    return child;
  }
}

/** Whether the first `end` characters of a text end with a label that is written from its end. */
function endsInReverse(text: string, label: string, end: number): boolean {
  if (label.length > end) return false;
  for (let i = 1; i < label.length; i++) {
    if (label.charCodeAt(i) !== text.charCodeAt(end - 1 - i)) return false;
  }
  return true;
}

function grow(label: string, rules: CompiledRule[]): Branch {
  return { label, rules, finder: undefined, children: undefined, near: undefined, lowest: 0 };
}

/** Cuts a branch in two: its head stays in place, its tail becomes the only child. */
function split(branch: Branch, at: number): void {
  const tail = grow(branch.label.slice(at), branch.rules);
  tail.children = branch.children;
  branch.children = new Map([[tail.label.charCodeAt(0), tail]]);
  branch.label = branch.label.slice(0, at);
  branch.rules = [];
}

function sharedLength(a: string, b: string): number {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length += 1;
  return length;
}

/** Puts children side by side, where one is found without a look-up. Those of far characters would leave wide gaps. */
function layOut(branch: Branch, children: ReadonlyMap<number, Branch>): void {
  let [lowest, highest] = [Number.MAX_SAFE_INTEGER, 0];
  for (const code of children.keys()) {
    lowest = Math.min(lowest, code);
    highest = Math.max(highest, code);
  }
  const span = highest - lowest + 1;
  if (span > children.size * maxGap) return;
  branch.lowest = lowest;
  branch.near = Array.from({ length: span }, (_, i) => children.get(lowest + i));
  branch.children = undefined;
}

// No more memory than a map takes.
const maxGap = 8;

/** By units of UTF-16, as the tree reads: what is no text after that is never shown. */
function reverse(text: string): string {
  let out = '';
  for (let i = text.length - 1; i >= 0; i--) out += text.charAt(i);
  return out;
}
