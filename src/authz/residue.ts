import type { Attribute } from './document.ts';
import type { Facts } from './facts.ts';
import type { CompiledRule } from './match.ts';
import { type Predicate, type Side, sides } from './policy.ts';

/** Whether an attribute is not known, as a predicate reads it. */
export type IsOpen = (attribute: Attribute, predicate: Predicate) => boolean;

/** The predicates of an entry that are still open; never empty. */
export type OpenEntry = readonly Predicate[];

/**
 * What of a rule is open once some attributes of a call are known: it matches when an entry of each part holds, and an
 * empty part holds already.
 */
export type Residue = { readonly compiled: CompiledRule } & Readonly<Record<Side, readonly OpenEntry[]>>;

/**
 * Evaluates a rule as far as the known attributes go; of the time, what cannot change any more. Exact: whatever the open attributes turn out to be, the rule matches
 * if and only if the residue does.
 * @param facts of a call; what it says of open attributes is not read
 * @param when `now`: bounds in time count as they are at the moment of the facts
 * @returns undefined when the rule cannot match
 */
export function residueOf(
  compiled: CompiledRule,
  facts: Facts,
  isOpen: IsOpen,
  when: 'now' | 'later' = 'later',
): Residue | undefined {
  const open: Record<Side, readonly OpenEntry[]> = { from: [], to: [], when: [] };
  for (const side of sides) {
    const left = openEntries(compiled, side, facts, (one) =>
      one.kind === 'time' && when === 'now' ? false : isOpenNow(one, facts, isOpen),
    );
    if (left === undefined) return undefined;
    open[side] = left;
  }
  return { compiled, ...open };
}

/** Whether the rule matches whatever is open. */
export function isSettled(residue: Residue): boolean {
  return sides.every((side) => residue[side].length === 0);
}

/** Undefined when no entry can hold. */
function openEntries(
  compiled: CompiledRule,
  side: Side,
  facts: Facts,
  isOpen: (predicate: Predicate) => boolean,
): readonly OpenEntry[] | undefined {
  const entries = compiled.rule[side];
  if (entries.length === 0) return [];
  const unknown = compiled.policy.action !== 'ALLOW';
  const left: OpenEntry[] = [];
  for (const [i, { predicates }] of entries.entries()) {
    const tests = compiled[side][i] ?? [];
    const open = predicates.filter(isOpen);
    const holds = predicates.every((one, j) => isOpen(one) || (tests[j]?.(facts) ?? unknown));
    if (!holds) continue;
    if (open.length === 0) return [];
    left.push(open);
  }
  return left.length === 0 ? undefined : left;
}

/** Time only goes on: a bound that is behind us is settled, whoever asks. */
function isOpenNow(predicate: Predicate, { nowMs }: Facts, isOpen: IsOpen): boolean {
  return predicate.kind === 'time'
    ? predicate.matches.some(({ atMs }) => nowMs < atMs)
    : isOpen(predicate.attribute, predicate);
}
