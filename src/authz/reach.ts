import { formatPlace } from '../errors.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import { untold } from './context.ts';
import type { AuthzRequest } from './decision.ts';
import type { Attribute } from './document.ts';
import { Facts } from './facts.ts';
import { isGrant, isLiftable } from './glass.ts';
import type { CompiledRule } from './match.ts';
import { sides } from './policy.ts';
import { isSettled, type OpenEntry, type Residue, residueOf } from './residue.ts';
import type { AppliedRules, Snapshot } from './snapshot.ts';
import { rulesInStep, type Steps } from './steps.ts';
import { describeWanted } from './words.ts';

/** What is said of calls; all else may be anything. Canonical, as `authz/request.ts` makes it. */
export type PartialCall = Partial<Pick<AuthzRequest, 'method' | 'path' | 'host' | 'hostPort' | 'port'>>;

/** A rule and what must still hold for it to match: of each part any list, and of that list everything. */
export type OpenRule = {
  /** `namespace/name rule[0]`. */
  readonly rule: string;
  /** `file:line:column`. */
  readonly place: string;
  readonly from: readonly (readonly string[])[];
  readonly to: readonly (readonly string[])[];
  readonly when: readonly (readonly string[])[];
  /** `grant`: of a break-glass grant. `liftable`: denies only what no grant matches. Absent for all others. */
  readonly glass?: 'grant' | 'liftable' | undefined;
};

/**
 * Whether calls are allowed: always, never, or when one of `allow` matches and none of `unless` does, those that are
 * `liftable` left out where a `grant` of `allow` matches. INVARIANT: `allow`
 * is empty for `never`, `unless` for all but `depends`.
 */
export type Reach = {
  readonly reach: 'always' | 'depends' | 'never';
  readonly allow: readonly OpenRule[];
  readonly unless: readonly OpenRule[];
  /** How many more rules there are of each, which are not shown: only so many are. */
  readonly allowOmitted: number;
  readonly unlessOmitted: number;
};
export const reaches = ['always', 'depends', 'never'] as const satisfies readonly Reach['reach'][];

/**
 * Who may make a call, of some callers and of anybody: exact, from the rules and not from samples. Conditions that
 * contradict each other are not noticed. A rule whose time is not over, or has not come, is open: it depends on when.
 * @param callers in the order of the answer. It holds the first of them, at least one: as many as reasonable work is
 *   enough for
 */
export function* whoCan(
  snapshot: Snapshot,
  destination: SpiffeId,
  call: PartialCall,
  callers: readonly SpiffeId[],
  now: Date,
): Steps<{ readonly anybody: Reach; readonly callers: readonly (Reach & { readonly caller: string })[] }> {
  const applied = yield* snapshot.rulesFor(destination);
  const isOpen = openIn(call);
  const ofAnybody = (attribute: Attribute): boolean => callerAttributes.has(attribute) || isOpen(attribute);
  // What the call alone rules out need not be looked at for each caller.
  const anybody = yield* survey(applied, factsOf(snapshot, null, destination, call, now), ofAnybody);
  const answers: (Reach & { readonly caller: string })[] = [];
  let work = 0;
  for (const caller of callers) {
    const left = yield* survey(anybody, factsOf(snapshot, caller, destination, call, now), isOpen);
    const answer = judgeSurvey(snapshot, left, shownOfOne);
    answers.push({ caller: caller.text, ...answer });
    work += workOf(anybody, answer);
    if (work > maxWork) break;
  }
  return { anybody: judgeSurvey(snapshot, anybody, shownOfAnybody), callers: answers };
}

/** Where a caller may call, of some destinations. As {@link whoCan}. */
export function* canReach(
  snapshot: Snapshot,
  source: SpiffeId,
  call: PartialCall,
  destinations: readonly SpiffeId[],
  now: Date,
): Steps<readonly (Reach & { readonly destination: string })[]> {
  const isOpen = openIn(call);
  const answers: (Reach & { readonly destination: string })[] = [];
  let work = 0;
  for (const destination of destinations) {
    const facts = factsOf(snapshot, source, destination, call, now);
    const applied = yield* snapshot.rulesFor(destination);
    const answer = judgeSurvey(snapshot, yield* survey(applied, facts, isOpen), shownOfOne);
    answers.push({ destination: destination.text, ...answer });
    work += workOf(applied, answer);
    if (work > maxWork) break;
  }
  return answers;
}

/** The rules that can still match. */
export type Survey = {
  readonly isGoverned: boolean;
  readonly allow: readonly Residue[];
  readonly deny: readonly Residue[];
  readonly custom: readonly Residue[];
};

function* survey(
  from: AppliedRules | Survey,
  facts: Facts,
  isOpen: (attribute: Attribute) => boolean,
): Steps<Survey> {
  const rules =
    'allowRules' in from
      ? { allow: from.allowRules, deny: from.denyRules, custom: from.customRules }
      : { allow: rulesOf(from.allow), deny: rulesOf(from.deny), custom: rulesOf(from.custom) };
  return {
    isGoverned: from.isGoverned,
    allow: yield* residues(rules.allow, facts, isOpen),
    deny: yield* residues(rules.deny, facts, isOpen),
    custom: yield* residues(rules.custom, facts, isOpen),
  };
}

function rulesOf(some: readonly Residue[]): readonly CompiledRule[] {
  return some.map(({ compiled }) => compiled);
}

function* residues(
  rules: readonly CompiledRule[],
  facts: Facts,
  isOpen: (attribute: Attribute) => boolean,
): Steps<readonly Residue[]> {
  const left: Residue[] = [];
  for (const [i, rule] of rules.entries()) {
    if (i % (rulesInStep * 8) === 0) yield;
    const residue = residueOf(rule, facts, isOpen);
    if (residue !== undefined) left.push(residue);
  }
  return left;
}

/** Whether calls are allowed of which these rules are left. */
export function judgeSurvey(
  snapshot: Snapshot,
  { isGoverned, allow: all, deny, custom }: Survey,
  shown: Shown = shownOfOne,
): Reach {
  // Whatever denies for certain and can be lifted leaves break-glass grants alone.
  const isClosed = deny.some((one) => isLiftable(one.compiled) && isSettled(one));
  const allow = isClosed ? all.filter(({ compiled }) => isGrant(compiled)) : all;
  const denying = isClosed ? deny.filter(({ compiled }) => !isLiftable(compiled)) : deny;
  const restricting = snapshot.providersAnswer ? denying : [...custom, ...denying];
  if (!isGoverned || allow.length === 0 || restricting.some(isSettled)) return never;
  const settled = allow.filter(isSettled);
  const isAlways = settled.length > 0 && restricting.length === 0;
  // One that matches whatever comes says all that the others could.
  const isLifted = restricting.some(({ compiled }) => isLiftable(compiled));
  const told = isAlways
    ? settled
    : settled.length > 0
      ? [...settled.slice(0, 1), ...(isLifted ? allow.filter(({ compiled }) => isGrant(compiled)) : [])]
      : allow;
  const [allowing, against] = [describeSome(told, shown), describeSome(restricting, shown)];
  return {
    reach: isAlways ? 'always' : 'depends',
    allow: allowing,
    unless: against,
    allowOmitted: told.length - allowing.length,
    unlessOmitted: restricting.length - against.length,
  };
}

/** What is said of whom nobody may call, or who may call nobody. */
export const never: Reach = { reach: 'never', allow: [], unless: [], allowOmitted: 0, unlessOmitted: 0 };

/** How many rules are shown, and after how many conditions no further one is. */
type Shown = { readonly rules: number; readonly conditions: number };
const shownOfOne: Shown = { rules: 16, conditions: 256 };
const shownOfAnybody: Shown = { rules: 512, conditions: 4_096 };

function describeSome(residues: readonly Residue[], { rules, conditions }: Shown): readonly OpenRule[] {
  const described: OpenRule[] = [];
  let told = 0;
  for (const residue of residues) {
    if (described.length === rules || told > conditions) break;
    const rule = describe(residue);
    described.push(rule);
    told += conditionsOf(rule);
  }
  return described;
}

function conditionsOf(rule: OpenRule): number {
  let conditions = 1;
  for (const side of sides) for (const entry of rule[side]) conditions += entry.length;
  return conditions;
}

/** In rules that are looked at; to say a condition costs as much as a hundred of them. */
function workOf(of: AppliedRules | Survey, { allow, unless }: Reach): number {
  const looked =
    'allowRules' in of
      ? of.allowRules.length + of.denyRules.length + of.customRules.length
      : of.allow.length + of.deny.length + of.custom.length;
  return [...allow, ...unless].reduce((work, rule) => work + 100 * conditionsOf(rule), looked);
}

const maxWork = 1_000_000;

function describe({ compiled, from, to, when }: Residue): OpenRule {
  const words = (entries: readonly OpenEntry[]): readonly (readonly string[])[] =>
    entries.map((predicates) => predicates.map(describeWanted));
  return {
    rule: compiled.rule.name,
    place: formatPlace(compiled.rule.place),
    from: words(from),
    to: words(to),
    when: words(when),
    ...glassOf(compiled),
  };
}

function glassOf(compiled: CompiledRule): Pick<OpenRule, 'glass'> {
  if (isGrant(compiled)) return { glass: 'grant' };
  return isLiftable(compiled) ? { glass: 'liftable' } : {};
}

const callerAttributes: ReadonlySet<Attribute> = new Set([
  'source.principal',
  'source.namespace',
  'source.serviceAccount',
  'source.trustDomain',
]);

/** Who calls is always said; addresses, headers, tokens and the like never are. */
function openIn({ method, path, host, port }: PartialCall): (attribute: Attribute) => boolean {
  const said = new Set<Attribute>(callerAttributes);
  if (method !== undefined) said.add('request.method');
  if (path !== undefined) said.add('request.path');
  if (host !== undefined) said.add('request.host');
  if (port !== undefined) said.add('destination.port');
  return (attribute) => !said.has(attribute);
}

function factsOf(
  { trustDomain }: Snapshot,
  source: SpiffeId | null,
  destination: SpiffeId,
  { method = '', path = '', host = '', hostPort = null, port = 0 }: PartialCall,
  now: Date,
): Facts {
  const ends = { source, destination };
  return new Facts(
    { ...ends, protocol: 'http', method, path, host, hostPort, port, context: untold },
    trustDomain,
    now,
  );
}
