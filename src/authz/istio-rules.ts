import { type Attribute, isHttpOnly, type PolicyDocument, ruleId } from './document.ts';
import {
  compileCondition,
  demandedNames,
  type IstioCondition,
  type IstioFacts,
  istioFacts,
  type IstioTest,
} from './istio-match.ts';
import type { IstioMesh, ProxyRequest } from './istio-request.ts';
import type { ShadowVerdict } from './decision.ts';
import type { Entry, Policy, Predicate } from './policy.ts';
import { finish, rulesInStep, type Steps } from './steps.ts';

/** What of a policy Istio's reading needs; a {@link PolicyDocument} is one. */
export type IstioPolicy = Pick<PolicyDocument, 'namespace' | 'name' | 'action' | 'provider' | 'dryRun'> & {
  readonly rules: readonly IstioRuleText[];
};

type IstioRuleText = {
  readonly from: readonly (readonly IstioCondition[])[];
  readonly to: readonly (readonly IstioCondition[])[];
  readonly when: readonly IstioCondition[];
};

/** A rule made ready to run. */
export type IstioRule = {
  /** As Envoy names it. */
  readonly id: string;
  /** `namespace/name rule[0]`, as decisions name it. */
  readonly name: string;
  readonly provider: string | null;
  /** The names of callers that it can hold for; undefined for any. */
  readonly callers: readonly string[] | undefined;
  readonly holds: (facts: IstioFacts) => boolean;
};

/** The policies that apply to one workload, ready to judge by. Immutable. */
export type IstioRules = {
  readonly mesh: IstioMesh;
  readonly custom: IstioRuleSet;
  readonly deny: IstioRuleSet;
  readonly allow: IstioRuleSet;
  readonly audit: IstioRuleSet;
  readonly trialAllow: IstioRuleSet;
  readonly trialDeny: IstioRuleSet;
  /** The providers of enforced CUSTOM policies. */
  readonly providers: ReadonlySet<string | null>;
  readonly reads: {
    /** The headers that any of the rules reads. */
    readonly headers: ReadonlySet<string>;
    /** What those rules read that decide: not those of AUDIT policies, nor of policies on trial. */
    readonly deciding: { readonly headers: ReadonlySet<string>; readonly attributes: ReadonlySet<Attribute> };
  };
};

/** The rules of policies of one action, in the order in which Envoy keeps them: by their names. */
export type IstioRuleSet = {
  /** Whether there is any policy: one without rules matches nothing, and still is one. */
  readonly isThere: boolean;
  /** Rules that hold for callers of certain names alone, by each of these names; and all others. */
  readonly byCaller: ReadonlyMap<string, readonly IstioRule[]>;
  readonly others: readonly IstioRule[];
};

/** What is made of a call. */
export type IstioJudgement = {
  readonly allow: boolean;
  /** The rule that decided; of several that match, the one whose name comes first. */
  readonly rule: IstioRule | null;
  readonly shadow: ShadowVerdict;
  /** The provider that is asked, and its rule. */
  readonly asked: IstioRule | null;
  readonly audited: readonly IstioRule[];
  readonly because: IstioCause;
};

/** What decided: closed. */
export type IstioCause =
  'path_refused' | 'several_providers' | 'deny_rule' | 'no_allow_policy' | 'allow_rule' | 'no_allow_rule';

/** A policy that was parsed strictly, as Istio reads it: from the values as written, not from what was made of them. */
export function istioPolicyOf({ namespace, name, action, provider, dryRun, rules }: Policy): IstioPolicy {
  const conditionsOf = ({ predicates }: Entry): readonly IstioCondition[] => predicates.map(conditionOf);
  return {
    namespace,
    name,
    action,
    provider,
    dryRun,
    rules: rules.map(({ from, to, when }) => ({
      from: from.map(conditionsOf),
      to: to.map(conditionsOf),
      when: when.flatMap(conditionsOf),
    })),
  };
}

/** One list of values, as Istio reads it. */
export function conditionOf(predicate: Predicate): IstioCondition {
  const { attribute, names, values, negated } = predicate;
  if (predicate.kind === 'time') {
    const [{ bound, atMs } = { bound: 'expiresAt', atMs: 0 }] = predicate.matches;
    return { attribute, names: [bound], values: [String(atMs)], notValues: [] };
  }
  return { attribute, names, values: negated ? [] : values, notValues: negated ? values : [] };
}

/** Makes the policies of one workload ready. */
export function compileIstio(mesh: IstioMesh, policies: Iterable<IstioPolicy>): IstioRules {
  return finish(compileIstioInSteps(mesh, policies));
}

/** The same in small steps. */
export function* compileIstioInSteps(mesh: IstioMesh, policies: Iterable<IstioPolicy>): Steps<IstioRules> {
  const sets = new Map<string, IstioRule[]>();
  const keyOf = (action: PolicyDocument['action'], dryRun: boolean): string => `${action} ${dryRun}`;
  const deciding = { headers: new Set<string>(), attributes: new Set<Attribute>() };
  const reads = { headers: new Set<string>(), deciding };
  const providers = new Set<string | null>();
  let count = 0;
  for (const policy of policies) {
    // One without rules is work too.
    if (count++ % rulesInStep === 0) yield;
    const key = keyOf(policy.action, policy.dryRun);
    const set = sets.get(key) ?? [];
    sets.set(key, set);
    const decides = policy.action !== 'AUDIT' && !policy.dryRun;
    if (policy.action === 'CUSTOM') providers.add(policy.provider);
    for (const [index, rule] of policy.rules.entries()) {
      if (count++ % rulesInStep === 0) yield;
      set.push(compileRule(mesh, policy, rule, index));
      for (const { attribute, names } of [...rule.from.flat(), ...rule.to.flat(), ...rule.when]) {
        const [name = ''] = names;
        if (decides) deciding.attributes.add(attribute);
        if (attribute !== 'request.headers') continue;
        reads.headers.add(name);
        if (decides) deciding.headers.add(name);
      }
    }
  }
  yield;
  const setOf = (action: PolicyDocument['action'], dryRun: boolean): Steps<IstioRuleSet> =>
    fileRules(sets.get(keyOf(action, dryRun)));
  return {
    mesh,
    custom: yield* setOf('CUSTOM', false),
    deny: yield* setOf('DENY', false),
    allow: yield* setOf('ALLOW', false),
    audit: yield* setOf('AUDIT', false),
    trialAllow: yield* setOf('ALLOW', true),
    trialDeny: yield* setOf('DENY', true),
    providers,
    reads,
  };
}

/** Judges a call as a sidecar of Istio does: CUSTOM before DENY before ALLOW; without an ALLOW policy all is allowed. */
export function judgeAsIstio(rules: IstioRules, request: ProxyRequest, now: Date): IstioJudgement {
  const facts = istioFacts(rules.mesh, request, now);
  const first = (set: IstioRuleSet): IstioRule | undefined => firstMatch(set, facts);
  const custom = allMatches(rules.custom, facts);
  // Providers in the order of their names, and of one provider the first rule.
  const providers = custom.map(({ provider }) => provider).sort();
  const asked = custom.find(({ provider }) => provider === providers[0]) ?? null;
  const answer = (allow: boolean, rule: IstioRule | undefined, because: IstioCause): IstioJudgement => ({
    allow,
    rule: rule ?? null,
    shadow: {
      allow: shadowOf(rules.trialAllow, first, 'allowed'),
      deny: shadowOf(rules.trialDeny, first, 'denied'),
    },
    asked,
    audited: allMatches(rules.audit, facts),
    because,
  });
  // A proxy answers such a path with 400 before it asks anybody.
  const isRefused = request.protocol === 'http' && request.path !== null && facts.path === null;
  if (isRefused) return answer(false, undefined, 'path_refused');
  if (rules.providers.size > 1 && custom.length > 0) return answer(false, custom[0], 'several_providers');
  const denied = first(rules.deny);
  if (denied !== undefined) return answer(false, denied, 'deny_rule');
  if (!rules.allow.isThere) return answer(true, undefined, 'no_allow_policy');
  const allowed = first(rules.allow);
  return answer(allowed !== undefined, allowed, allowed === undefined ? 'no_allow_rule' : 'allow_rule');
}

function* fileRules(rules: readonly IstioRule[] | undefined): Steps<IstioRuleSet> {
  const sorted = [...(rules ?? [])].sort(byId);
  const byCaller = new Map<string, IstioRule[]>();
  for (const [i, rule] of sorted.entries()) {
    if (i % rulesInStep === 0) yield;
    for (const name of new Set(rule.callers)) {
      const filed = byCaller.get(name);
      if (filed === undefined) byCaller.set(name, [rule]);
      else filed.push(rule);
    }
  }
  return {
    isThere: rules !== undefined,
    byCaller,
    others: sorted.filter(({ callers }) => callers === undefined),
  };
}

/** The lists that a matching rule can be in, each in the order of names. */
function listsFor(
  { byCaller, others }: IstioRuleSet,
  { request }: IstioFacts,
): readonly (readonly IstioRule[])[] {
  return [...request.peerNames.flatMap((name) => [byCaller.get(name) ?? []]), others];
}

function firstMatch(set: IstioRuleSet, facts: IstioFacts): IstioRule | undefined {
  let found: IstioRule | undefined;
  for (const list of listsFor(set, facts)) {
    const one = list.find(({ holds }) => holds(facts));
    if (one !== undefined && (found === undefined || one.id < found.id)) found = one;
  }
  return found;
}

/** The rules of a set that match, in the order of their names. */
export function allMatches(set: IstioRuleSet, facts: IstioFacts): readonly IstioRule[] {
  const found = listsFor(set, facts).flatMap((list) => list.filter(({ holds }) => holds(facts)));
  return [...new Set(found)].sort(byId);
}

/** Every way into the rule demands one of these names, or the whole of it does. */
function callersOf({ from, when }: IstioRuleText, mesh: IstioMesh): readonly string[] | undefined {
  const demanded = (conditions: readonly IstioCondition[]): readonly string[] | undefined => {
    for (const condition of conditions) {
      const names = demandedNames(condition, mesh);
      if (names !== undefined) return names;
    }
    return undefined;
  };
  const ofAll = demanded(when);
  if (ofAll !== undefined || from.length === 0) return ofAll;
  const all: string[] = [];
  for (const conditions of from) {
    const names = demanded(conditions);
    if (names === undefined) return undefined;
    all.push(...names);
  }
  return all;
}

/** Envoy keeps rules in the order of their names, by code units; no two have one. */
function byId(a: IstioRule, b: IstioRule): number {
  return a.id < b.id ? -1 : 1;
}

function shadowOf(
  set: IstioRuleSet,
  first: (set: IstioRuleSet) => IstioRule | undefined,
  whenMatched: 'allowed' | 'denied',
): ShadowVerdict['allow'] {
  if (!set.isThere) return null;
  const other = whenMatched === 'allowed' ? 'denied' : 'allowed';
  return first(set) === undefined ? other : whenMatched;
}

function compileRule(mesh: IstioMesh, policy: IstioPolicy, text: IstioRuleText, index: number): IstioRule {
  const { from, to, when } = text;
  const { namespace, name, action, provider } = policy;
  const scope = { mesh, namespace };
  const hasHttp = [...from.flat(), ...to.flat(), ...when].some(({ attribute }) => isHttpOnly(attribute));
  const compile = (conditions: readonly IstioCondition[]): readonly CompiledCondition[] =>
    conditions.map((condition) => ({
      test: compileCondition(condition, scope),
      isHttp: isHttpOnly(condition.attribute),
    }));
  const compiled = { from: from.map(compile), to: to.map(compile), when: compile(when) };
  return {
    id: ruleId(policy, index),
    name: `${namespace}/${name} rule[${index}]`,
    provider,
    callers: callersOf(text, mesh),
    holds: (facts) => {
      const isTcp = facts.request.protocol === 'tcp';
      // On a connection that is no HTTP an ALLOW rule about HTTP is dropped, and any other is widened by what it says of it.
      if (isTcp && action === 'ALLOW' && hasHttp) return false;
      const holds = ({ test, isHttp }: CompiledCondition): boolean => (isTcp && isHttp) || test(facts);
      const anyHolds = (entries: readonly (readonly CompiledCondition[])[]): boolean =>
        entries.length === 0 || entries.some((conditions) => conditions.every(holds));
      return anyHolds(compiled.from) && anyHolds(compiled.to) && compiled.when.every(holds);
    },
  };
}

type CompiledCondition = { readonly test: IstioTest; readonly isHttp: boolean };
