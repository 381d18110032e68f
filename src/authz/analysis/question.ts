import { MeshError } from '../../errors.ts';
import type { SpiffeId, TrustDomain } from '../../spiffe/id.ts';
import type { Steps } from '../steps.ts';
import type { Snapshot } from '../snapshot.ts';
import { type Box, type BoxedRule, mayShare } from './box.ts';
import type { Facts } from '../facts.ts';
import { blankDraft, type Draft, factsOf } from './draft.ts';
import type { PolicyGround } from './destinations.ts';
import type { Kind } from './kind.ts';
import type { Outside } from './rule-boxes.ts';
import { solve } from './solve.ts';
import { type Witness, witnessOf } from './witness.ts';

/** The bounds of a question, and what it has cost so far. */
export type Budget = {
  /** Problems that may still be put. */
  problems: number;
};

/** What all problems of a question share. */
export type Inquiry = {
  readonly trustDomain: TrustDomain;
  /** What is said of a call by all that no rule reads; made now. */
  readonly blank: Draft;
  readonly budget: Budget;
  /** Identities that are registered: an example with one of them says more than one with somebody made up. */
  readonly callers: readonly RegisteredCaller[];
};

/** Somebody who is registered, and what rules read of them. */
export type RegisteredCaller = { readonly text: string; readonly facts: Facts };

/** What is looked for: a call to a destination in all of `inside`, of each rule one box, and in no box of `outside`. */
export type Search = {
  readonly destination: SpiffeId;
  readonly inside: readonly (readonly Box[])[];
  readonly outside: Outside;
  /** Whether one of the rules of `inside` has more boxes than are looked at. */
  readonly isCut: boolean;
  /** One when left out. */
  readonly maxExamples?: number;
  /** Who judges calls: made ready before they are asked. */
  readonly snapshots: readonly Snapshot[];
  /**
   * What the engine makes of a call; undefined when it is not such a call. INVARIANT: nothing is told that it does not
   * confirm.
   */
  readonly judge: (witness: Witness) => string | undefined;
};

/** A call that was found, and where it has less than the rules of `inside` say. */
export type Example = { readonly witness: Witness; readonly kinds: readonly Kind[] };

export type Answer =
  | { readonly found: 'none' }
  | { readonly found: 'call'; readonly examples: readonly [Example, ...Example[]] }
  | { readonly found: 'unknown'; readonly why: string };

/**
 * Puts a problem for each choice of boxes, until a call is found.
 * @throws MeshError `policy_analysis_too_large` when the question has cost too much; `internal` when the engine judges a
 *   call otherwise than it was found to be judged
 */
export function* inquire(inquiry: Inquiry, search: Search): Steps<Answer> {
  const { trustDomain, budget, blank } = inquiry;
  const isCut = search.isCut || search.outside.lists.some((list) => list.isCut);
  let unknown: Answer | undefined;
  let looked = 0;
  for (const inside of choices(search.inside)) {
    looked += 1;
    if (looked % choicesInStep === 0) yield;
    if (!mayAll(inside)) continue;
    budget.problems -= 1;
    if (budget.problems < 0) throw tooLarge();
    const ground = { trustDomain, blank, maxStates, maxNodes, maxCalls: search.maxExamples ?? 1 };
    const solved = yield* solve(ground, { inside, outside: search.outside });
    if (solved.found === 'none') continue;
    if (solved.found === 'unknown') {
      unknown ??= solved;
      continue;
    }
    const examples: Example[] = [];
    for (const { draft, kinds } of solved.calls) {
      const witness = witnessOf(draft, search.destination, trustDomain);
      if (witness === undefined) continue;
      for (const snapshot of search.snapshots) yield* snapshot.ready(search.destination);
      const shown = search.judge(witness);
      if (shown !== undefined) {
        examples.push({ witness: yield* withRegistered(inquiry, search, inside, witness, shown), kinds });
      } else if (!isCut) {
        throw new MeshError('internal', `the engine judges an example otherwise: ${JSON.stringify(witness)}`);
      }
    }
    const [first, ...more] = examples;
    if (first !== undefined) return { found: 'call', examples: [first, ...more] };
    unknown ??= { found: 'unknown', why: isCut ? cutWhy : 'no call that was found is one that can be made' };
  }
  if (unknown !== undefined) return unknown;
  return isCut ? { found: 'unknown', why: cutWhy } : { found: 'none' };
}

/** The same call by somebody who is registered, if it shows the same. */
function* withRegistered(
  { callers }: Inquiry,
  { judge }: Search,
  inside: readonly Box[],
  witness: Witness,
  shown: string,
): Steps<Witness> {
  const wanted = inside.flatMap(({ literals }) => literals.filter(({ dimension }) => dimension === 'caller'));
  let tried = 0;
  for (const { text, facts } of callers) {
    if (text === witness.source) return witness;
    if (!wanted.every(({ holds }) => holds(facts))) continue;
    yield;
    tried += 1;
    if (tried > maxCallers) break;
    const other = { ...witness, source: text };
    if (judge(other) === shown) return other;
  }
  return witness;
}

const maxCallers = 16;

/** Whether there may be calls that two rules match: never wrongly false. */
export function mayBothMatch(a: BoxedRule, b: BoxedRule): boolean {
  // Whoever asks goes on to look at all choices, and that in steps.
  if (a.boxes.length * b.boxes.length > choicesInStep) return true;
  return a.boxes.some((one) => b.boxes.some((other) => mayAll([one, other])));
}

/** Whether calls may be in all boxes: what is quickly ruled out costs no problem. */
function mayAll(boxes: readonly Box[]): boolean {
  const mayBeTcp = !boxes.some(({ isHttp }) => isHttp);
  for (const [i, box] of boxes.entries()) {
    for (let j = 0; j < i; j++) {
      const other = boxes[j];
      if (other === undefined || mayShare(box, other, http) || (mayBeTcp && mayShare(box, other, tcp)))
        continue;
      return false;
    }
  }
  return true;
}

const http = { protocol: 'http', token: 'present' } as const;
const tcp = { protocol: 'tcp', token: 'none' } as const;

function* choices(lists: readonly (readonly Box[])[]): Generator<readonly Box[]> {
  const [first, ...more] = lists;
  if (first === undefined) {
    yield [];
    return;
  }
  for (const box of first) for (const rest of choices(more)) yield [box, ...rest];
}

function tooLarge(): MeshError {
  return new MeshError(
    'policy_analysis_too_large',
    'these policies take more work to compare than is done at once',
    {
      fix: 'ask about fewer policies, or about files of one namespace',
    },
  );
}

const cutWhy = 'a rule has more combinations of its entries than are looked at';
const choicesInStep = 64;
const maxStates = 30_000;
const maxNodes = 20_000;

/** Begins a question. */
export function openInquiry(
  { trustDomain, workloads }: Pick<PolicyGround, 'trustDomain' | 'workloads'>,
  now: Date,
): Inquiry {
  const blank = blankDraft(trustDomain, now.getTime());
  const ids = new Map(workloads.slice(0, maxRegistered).map(({ id }) => [id.text, id]));
  const callers = [...ids.values()].map((source) => ({
    text: source.text,
    facts: factsOf({ ...blank, source }, trustDomain),
  }));
  return { trustDomain, blank, budget: { problems: maxProblems }, callers };
}

const maxRegistered = 1_024;

const maxProblems = 400_000;
