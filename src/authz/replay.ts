import { untold } from './context.ts';
import { decide, denyDecision } from './decide.ts';
import type { AuthzRequest, Decision, DecisionReason } from './decision.ts';
import type { Attribute } from './document.ts';
import { type Explanation, explainDecision } from './explain.ts';
import { Facts } from './facts.ts';
import { isGrant, isLiftable } from './glass.ts';
import type { RawCall } from './istio-mode.ts';
import { explainCall, judgeCall } from './judge.ts';
import { type CompiledRule, compilePredicate } from './match.ts';
import { type Predicate, sides } from './policy.ts';
import type { PolicyMode } from './policy-mode.ts';
import { judgeSurvey, never, type OpenRule, type Reach } from './reach.ts';
import { canonicalizeHttp, canonicalizeTcp, isRejection } from './request.ts';
import { type IsOpen, isSettled, type Residue, residueOf } from './residue.ts';
import type { Snapshot } from './snapshot.ts';
import { rulesInStep, type Steps } from './steps.ts';

/** A call of which not everything is known. */
export type PartlyKnownCall = {
  /** What is said in it of attributes that are not known is not read, but must be such as a call may have. */
  readonly call: RawCall;
  /** What a door knew of the call, and we do not. What is neither here nor in the call no door knew. */
  readonly unknown: ReadonlySet<Attribute>;
  /** Whether the authority had a port is not known: the one in `call` has none. */
  readonly isHostPortUnknown: boolean;
};

/** What becomes of a {@link PartlyKnownCall}. Nothing in it is a guess. */
export type Replay = {
  /** `unknown`: it depends on what is not known. */
  readonly verdict: 'allow' | 'deny' | 'unknown';
  /** Null when it cannot be told, though the verdict may be. */
  readonly reason: DecisionReason | null;
  /** `namespace/name rule[0]` that decides; empty when none does, or when it cannot be told which. */
  readonly rule: string;
  /** One sentence: lower case, no full stop. */
  readonly why: string;
  /** Of the mesh. */
  readonly revision: number;
  readonly mode: PolicyMode;
  /** What the verdict depends on, by the keys of `when`: `request.headers[x-team]`. Empty when it is told. */
  readonly dependsOn: readonly string[];
  /** With `unknown` in strict mode: it is allowed when one of these matches, and none of `unless` does; as {@link Reach}. */
  readonly allow: readonly OpenRule[];
  readonly unless: readonly OpenRule[];
  readonly allowOmitted: number;
  readonly unlessOmitted: number;
  /** As `authz check` gives it; null when verdict or reason cannot be told. */
  readonly explanation: Explanation | null;
};

/**
 * Judges a call of which not everything is known, as the doors for proxies would judge it at this moment. A verdict is told
 * when it is the same whatever the unknown attributes are.
 * @param standing a denial that holds whatever the policies say
 */
export function* replayCall(
  snapshot: Snapshot,
  partly: PartlyKnownCall,
  now: Date,
  standing?: Decision,
): Steps<Replay> {
  const { call } = partly;
  if (standing !== undefined) return ofDecision(snapshot, standing, explain(snapshot, partly, now, standing));
  if (snapshot.mode === 'istio') return replayLikeIstio(snapshot, partly, now);
  const read = call.protocol === 'http' ? canonicalizeHttp(call) : canonicalizeTcp(call);
  if (isRejection(read)) {
    const denied = denyDecision(read.reason, read.why, snapshot.revision);
    return ofDecision(snapshot, denied, explain(snapshot, partly, now, denied));
  }
  return yield* replayStrictly(snapshot, readable(read, partly.unknown), partly, now);
}

function* replayStrictly(
  snapshot: Snapshot,
  request: AuthzRequest,
  partly: PartlyKnownCall,
  now: Date,
): Steps<Replay> {
  const facts = new Facts(request, snapshot.trustDomain, now);
  const isOpen = openIn(partly, facts);
  const rules = yield* snapshot.rulesFor(request.destination);
  const left = {
    isGoverned: rules.isGoverned,
    allow: yield* residues(rules.allowRules, facts, isOpen),
    deny: yield* residues(rules.denyRules, facts, isOpen),
    custom: snapshot.providersAnswer ? [] : yield* residues(rules.customRules, facts, isOpen),
  };
  const reach = request.source === null ? never : judgeSurvey(snapshot, left);
  yield* snapshot.ready(request.destination);
  // What is unknown fails for ALLOW and holds for all others: a denial that is sure is one here too, and so is an allow.
  const decision = decide(snapshot, request, now);
  if (reach.reach === 'depends') {
    return ofDependence(snapshot, reach, attributesOf([...left.allow, ...left.deny, ...left.custom]));
  }
  const expected = reach.reach === 'always' ? 'allow' : 'deny';
  // INVARIANT: two ways to the same verdict. Should they ever differ, nothing is told.
  if (decision.verdict !== expected) return ofDependence(snapshot, reach, []);
  const isSure = decision.verdict === 'allow' || isReasonSure(decision, left);
  if (!isSure) {
    const why = 'denied in any case; by what depends on what is not known';
    return { ...nothing(snapshot), verdict: 'deny', reason: null, rule: '', why, explanation: null };
  }
  const explained = explainDecision(snapshot, request, decision, now);
  // A policy for a call of any path would be for more than this call.
  const isNarrow = !partly.unknown.has('request.path') && !partly.unknown.has('request.method');
  return ofDecision(snapshot, decision, isNarrow ? explained : { ...explained, remedy: null });
}

type Left = Readonly<Record<'allow' | 'deny' | 'custom', readonly Residue[]>>;

/** A denial names its reason for sure when no rule that is looked at before could match, and it does whatever comes. */
function isReasonSure({ reason, rule }: Decision, { allow, deny, custom }: Left): boolean {
  const isSettledRule = (all: readonly Residue[]): boolean => {
    const named = all.find(({ compiled }) => compiled.rule.name === rule);
    return named !== undefined && isSettled(named);
  };
  if (reason === 'custom_unanswered') return isSettledRule(custom);
  if (custom.length > 0 && reason !== 'unauthenticated' && reason !== 'no_policy') return false;
  if (reason === 'deny_rule') {
    const isLifted = deny.some(({ compiled }) => isLiftable(compiled) && compiled.rule.name === rule);
    return isSettledRule(deny) && !(isLifted && allow.some(({ compiled }) => isGrant(compiled)));
  }
  return reason === 'no_allow_rule' ? deny.length === 0 && allow.length === 0 : true;
}

/** Istio knows no third value: where a rule that decides reads what is not known, nothing is told. */
function replayLikeIstio(snapshot: Snapshot, partly: PartlyKnownCall, now: Date): Replay {
  const { call, unknown } = partly;
  const read = snapshot.istio
    .rulesFor(call.destination)
    .flatMap(({ reads: { deciding } }) => [
      ...[...deciding.attributes].filter((one) => one !== 'request.headers' && unknown.has(one)),
      ...(unknown.has('request.headers')
        ? [...deciding.headers].map((name) => `request.headers[${name}]`)
        : []),
    ]);
  const dependsOn = [...new Set<string>(read)].sort();
  // Any path may be one that a proxy answers with 400.
  if (unknown.has('request.path')) dependsOn.push('request.path');
  if (dependsOn.length > 0) return ofDependence(snapshot, never, [...new Set(dependsOn)]);
  const { decision } = judgeCall(snapshot, call, now);
  return ofDecision(snapshot, decision, explain(snapshot, partly, now));
}

function explain(
  snapshot: Snapshot,
  { call, unknown }: PartlyKnownCall,
  now: Date,
  standing?: Decision,
): Explanation | null {
  if (call.protocol !== 'http') return null;
  const explained = explainCall(snapshot, call, now, standing);
  const { request } = explained;
  return unknown.has('request.path') ? { ...explained, request: { ...request, path: '' } } : explained;
}

/** The same request without what is not known: nothing may be made of what stands in its place. */
export function readable(request: AuthzRequest, unknown: ReadonlySet<Attribute>): AuthzRequest {
  const without = (attribute: Attribute, text: string): string => (unknown.has(attribute) ? '' : text);
  return {
    ...request,
    method: without('request.method', request.method),
    path: without('request.path', request.path),
    host: without('request.host', request.host),
    context: request.context ?? untold,
  };
}

/** Which attributes of a call are open: what no door knew is not. */
export function openIn({ unknown, isHostPortUnknown }: PartlyKnownCall, facts: Facts): IsOpen {
  // What a TCP connection cannot have was not unknown to anybody.
  const isTcp = facts.protocol === 'tcp';
  return (attribute, predicate) => {
    if (isTcp && (attribute.startsWith('request.') || attribute === 'filter.metadata')) {
      return attribute === 'filter.metadata' && unknown.has(attribute);
    }
    if (unknown.has(attribute)) return true;
    if (attribute !== 'request.host' || !isHostPortUnknown || predicate.kind !== 'host') return false;
    return compilePredicate(predicate, 'ALLOW')(facts) === undefined;
  };
}

function* residues(rules: readonly CompiledRule[], facts: Facts, isOpen: IsOpen): Steps<readonly Residue[]> {
  const left: Residue[] = [];
  for (const [i, rule] of rules.entries()) {
    if (i % (rulesInStep * 8) === 0) yield;
    const residue = residueOf(rule, facts, isOpen, 'now');
    if (residue !== undefined) left.push(residue);
  }
  return left;
}

/** What is open in some rules, by the keys of `when`: sorted. */
export function attributesOf(all: readonly Residue[]): readonly string[] {
  const names = all.flatMap((residue) => sides.flatMap((side) => residue[side].flat().map(keyOf)));
  return [...new Set(names)].sort();
}

/** A predicate's attribute, as the keys of `when` are written. */
function keyOf({ attribute, names }: Predicate): string {
  if (attribute === 'filter.metadata') return `experimental.${names[0] ?? ''}[${names[1] ?? ''}]`;
  const isNamed = attribute === 'request.headers' || attribute === 'request.auth.claims';
  return `${attribute}${isNamed ? names.map((name) => `[${name}]`).join('') : ''}`;
}

function ofDecision(snapshot: Snapshot, decision: Decision, explanation: Explanation | null): Replay {
  const { verdict, reason, rule, why } = decision;
  return { ...nothing(snapshot), verdict, reason, rule, why, explanation };
}

function ofDependence(snapshot: Snapshot, reach: Reach, dependsOn: readonly string[]): Replay {
  const { allow, unless, allowOmitted, unlessOmitted } = reach;
  return {
    ...nothing(snapshot),
    ...{ verdict: 'unknown', reason: null, rule: '', explanation: null, dependsOn },
    why: 'it depends on what is not known of the call',
    ...{ allow, unless, allowOmitted, unlessOmitted },
  };
}

function nothing({ revision, mode }: Snapshot) {
  const empty = { dependsOn: [], allow: [], unless: [], allowOmitted: 0, unlessOmitted: 0 };
  return { revision, mode, ...empty };
}
