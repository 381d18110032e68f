import { formatPlace } from '../../errors.ts';
import { decide } from '../decide.ts';
import type { Decision } from '../decision.ts';
import type { Policy } from '../policy.ts';
import type { Snapshot } from '../snapshot.ts';
import type { Steps } from '../steps.ts';
import { describeWanted } from '../words.ts';
import { type BoxedRule, createBoxes } from './box.ts';
import { type Destination, type Group, type PolicyGround, surveyTerrain } from './destinations.ts';
import { inquire, type Inquiry, mayBothMatch, openInquiry } from './question.ts';
import type { Kind } from './kind.ts';
import { filed, outsideOf } from './rule-boxes.ts';
import { allowedBy, deniedBy, type Piece } from './ruling.ts';
import { readWitness, type Witness } from './witness.ts';

/** A rule, where it stands, and what it asks of calls: of each part any list, and of that list everything. */
export type ToldRule = {
  /** `namespace/name rule[0]`. */
  readonly rule: string;
  /** `file:line:column`. */
  readonly place: string;
  readonly action: 'ALLOW' | 'DENY' | 'CUSTOM' | 'AUDIT';
  readonly from: readonly (readonly string[])[];
  readonly to: readonly (readonly string[])[];
  readonly when: readonly (readonly string[])[];
};

/** Calls that are decided otherwise: all that one rule allows and the other set denies for one reason. */
export type DifferenceClass = {
  /** The rule that allows them, after the change or before it. */
  readonly allows: ToldRule;
  /** The rule that denies them in the other set; null: no rule allows them there. */
  readonly denies: ToldRule | null;
  /** The destinations at which there are such calls, at most {@link maxShown}; made-up ones are in brackets. */
  readonly destinations: readonly string[];
  readonly destinationsOmitted: number;
  /** At least one and at most four, which differ; there may be more. */
  readonly examples: readonly ClassExample[];
};

/** One call of a class, and how it is decided before and after. */
export type ClassExample = {
  /** Where calls such as this have less than the rule that allows says. */
  readonly kinds: readonly Kind[];
  readonly witness: Witness;
  readonly before: ToldDecision;
  readonly after: ToldDecision;
};

export type ToldDecision = Pick<Decision, 'verdict' | 'reason' | 'rule' | 'why'>;

/** What could not be settled, and why. */
export type Unproven = { readonly about: string; readonly why: string };

/** All that two sets of policies decide differently. */
export type Comparison = {
  readonly newlyAllowed: readonly DifferenceClass[];
  readonly newlyDenied: readonly DifferenceClass[];
  readonly unproven: readonly Unproven[];
  /** How many destinations were looked at, and how many of them nobody is registered for. */
  readonly destinations: number;
  readonly madeUp: number;
};

/**
 * Compares two sets of policies: exact, and each class has a call that the engine has judged under both. Of policies that
 * hold for a time it looks from now on.
 * @throws MeshError `policy_mode_inexact` in Istio mode, `policy_analysis_too_large`
 */
export function* comparePolicies(
  ground: PolicyGround,
  before: readonly Policy[],
  after: readonly Policy[],
  now: Date,
): Steps<Comparison> {
  const boxRule = createBoxes(ground.trustDomain);
  const { groups, snapshots } = yield* surveyTerrain(ground, [before, after], boxRule);
  const inquiry = openInquiry(ground, now);
  const [old, young] = snapshots as readonly [Snapshot, Snapshot];
  const found = { newlyAllowed: openClasses(), newlyDenied: openClasses() };
  const unproven: Unproven[] = [];
  for (const group of groups) {
    yield;
    const [was, is] = group.rulings;
    if (was === undefined || is === undefined) continue;
    const parts = { inquiry, group, old, young, unproven };
    yield* compareIn(parts, allowedBy(is), deniedBy(was), found.newlyAllowed, 'newlyAllowed');
    yield* compareIn(parts, allowedBy(was), deniedBy(is), found.newlyDenied, 'newlyDenied');
  }
  const all = groups.flatMap(({ members }) => members);
  return {
    newlyAllowed: [...found.newlyAllowed.values()].map(finishClass),
    newlyDenied: [...found.newlyDenied.values()].map(finishClass),
    unproven,
    destinations: all.length,
    madeUp: all.filter(({ isRegistered }) => !isRegistered).length,
  };
}

type Parts = {
  readonly inquiry: Inquiry;
  readonly group: Group;
  readonly old: Snapshot;
  readonly young: Snapshot;
  readonly unproven: Unproven[];
};

type OpenClass = Omit<DifferenceClass, 'destinations' | 'destinationsOmitted'> & {
  readonly members: Destination[];
};

function openClasses(): Map<string, OpenClass> {
  return new Map();
}

function* compareIn(
  parts: Parts,
  allowed: readonly Piece[],
  denied: readonly Piece[],
  classes: Map<string, OpenClass>,
  kind: 'newlyAllowed' | 'newlyDenied',
): Steps<void> {
  const { group, inquiry, old, young, unproven } = parts;
  const [first] = group.members;
  if (first === undefined) return;
  for (const [i, { by: allowing, unless: barring }] of allowed.entries()) {
    if (i % piecesInStep === 0) yield;
    const [rule] = allowing;
    if (rule === undefined) continue;
    const barred = filed(barring).keys;
    for (const [j, { by: denying, unless: lifting }] of denied.entries()) {
      if (j % (piecesInStep * 8) === piecesInStep) yield;
      const [other] = denying;
      // Most rules are in both sets, and of those there is little to ask.
      if (other !== undefined && (barred.has(other.key) || !mayBothMatch(rule, other))) continue;
      if (lifting.length > 0 && filed(lifting).keys.has(rule.key)) continue;
      const name = JSON.stringify([rule.compiled.rule.name, other?.compiled.rule.name ?? '']);
      const known = classes.get(name);
      const answer = yield* inquire(inquiry, {
        destination: first.id,
        inside: [rule.boxes, ...(other === undefined ? [] : [other.boxes])],
        outside: outsideOf(barring, lifting),
        isCut: rule.isCut || other?.isCut === true,
        snapshots: [old, young],
        maxExamples: known === undefined ? maxExamples : 1,
        judge: (witness) => {
          const [was, is] = [judge(old, witness), judge(young, witness)];
          const isSuch = was.verdict !== is.verdict && (is.verdict === 'allow') === (kind === 'newlyAllowed');
          return isSuch ? JSON.stringify([was.rule, is.rule]) : undefined;
        },
      });
      if (answer.found === 'none') continue;
      if (answer.found === 'unknown') {
        unproven.push({ about: `${rule.compiled.rule.name} at ${first.id.text}`, why: answer.why });
        continue;
      }
      if (known !== undefined) {
        known.members.push(...group.members);
        continue;
      }
      classes.set(name, {
        allows: tell(rule),
        denies: other === undefined ? null : tell(other),
        members: [...group.members],
        examples: answer.examples.map(({ kinds, witness }) => ({
          kinds,
          witness,
          before: told(judge(old, witness)),
          after: told(judge(young, witness)),
        })),
      });
    }
  }
}

const piecesInStep = 16;

/** As the engine judges it. */
export function judge(snapshot: Snapshot, witness: Witness): Decision {
  return decide(snapshot, readWitness(witness), new Date(witness.at));
}

/** What is told of a decision. */
export function told({ verdict, reason, rule, why }: Decision): ToldDecision {
  return { verdict, reason, rule, why };
}

/** A rule in words. */
export function tell({ compiled: { rule, policy } }: BoxedRule): ToldRule {
  const words = (side: 'from' | 'to' | 'when'): readonly (readonly string[])[] =>
    rule[side].slice(0, maxEntries).map(({ predicates }) => predicates.map(describeWanted));
  return {
    rule: rule.name,
    place: formatPlace(rule.place),
    action: policy.action,
    from: words('from'),
    to: words('to'),
    when: words('when'),
  };
}

function finishClass({ members, ...rest }: OpenClass): DifferenceClass {
  const shown = members.slice(0, maxShown).map(nameOf);
  return { ...rest, destinations: shown, destinationsOmitted: members.length - shown.length };
}

/** An identity; in brackets when nobody is registered so. */
export function nameOf({ id, isRegistered }: Destination): string {
  return isRegistered ? id.text : `(${id.text})`;
}

/** How many destinations of a class are named. */
export const maxShown = 16;
const maxEntries = 8;
const maxExamples = 4;
