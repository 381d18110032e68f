import { formatPlace } from '../../errors.ts';
import { SpiffeId } from '../../spiffe/id.ts';
import type { Workload } from '../attachment.ts';
import type { PolicyAction } from '../document.ts';
import { compilePredicate, type Test } from '../match.ts';
import type { Policy } from '../policy.ts';
import { sides } from '../policy.ts';
import { Facts } from '../facts.ts';
import type { Steps } from '../steps.ts';
import { type Box, boxesOf, createBoxes } from './box.ts';
import { judge, nameOf, tell, told, type ToldDecision, type ToldRule, type Unproven } from './compare.ts';
import { type PolicyGround, surveyTerrain, type Terrain } from './destinations.ts';
import { examineRules, type HygieneFinding } from './hygiene.ts';
import { type Invariant, isAboutDestination } from './invariant.ts';
import { inquire, type Inquiry, openInquiry } from './question.ts';
import { nothing, outsideOf } from './rule-boxes.ts';
import { allowedBy, deniedBy } from './ruling.ts';
import { readWitness, type Witness } from './witness.ts';

/** A call that an invariant forbids and policies allow, or the other way round. */
export type Violation = {
  /** The rule that decides it so; null: no rule allows it. */
  readonly rule: ToldRule | null;
  readonly witness: Witness;
  readonly decision: ToldDecision;
};

/** What became of an invariant. */
export type InvariantResult = {
  readonly name: string;
  /** `file:line:column`. */
  readonly place: string;
  readonly demand: Invariant['demand'];
  readonly result: 'proven' | 'violated' | 'unproven';
  /** One for each rule that breaks it, at most eight. */
  readonly violations: readonly Violation[];
  /** Why it is not proven; empty otherwise. */
  readonly why: string;
  /** How many destinations it is about. */
  readonly destinations: number;
  /** How many of them somebody is registered as; null where no entry is known. */
  readonly registered: number | null;
};

/** What was proven of a set of policies. */
export type Proof = {
  readonly invariants: readonly InvariantResult[];
  readonly findings: readonly HygieneFinding[];
  readonly unproven: readonly Unproven[];
  readonly policies: number;
  /** How many destinations were looked at, and the names of those that nobody is registered for; at most sixteen. */
  readonly destinations: number;
  readonly madeUp: readonly string[];
};

/** What is asked of policies. */
export type ProofQuestion = {
  readonly policies: readonly Policy[];
  readonly invariants: readonly Invariant[];
  /** Whether rules are looked at one by one as well. */
  readonly examines: boolean;
};

/**
 * Proves invariants of a set of policies, or shows the calls that break them, and what is wrong with its rules. Exact: what
 * could not be settled within the bounds of work is said to be unproven.
 * @throws MeshError `policy_mode_inexact` in Istio mode, `policy_analysis_too_large`
 */
export function* provePolicies(
  ground: PolicyGround,
  { policies, invariants, examines }: ProofQuestion,
  now: Date,
): Steps<Proof> {
  const boxRule = createBoxes(ground.trustDomain);
  const terrain = yield* surveyTerrain(
    ground,
    [policies],
    boxRule,
    invariants.flatMap((one) => meantBy(one, ground)),
  );
  const inquiry = openInquiry(ground, now);
  const unproven: Unproven[] = [];
  const results: InvariantResult[] = [];
  for (const invariant of invariants) {
    const { registered, ...result } = yield* check(invariant, terrain, inquiry);
    results.push({ ...result, registered: ground.workloads.length === 0 ? null : registered });
  }
  const findings = examines ? yield* examineRules(ground, policies, terrain, boxRule, inquiry, unproven) : [];
  const all = terrain.groups.flatMap(({ members }) => members);
  const madeUp = all.filter(({ isRegistered }) => !isRegistered);
  return {
    invariants: results,
    findings,
    unproven,
    policies: policies.length,
    destinations: all.length,
    madeUp: madeUp.slice(0, maxNamed).map(nameOf),
  };
}

const maxNamed = 16;

/** A workload that an invariant is about, for when nobody is registered so. */
function meantBy({ to }: Invariant, { workloads, trustDomain }: PolicyGround): readonly Workload[] {
  const labels = Object.fromEntries(to.labels);
  if (to.principals.length > 0) return [];
  return to.namespaces.flatMap((match) => {
    if (match.kind !== 'exact' || !isNamespace(match.text)) return [];
    const id = SpiffeId.parse(`spiffe://${trustDomain.name}/ns/${match.text}/sa/any`);
    const isThere = workloads.some((one) =>
      isAboutDestination(
        {
          name: '',
          place: { file: '', line: 1, column: 1 },
          demand: 'never',
          calls: { from: [], to: [], when: [] },
          to: { ...to, namespaces: [match] },
        },
        { id: one.id, workloads: [one], isRegistered: true },
      ),
    );
    return isThere ? [] : [{ id, labels }];
  });
}

/** Whether it may be a segment of an ID that is not too long. */
function isNamespace(text: string): boolean {
  return /^[A-Za-z0-9._-]{1,253}$/.test(text) && !/^\.{1,2}$/.test(text);
}

function* check(
  invariant: Invariant,
  { groups, snapshots: [snapshot] }: Terrain,
  inquiry: Inquiry,
): Steps<InvariantResult & { readonly registered: number }> {
  const { name, place, demand, calls } = invariant;
  const action: PolicyAction = demand === 'never' ? 'DENY' : 'ALLOW';
  const { boxes, isCut } = boxesOf(calls, action, inquiry.trustDomain);
  const holds = readerOf(invariant, action, inquiry);
  const violations = new Map<string, Violation>();
  let why = '';
  let [destinations, registered] = [0, 0];
  for (const {
    members,
    rulings: [ruling],
  } of groups) {
    const meant = members.filter((one) => isAboutDestination(invariant, one));
    const [first] = meant;
    destinations += meant.length;
    registered += meant.filter(({ isRegistered }) => isRegistered).length;
    if (first === undefined || ruling === undefined || snapshot === undefined) continue;
    const pieces = demand === 'never' ? allowedBy(ruling) : deniedBy(ruling);
    const forbidden = demand === 'never' ? 'allow' : 'deny';
    for (const { by, unless } of pieces) {
      yield;
      const [rule] = by;
      const key = rule?.compiled.rule.name ?? '';
      if (violations.has(key) || violations.size >= maxViolations) continue;
      const answer = yield* inquire(inquiry, {
        destination: first.id,
        inside: [boxes, ...(rule === undefined ? [] : [rule.boxes])],
        outside: outsideOf(unless),
        isCut: isCut || rule?.isCut === true,
        snapshots: [snapshot],
        judge: (witness) => {
          const decision = judge(snapshot, witness);
          return holds(witness) && decision.verdict === forbidden ? decision.rule : undefined;
        },
      });
      if (answer.found === 'unknown') why = answer.why;
      if (answer.found !== 'call') continue;
      const [{ witness }] = answer.examples;
      const decision = told(judge(snapshot, witness));
      violations.set(key, { rule: rule === undefined ? null : tell(rule), witness, decision });
    }
  }
  why ||= destinations === 0 ? 'it is about no destination that there is' : '';
  why ||= (yield* isVoid(boxes, isCut, holds, inquiry)) ? 'no call is such as it says' : '';
  const result = violations.size > 0 ? 'violated' : why === '' ? 'proven' : 'unproven';
  return {
    name,
    place: formatPlace(place),
    demand,
    result,
    violations: [...violations.values()],
    why: result === 'unproven' ? why : '',
    destinations,
    registered,
  };
}

const maxViolations = 8;

/** Whether an invariant is about no call at all: then it would hold whatever policies say, and look as if it protected. */
function* isVoid(
  boxes: readonly Box[],
  isCut: boolean,
  holds: (witness: Witness) => boolean,
  inquiry: Inquiry,
): Steps<boolean> {
  const answer = yield* inquire(
    { ...inquiry, callers: [] },
    {
      destination: SpiffeId.parse(`${inquiry.trustDomain.id}/x`),
      inside: [boxes],
      outside: nothing,
      isCut,
      snapshots: [],
      judge: (witness) => (holds(witness) ? '' : undefined),
    },
  );
  return answer.found === 'none';
}

/** Whether a call is such as an invariant says, by the engine's own tests. */
function readerOf(
  { calls }: Invariant,
  action: PolicyAction,
  { trustDomain }: Inquiry,
): (witness: Witness) => boolean {
  const isCautious = action !== 'ALLOW';
  const parts = sides.map((side) =>
    calls[side].map(({ predicates }) => predicates.map((one): Test => compilePredicate(one, action))),
  );
  return (witness) => {
    const facts = new Facts(readWitness(witness), trustDomain, new Date(witness.at));
    return parts.every(
      (entries) =>
        entries.length === 0 || entries.some((tests) => tests.every((test) => test(facts) ?? isCautious)),
    );
  };
}
