import { formatPlace, type Place, quote } from '../errors.ts';
import { kubernetesNames, SpiffeId } from '../spiffe/id.ts';
import type { Workload } from './attachment.ts';
import { denyDecision } from './decide.ts';
import type { AuthzRequest, Decision, DecisionReason } from './decision.ts';
import { gatewayGroup } from './document.ts';
import { Facts } from './facts.ts';
import { matchingRules, type RawCall } from './istio-mode.ts';
import { judgeCall } from './judge.ts';
import { type CompiledRule, compileRule, ruleHolds } from './match.ts';
import type { Policy } from './policy.ts';
import type { PolicyTest } from './policy-test.ts';
import { compileSnapshot, type Snapshot, type SnapshotInput } from './snapshot.ts';
import type { Steps } from './steps.ts';

/** What became of a test. Plain data, but for the place. */
export type TestOutcome = {
  /** `namespace/name` of the policy that has it. */
  readonly policy: string;
  readonly test: string;
  readonly place: Place;
  readonly passed: boolean;
  /** `allow`, or `deny by pay/p rule[0]`. */
  readonly want: string;
  readonly got: 'allow' | 'deny';
  readonly reason: DecisionReason;
  /** Empty when no rule decided. */
  readonly rule: string;
  /** Why it fell so; one sentence, lower case, no full stop. */
  readonly why: string;
  /** The SPIFFE ID that was called; of several the first for which it failed. */
  readonly destination: string;
};

/** How many tests a rule matched, of those whose calls its policy applies to, and how many not. */
export type RuleCoverage = {
  /** `namespace/name rule[0]`. */
  readonly rule: string;
  /** `file:line:column`. */
  readonly place: string;
  readonly matched: number;
  readonly notMatched: number;
};

/** What tests are run against: all policies, and who is registered. */
export type TestGround = Pick<SnapshotInput, 'trustDomain' | 'rootNamespace' | 'policies' | 'workloads'> & {
  /** Of the same policies and workloads. */
  readonly snapshot: Snapshot;
};

/**
 * Runs the tests of some policies against all. A test that names no destination is run for each registered identity that its
 * policy applies to, {@link maxDestinations} at most; when there is none, for a workload made up of what the policy selects.
 * Break-glass grants count in their own tests alone: those of all others say what holds in ordinary times.
 * @param covered the policies whose rules are counted
 */
export function* runTests(
  ground: TestGround,
  tested: readonly Policy[],
  now: Date,
  covered: readonly Policy[] = [],
): Steps<{ readonly outcomes: readonly TestOutcome[]; readonly coverage: readonly RuleCoverage[] }> {
  const counts = covered.map((policy): Counted => ({
    policy,
    rules: policy.rules.map((rule, i) => newCount(policy, rule, i)),
  }));
  const targets = yield* findTargets(ground, tested);
  const all = targets.made.length === 0 ? ground.snapshot : withWorkloads(ground, targets.made);
  const standing = withoutGrants(ground, all, targets.made);
  const outcomes: TestOutcome[] = [];
  for (const policy of tested) {
    const snapshot = policy.terms.breakGlass === null ? standing : all;
    for (const test of policy.tests) {
      const destinations =
        test.call.destination === null ? (targets.of.get(policy) ?? []) : [test.call.destination];
      outcomes.push(yield* runTest({ ground, snapshot, policy, test, now, counts }, destinations));
    }
  }
  const coverage = counts.flatMap(({ rules }) =>
    rules.map(({ compiled: { rule }, matched, notMatched }) => ({
      rule: rule.name,
      place: formatPlace(rule.place),
      matched,
      notMatched,
    })),
  );
  return { outcomes, coverage };
}

/** One line about a test that failed: lower case, no full stop. */
export function describeFailure({ policy, test, want, got, reason, why, destination }: TestOutcome): string {
  return `the test ${quote(test)} of ${policy} wants ${want}, and gets ${got} (${reason}) at ${destination}: ${why}`;
}

type Count = { readonly compiled: CompiledRule; matched: number; notMatched: number };
type Counted = { readonly policy: Policy; readonly rules: readonly Count[] };

function newCount(policy: Policy, rule: Policy['rules'][number], index: number): Count {
  return { compiled: compileRule(policy, rule, index), matched: 0, notMatched: 0 };
}

type Run = {
  readonly ground: TestGround;
  readonly snapshot: Snapshot;
  readonly policy: Policy;
  readonly test: PolicyTest;
  readonly now: Date;
  readonly counts: readonly Counted[];
};

function* runTest(run: Run, destinations: readonly SpiffeId[]): Steps<TestOutcome> {
  const { ground, policy, test } = run;
  const { source, destination: named } = test.call;
  let outcome: TestOutcome | undefined;
  if (named !== null && !isOwn(ground, policy, named)) {
    const why = `a policy of the namespace ${policy.namespace} tests calls to its own workloads only`;
    return outcomeOf(run, named.text, denyDecision('no_policy', why, 0), false);
  }
  for (const destination of destinations) {
    yield* run.snapshot.ready(destination);
    yield;
    const call: RawCall = { ...test.call, destination };
    const at = momentOf(run);
    const { decision, request } = judgeCall(run.snapshot, call, at);
    if (request !== undefined) countRules(run, call, request, at);
    const next = outcomeOf(run, destination.text, decision, meets(test, decision));
    // The first that fails is told, and the others are counted still.
    if (outcome === undefined || (outcome.passed && !next.passed)) outcome = next;
  }
  if (outcome !== undefined) return outcome;
  const why = `policies of the root namespace apply to every namespace: say with to which workload ${source.text} calls`;
  return outcomeOf(run, '', denyDecision('no_policy', why, 0), false);
}

/** A test of somebody else's workloads would be a veto on their policies. */
function isOwn({ rootNamespace, workloads, trustDomain }: TestGround, policy: Policy, id: SpiffeId): boolean {
  if (policy.namespace === rootNamespace) return true;
  if (!id.memberOf(trustDomain)) return false;
  const namespace = kubernetesNames(id)?.namespace;
  if (namespace !== undefined) return namespace === policy.namespace;
  const labelled = namespacesByLabel(workloads).get(id.text);
  return labelled?.size === 1 && labelled.has(policy.namespace);
}

/** Of identities whose ID names none: the namespaces of their registrations. */
function namespacesByLabel(
  workloads: readonly Workload[],
): ReadonlyMap<string, ReadonlySet<string | undefined>> {
  const known = labelled.get(workloads);
  if (known !== undefined) return known;
  const found = new Map<string, Set<string | undefined>>();
  for (const workload of workloads) {
    const { text } = workload.id;
    if (kubernetesNames(workload.id) !== undefined) continue;
    found.set(text, (found.get(text) ?? new Set()).add(namespaceOf(workload)));
  }
  labelled.set(workloads, found);
  return found;
}

const labelled = new WeakMap<readonly Workload[], ReadonlyMap<string, ReadonlySet<string | undefined>>>();

/** The tests of a policy that ends go on to pass once it has: they speak of the time in which it is in force. */
function momentOf({ policy, test, now }: Run): Date {
  const { notBefore, expiresAt } = policy.terms;
  if (test.call.at !== null) return test.call.at;
  if (notBefore !== null && now < notBefore) return notBefore;
  return expiresAt !== null && now >= expiresAt ? new Date(expiresAt.getTime() - 1) : now;
}

function meets({ want, rule, reason }: PolicyTest, decision: Decision): boolean {
  return (
    decision.verdict === want &&
    (rule === null || decision.rule === rule) &&
    (reason === null || decision.reason === reason)
  );
}

function outcomeOf(
  { policy, test }: Run,
  destination: string,
  { verdict, reason, rule, why }: Decision,
  passed: boolean,
): TestOutcome {
  const want = [
    test.want,
    ...(test.rule === null ? [] : [`by ${test.rule}`]),
    ...(test.reason === null ? [] : [`for ${test.reason}`]),
  ].join(' ');
  const { key } = policy;
  return {
    policy: key,
    test: test.name,
    place: test.place,
    passed,
    want,
    got: verdict,
    reason,
    rule,
    why,
    destination,
  };
}

function countRules({ snapshot, counts }: Run, call: RawCall, request: AuthzRequest, at: Date): void {
  if (counts.length === 0) return;
  const { applied, holds } = readingOf(snapshot, call, request, at);
  for (const { policy, rules } of counts) {
    if (!applied.has(policy)) continue;
    for (const count of rules) {
      if (holds(count.compiled)) count.matched += 1;
      else count.notMatched += 1;
    }
  }
}

/** Which policies apply to a call and which of their rules match it, as the mode of the mesh has it. */
function readingOf(snapshot: Snapshot, call: RawCall, request: AuthzRequest, at: Date) {
  const { mode, istio, trustDomain } = snapshot;
  const { destination } = call;
  if (mode === 'strict') {
    const facts = new Facts(request, trustDomain, at);
    const holds = (compiled: CompiledRule): boolean => ruleHolds(compiled, facts);
    return { applied: new Set(snapshot.appliedTo(destination).policies), holds };
  }
  const matching = new Set(istio.rulesFor(destination).flatMap((rules) => matchingRules(rules, call, at)));
  const holds = ({ rule }: CompiledRule): boolean => matching.has(rule.name);
  return { applied: new Set(istio.policiesFor(destination)), holds };
}

type Targets = {
  readonly of: ReadonlyMap<Policy, readonly SpiffeId[]>;
  /** Workloads that nobody has registered. */
  readonly made: readonly Workload[];
};

function* findTargets(ground: TestGround, tested: readonly Policy[]): Steps<Targets> {
  const of = new Map<Policy, readonly SpiffeId[]>();
  const made: Workload[] = [];
  const open = tested.filter(({ tests }) => tests.some(({ call }) => call.destination === null));
  if (open.length === 0) return { of, made };
  const byNamespace = new Map<string, Workload[]>();
  for (const [i, workload] of ground.workloads.entries()) {
    if (i % workloadsInStep === 0) yield;
    const namespace = namespaceOf(workload);
    if (namespace === undefined) continue;
    const group = byNamespace.get(namespace) ?? [];
    byNamespace.set(namespace, group);
    group.push(workload);
  }
  for (const policy of open) {
    yield;
    if (policy.namespace === ground.rootNamespace) continue;
    const found = targetsOf(policy, byNamespace.get(policy.namespace) ?? []);
    if (found.length > 0) {
      of.set(policy, found);
      continue;
    }
    const id = SpiffeId.parse(
      `spiffe://${ground.trustDomain.name}/ns/${policy.namespace}/sa/${policy.name}.countersign-test`,
    );
    made.push({ id, labels: labelsOf(policy) });
    of.set(policy, [id]);
  }
  return { of, made };
}

function targetsOf(policy: Policy, workloads: readonly Workload[]): readonly SpiffeId[] {
  const wanted = Object.entries(labelsOf(policy));
  const byId = new Map<string, { readonly id: SpiffeId; readonly selected: boolean[] }>();
  for (const { id, labels } of workloads) {
    const group = byId.get(id.text) ?? { id, selected: [] };
    byId.set(id.text, group);
    group.selected.push(
      wanted.every(([name, value]) => Object.hasOwn(labels, name) && labels[name] === value),
    );
  }
  // As policies are attached: an ALLOW to an identity all of whose registrations it selects, any other to one of which it does.
  return [...byId.values()]
    .filter(({ selected }) =>
      policy.action === 'ALLOW' ? !selected.includes(false) : selected.includes(true),
    )
    .map(({ id }) => id)
    .sort((a, b) => (a.text < b.text ? -1 : 1))
    .slice(0, maxDestinations);
}

/** The labels by which a policy finds its workloads; of several Gateways the first. */
function labelsOf({ selector, targetRefs: [target] }: Policy): Workload['labels'] {
  return Object.fromEntries(
    target === undefined ? selector : [[`${gatewayGroup}/gateway-name`, target.name] as const],
  );
}

function namespaceOf({ id, labels }: Workload): string | undefined {
  return (
    kubernetesNames(id)?.namespace ?? (Object.hasOwn(labels, 'namespace') ? labels['namespace'] : undefined)
  );
}

function withWorkloads({ snapshot, ...input }: TestGround, made: readonly Workload[]): Snapshot {
  const workloads = [...input.workloads, ...made];
  return compileSnapshot({
    ...input,
    workloads,
    mode: snapshot.mode,
    revision: snapshot.revision,
    previous: snapshot,
  });
}

function withoutGrants(ground: TestGround, all: Snapshot, made: readonly Workload[]): Snapshot {
  const policies = ground.policies.filter(({ terms }) => terms.breakGlass === null);
  return policies.length === ground.policies.length ? all : withWorkloads({ ...ground, policies }, made);
}

/** For how many identities a test is run that names none. */
const maxDestinations = 16;
const workloadsInStep = 512;
