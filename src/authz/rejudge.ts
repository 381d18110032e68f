import { formatPlace } from '../errors.ts';
import { decide } from './decide.ts';
import type { AuthzRequest, DecisionReason } from './decision.ts';
import type { Attribute } from './document.ts';
import { Facts } from './facts.ts';
import type { CompiledRule } from './match.ts';
import { findNearMiss } from './nearest.ts';
import { coverOf, pathLike, type PathPattern } from './path-cover.ts';
import type { Rule } from './policy.ts';
import { attributesOf, openIn, type PartlyKnownCall, readable, replayCall } from './replay.ts';
import { judgeSurvey } from './reach.ts';
import { canonicalizeHttp, canonicalizeTcp, isRejection, type Rejection } from './request.ts';
import { type IsOpen, isSettled, type Residue, residueOf } from './residue.ts';
import type { AppliedRules, Snapshot } from './snapshot.ts';
import { rulesInStep, type Steps } from './steps.ts';
import { describeMiss } from './words.ts';

/** A call of which not everything is known, or many that differ in their paths alone. */
export type CallToRejudge = PartlyKnownCall & {
  /** Their paths, canonical; then that of the call is not read. Null: the call has its own. */
  readonly paths: PathPattern | null;
};

/**
 * What the record of a call shows of a rule that reads what is not known: that it matched the call, or did not. Undefined when
 * it shows nothing. Whoever answers it vouches that the rule is the one of then.
 */
export type Shows = (compiled: CompiledRule) => boolean | undefined;

/** What becomes of it. Nothing in it is a guess. */
export type Rejudged = {
  /** `unknown`: it depends on what is not known. */
  readonly verdict: 'allow' | 'deny' | 'unknown';
  /** Null when it cannot be told, though the verdict may be. */
  readonly reason: DecisionReason | null;
  /** `namespace/name rule[0]` that decides, of several one; empty when none does or it cannot be told. */
  readonly rule: string;
  /** What the verdict depends on, by the keys of `when`; sorted. Empty when it is told. */
  readonly dependsOn: readonly string[];
  /** With `unknown`, in strict mode: the rules that are left, and which of them are open. The same ones mean the same verdict. */
  readonly rest: readonly { readonly rule: Rule; readonly isOpen: boolean }[];
};

/** The rule that came nearest to allowing a denied call, and what it failed on. */
export type NearRule = { readonly rule: string; readonly place: string; readonly missed: string };

/** Judges many calls by one snapshot at one moment. */
export type Rejudge = {
  readonly judge: (call: CallToRejudge, shows?: Shows) => Steps<Rejudged>;
  /** Null where no rule is near, or what it failed on is not known of the call. */
  readonly nearest: (call: CallToRejudge) => Steps<NearRule | null>;
  /** The attributes that rules which decide calls to a destination read. */
  readonly reads: (destination: AuthzRequest['destination']) => Steps<ReadonlySet<Attribute>>;
};

/**
 * Makes it. As `replayCall` judges one call, but for what it explains; rules that cannot be about a caller are left out once for
 * all calls of it.
 */
export function createRejudge(snapshot: Snapshot, now: Date): Rejudge {
  const applied = new Map<string, AppliedRules>();
  const ofPair = new Map<string, AppliedRules>();

  return { judge, nearest, reads };

  function* judge(call: CallToRejudge, shows: Shows = showsNothing): Steps<Rejudged> {
    if (snapshot.mode === 'istio') return yield* judgeLikeIstio(call);
    const request = requestOf(call);
    if (isRejection(request)) return told('deny', request.reason, '');
    if (request.source === null) return told('deny', 'unauthenticated', '');
    const facts = new Facts(readable(request, call.unknown), snapshot.trustDomain, now);
    const isOpen = openOf(call, facts);
    const rules = yield* rulesOfPair(request);
    const left = {
      isGoverned: rules.isGoverned,
      allow: yield* residues(rules.allowRules, facts, isOpen, shows),
      deny: yield* residues(rules.denyRules, facts, isOpen, shows),
      custom: snapshot.providersAnswer ? [] : yield* residues(rules.customRules, facts, isOpen, shows),
    };
    const { reach } = judgeSurvey(snapshot, left, nothingShown);
    if (reach === 'depends') {
      const all = [...left.allow, ...left.deny, ...left.custom];
      const rest = all.map((one) => ({ rule: one.compiled.rule, isOpen: !isSettled(one) }));
      return { verdict: 'unknown', reason: null, rule: '', dependsOn: attributesOf(all), rest };
    }
    if (reach === 'always') return told('allow', 'allow_rule', nameOf(left.allow.find(isSettled)));
    if (!rules.isGoverned) return told('deny', 'no_policy', '');
    const custom = left.custom.find(isSettled);
    if (custom !== undefined) return told('deny', 'custom_unanswered', nameOf(custom));
    if (left.custom.length > 0) return told('deny', null, '');
    const denied = left.deny.find(isSettled);
    if (denied !== undefined) return told('deny', 'deny_rule', nameOf(denied));
    return left.deny.length > 0 ? told('deny', null, '') : told('deny', 'no_allow_rule', '');
  }

  function* judgeLikeIstio({ paths, ...call }: CallToRejudge): Steps<Rejudged> {
    // Of many paths each may be one that a proxy answers with 400.
    const unknown = paths === null ? call.unknown : new Set<Attribute>([...call.unknown, 'request.path']);
    const { verdict, reason, rule, dependsOn } = yield* replayCall(snapshot, { ...call, unknown }, now);
    return { verdict, reason, rule, dependsOn, rest: [] };
  }

  function* nearest(call: CallToRejudge): Steps<NearRule | null> {
    const request = requestOf(call);
    if (snapshot.mode === 'istio' || isRejection(request)) return null;
    yield* snapshot.ready(request.destination);
    const known = readable(request, call.unknown);
    const facts = new Facts(known, snapshot.trustDomain, now);
    if (decide(snapshot, known, now).reason !== 'no_allow_rule') return null;
    const miss = findNearMiss(snapshot.appliedTo(request.destination), facts);
    if (miss === null || openOf(call, facts)(miss.missed.attribute, miss.missed)) return null;
    const { compiled, missed } = miss;
    // Of many paths one stands for all, and is nobody's.
    const isOfPaths = call.paths !== null && missed.attribute === 'request.path';
    const words = isOfPaths ? 'the path' : describeMiss(missed, facts);
    return { rule: compiled.rule.name, place: formatPlace(missed.place), missed: words };
  }

  function* reads(destination: AuthzRequest['destination']): Steps<ReadonlySet<Attribute>> {
    if (snapshot.mode === 'istio') {
      const rules = snapshot.istio.rulesFor(destination);
      return new Set(rules.flatMap((one) => [...one.reads.deciding.attributes]));
    }
    const { allowRules, denyRules, customRules } = yield* rulesOf(destination);
    const found = new Set<Attribute>();
    for (const { rule } of [...allowRules, ...denyRules, ...customRules]) {
      for (const { predicates } of [...rule.from, ...rule.to, ...rule.when]) {
        for (const { attribute } of predicates) found.add(attribute);
      }
    }
    return found;
  }

  function* rulesOf(destination: AuthzRequest['destination']): Steps<AppliedRules> {
    const known = applied.get(destination.text) ?? (yield* snapshot.rulesFor(destination));
    if (applied.size >= maxRemembered) applied.clear();
    applied.set(destination.text, known);
    return known;
  }

  /** The rules of a destination that can be about the caller. */
  function* rulesOfPair(request: AuthzRequest): Steps<AppliedRules> {
    const key = `${request.source?.text ?? ''} ${request.destination.text}`;
    const known = ofPair.get(key);
    if (known !== undefined) return known;
    const all = yield* rulesOf(request.destination);
    const facts = new Facts(request, snapshot.trustDomain, now);
    const isOpen: IsOpen = (attribute) => !callerAttributes.has(attribute);
    const some = {
      isGoverned: all.isGoverned,
      allowRules: yield* keep(all.allowRules, facts, isOpen),
      denyRules: yield* keep(all.denyRules, facts, isOpen),
      customRules: yield* keep(all.customRules, facts, isOpen),
    };
    if (ofPair.size >= maxRemembered) ofPair.clear();
    ofPair.set(key, some);
    return some;
  }
}

/** Where a rule of the snapshot stands: `file:line:column`; empty for none of its. */
export function placeOfRule(snapshot: Snapshot, name: string): string {
  const policy = snapshot.policy(name.slice(0, name.lastIndexOf(' ')));
  const rule = policy?.rules.find((one) => one.name === name);
  return rule === undefined ? '' : formatPlace(rule.place);
}

/** How attributes are open in a call: as in `replayCall`, and a path where the pattern alone does not decide. */
export function openOf(call: CallToRejudge, facts: Facts): IsOpen {
  const isOpen = openIn(call, facts);
  const { paths } = call;
  if (paths === null || call.call.protocol === 'tcp') return isOpen;
  return (attribute, predicate) =>
    attribute === 'request.path' && predicate.kind === 'text'
      ? coverOf(paths, predicate.matches) === 'some'
      : isOpen(attribute, predicate);
}

/** The call as policies compare it, or why it has no such form. */
export function requestOf({ call, paths }: CallToRejudge): AuthzRequest | Rejection {
  if (call.protocol === 'tcp') return canonicalizeTcp(call);
  if (paths === null) return canonicalizeHttp(call);
  const request = canonicalizeHttp({ ...call, path: '/' });
  return isRejection(request) ? request : { ...request, path: pathLike(paths) };
}

function* residues(
  rules: readonly CompiledRule[],
  facts: Facts,
  isOpen: IsOpen,
  shows: Shows,
): Steps<readonly Residue[]> {
  const left: Residue[] = [];
  for (const [i, rule] of rules.entries()) {
    if (i % (rulesInStep * 8) === 0) yield;
    const residue = residueOf(rule, facts, isOpen, 'now');
    if (residue === undefined) continue;
    const shown = isSettled(residue) ? undefined : shows(rule);
    if (shown === false) continue;
    left.push(shown === true ? { compiled: rule, from: [], to: [], when: [] } : residue);
  }
  return left;
}

function* keep(rules: readonly CompiledRule[], facts: Facts, isOpen: IsOpen): Steps<readonly CompiledRule[]> {
  const kept: CompiledRule[] = [];
  for (const [i, rule] of rules.entries()) {
    if (i % (rulesInStep * 8) === 0) yield;
    if (residueOf(rule, facts, isOpen, 'now') !== undefined) kept.push(rule);
  }
  return kept;
}

function told(verdict: 'allow' | 'deny', reason: DecisionReason | null, rule: string): Rejudged {
  return { verdict, reason, rule, dependsOn: [], rest: [] };
}

function nameOf(residue: Residue | undefined): string {
  return residue?.compiled.rule.name ?? '';
}

const showsNothing: Shows = () => undefined;
const nothingShown = { rules: 0, conditions: 0 };
const maxRemembered = 4_096;
const callerAttributes: ReadonlySet<Attribute> = new Set([
  'source.principal',
  'source.namespace',
  'source.serviceAccount',
  'source.trustDomain',
]);
