import type { Facts } from './facts.ts';
import type { CompiledRule } from './match.ts';
import type { RuleFinder } from './rule-index.ts';
import { rulesInStep, type Steps } from './steps.ts';

type Branch = {
  label: string;
  rules: CompiledRule[];
  finder: RuleFinder | undefined;
  /** By their first characters; most branches have none. */
  children: Map<string, Branch> | undefined;
};

/**
 * Rules by prefix, in a radix tree: a walk costs the depth at which the text leaves the tree, whatever their number.
 * Fill it with `add`, then `seal` it once; it is searched only after that.
 */
export class PrefixTree {
  readonly #root: Branch = grow('', []);

  /** @param prefix not empty */
  add(prefix: string, rule: CompiledRule): void {
    let branch = this.#root;
    let rest = prefix;
    while (rest !== '') {
      const child = branch.children?.get(rest.charAt(0));
      if (child === undefined) {
        (branch.children ??= new Map()).set(rest.charAt(0), grow(rest, [rule]));
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
      if (branch.children !== undefined) open.push(...branch.children.values());
    }
  }

  /** The best rule filed under any prefix of the text. */
  find(text: string, facts: Facts, best: CompiledRule | undefined): CompiledRule | undefined {
    let found = best;
    for (const finder of this.walk(text)) found = finder.find(facts, found);
    return found;
  }

  /** What is filed under the prefixes of the text, shortest first. */
  walk(text: string): readonly RuleFinder[] {
    const passed: RuleFinder[] = [];
    let at = 0;
    let branch = this.#root.children?.get(text.charAt(0));
    while (branch !== undefined && text.startsWith(branch.label, at)) {
      at += branch.label.length;
      if (branch.finder !== undefined) passed.push(branch.finder);
      branch = branch.children?.get(text.charAt(at));
    }
    return passed;
  }
}

function grow(label: string, rules: CompiledRule[]): Branch {
  return { label, rules, finder: undefined, children: undefined };
}

/** Cuts a branch in two: its head stays in place, its tail becomes the only child. */
function split(branch: Branch, at: number): void {
  const tail = grow(branch.label.slice(at), branch.rules);
  tail.children = branch.children;
  branch.children = new Map([[tail.label.charAt(0), tail]]);
  branch.label = branch.label.slice(0, at);
  branch.rules = [];
}

function sharedLength(a: string, b: string): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length += 1;
  return length;
}
