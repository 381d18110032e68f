import type { Policy } from '../authz/policy.ts';
import {
  describeFailure,
  type RuleCoverage,
  runTests,
  type TestGround,
  type TestOutcome,
} from '../authz/run-tests.ts';
import type { Steps } from '../authz/steps.ts';
import { formatPlace, MeshError } from '../errors.ts';
import type { CurrentMesh, MeshSettings } from './current-mesh.ts';
import type { MeshPlan } from './plan.ts';
import { policyNamespace } from './policy-revision.ts';

/** The tests of some policies, and what of their rules they show. */
export type TestReport = {
  readonly outcomes: readonly (Omit<TestOutcome, 'place'> & { readonly place: string })[];
  readonly coverage: readonly RuleCoverage[];
};

/**
 * Runs the tests that a change of policies can turn: those of the namespaces that it touches and of the root namespace, as
 * no other policies bind the workloads that they speak of. A test that fails stands in the way of the change when it is
 * saved with it, or passed before it: what had failed already, for whatever reason, is no reason to keep others from work. When
 * only the root namespace changes, tests of the others are told and bar nothing: a rule for the whole mesh may be urgent.
 * @param warnOnly for a way back, which must not be barred
 * @returns what fails and does not stand in the way; lower case, no full stop
 * @throws MeshError `policy_test_failed`
 */
export function* demandTests(
  before: CurrentMesh,
  next: CurrentMesh,
  plan: MeshPlan,
  settings: MeshSettings,
  now: Date,
  warnOnly: boolean,
): Steps<readonly string[]> {
  const put = new Set(plan.putPolicies.map(({ document }) => document.key));
  const touched = new Set([...put, ...plan.deletePolicies].map(policyNamespace));
  if (touched.size === 0) return [];
  const { rootNamespace } = settings;
  const all = touched.has(rootNamespace);
  const tested = [...next.policies.values()].filter(
    ({ tests, namespace }) =>
      tests.length > 0 && (all || namespace === rootNamespace || touched.has(namespace)),
  );
  if (tested.length === 0) return [];
  demandCount(next.policies);
  const { outcomes } = yield* runTests(groundOf(next, settings), tested, now);
  const failed = outcomes.filter(({ passed }) => !passed);
  if (failed.length === 0) return [];
  // INVARIANT: nobody's tests bar a rule for the whole mesh, but those of the root namespace.
  const barring = failed.filter(({ policy }) => {
    const namespace = policyNamespace(policy);
    return namespace === rootNamespace || touched.has(namespace);
  });
  const inTheWay = warnOnly ? [] : yield* findNew(before, barring, put, settings, now);
  const [first] = inTheWay;
  if (first !== undefined) refuse(first, inTheWay.length - 1);
  const shown = failed.slice(0, maxWarnings).map(describeFailure);
  return failed.length > shown.length ? [...shown, `${failed.length - shown.length} more tests fail`] : shown;
}

/** The tests of the policies of a plan, as they would be after it, and what they show of the rules. Nothing is changed. */
export function* reportTests(
  next: CurrentMesh,
  keys: readonly string[],
  settings: MeshSettings,
  now: Date,
): Steps<TestReport> {
  const tested = keys.flatMap((key) => next.policies.get(key) ?? []);
  const { outcomes, coverage } = yield* runTests(groundOf(next, settings), tested, now, tested);
  return {
    outcomes: outcomes.map(({ place, ...outcome }) => ({ ...outcome, place: formatPlace(place) })),
    coverage,
  };
}

function* findNew(
  before: CurrentMesh,
  failed: readonly TestOutcome[],
  put: ReadonlySet<string>,
  settings: MeshSettings,
  now: Date,
): Steps<readonly TestOutcome[]> {
  const others = new Set(failed.filter(({ policy }) => !put.has(policy)).map(({ policy }) => policy));
  const tested = [...others].flatMap((key) => before.policies.get(key) ?? []);
  const { outcomes } = yield* runTests(groundOf(before, settings), tested, now);
  const passed = new Set(outcomes.filter((one) => one.passed).map(nameOf));
  return failed.filter((one) => put.has(one.policy) || passed.has(nameOf(one)));
}

/** Where a test stands is its name: two may be called the same. */
function nameOf({ policy, place }: TestOutcome): string {
  return `${policy} ${place.line}:${place.column}`;
}

function groundOf({ mesh, policies, snapshot }: CurrentMesh, settings: MeshSettings): TestGround {
  const { trustDomain, rootNamespace } = settings;
  const workloads = [...mesh.entries.values()].map(({ spiffeId, labels }) => ({ id: spiffeId, labels }));
  return { trustDomain, rootNamespace, policies: [...policies.values()], workloads, snapshot };
}

function demandCount(policies: ReadonlyMap<string, Policy>): void {
  let count = 0;
  for (const { tests } of policies.values()) count += tests.length;
  if (count <= maxTestsInAll) return;
  throw new MeshError('document_too_large', `a mesh holds at most ${maxTestsInAll} tests of policies`, {
    fix: 'remove some first',
  });
}

function refuse(first: TestOutcome, more: number): never {
  const others = more === 0 ? '' : `; and ${more} more`;
  throw new MeshError('policy_test_failed', `${describeFailure(first)}${others}`, {
    place: first.place,
    fix: 'correct the rules or the test; countersign policy test -f FILE --in-force shows all of them',
  });
}

// Beyond this a change takes longer than people wait.
const maxTestsInAll = 10_000;
const maxWarnings = 8;
