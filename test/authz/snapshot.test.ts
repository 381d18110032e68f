import { describe, expect, test } from 'vitest';
import { decide } from '../../src/authz/decide.ts';
import { canReach } from '../../src/authz/reach.ts';
import { compileSnapshot, type Snapshot, type SnapshotInput } from '../../src/authz/snapshot.ts';
import { finish, rulesInStep, type Steps } from '../../src/authz/steps.ts';
import { MeshError } from '../../src/errors.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { call, ledger, meshOf, noon, policyText, readPolicies, web } from './mesh.ts';

const many = Array.from({ length: 20 }, (_, i) => `{ to: [{ operation: { paths: [/p${i}] } }] }`).join(', ');
/** Rules enough for an index, so that making one takes steps. */
const wide = readPolicies(policyText(`rules: [${many}]`, 'wide'));
const inPay = (name: string) => SpiffeId.parse(`spiffe://example.org/ns/pay/sa/${name}`);

/** How much work there was: none is none. */
function stepsOf(steps: Steps<unknown>): number {
  let taken = 0;
  while (steps.next().done !== true) taken += 1;
  return taken;
}

function refusalOf(act: () => unknown): MeshError | undefined {
  try {
    act();
  } catch (error) {
    if (error instanceof MeshError) return error;
  }
  return undefined;
}

describe('what is refused', () => {
  test('two policies of one key, with the place of the second', () => {
    const text = [policyText('{}', 'a'), policyText('{}', 'b'), policyText('{}', 'a')].join('---\n');
    const list = readPolicies(text);
    expect(refusalOf(() => compileSnapshot(meshOf(list)))).toMatchObject({
      ...{ code: 'policy_invalid', message: 'there are two policies "pay/a"' },
      ...{ place: list[2]?.place, fix: 'rename one of them' },
    });
  });

  test('strict answers in Istio mode', () => {
    const snapshot = compileSnapshot({ ...meshOf(wide), mode: 'istio' });
    const refusal = {
      code: 'policy_mode_inexact',
      fix: 'ask about one call with countersign authz check',
    };
    expect(refusalOf(() => snapshot.appliedTo(ledger))).toMatchObject(refusal);
    expect(refusalOf(() => finish(snapshot.rulesFor(ledger)))).toMatchObject(refusal);
  });
});

// A set of policies is known by its names: whatever else of it is the same, one text that changed makes it another.
test.each([
  ['the first', 0],
  ['the last', 1],
])('an edit of %s of two policies holds at once', (_, edited) => {
  const kept = readPolicies(policyText('rules: []', edited === 0 ? 'b' : 'a'));
  const name = edited === 0 ? 'a' : 'b';
  const previous = compileSnapshot(meshOf([...kept, ...readPolicies(policyText('rules: [{}]', name))]));
  expect(decide(previous, call(), noon).verdict).toBe('allow');
  const edit = readPolicies(policyText('action: DENY\nrules: [{}]', name));
  const next = compileSnapshot({ ...meshOf([...kept, ...edit]), previous });
  expect(decide(next, call(), noon)).toMatchObject({ verdict: 'deny', reason: 'deny_rule' });
});

test('a policy that only marks calls leaves it to the others what a destination may be asked', () => {
  const audit = policyText('action: AUDIT\nrules: [{}]', 'audit');
  const governed = compileSnapshot(
    meshOf([...readPolicies(audit), ...readPolicies(policyText('rules: [{}]'))]),
  );
  const ungoverned = compileSnapshot(meshOf(readPolicies(audit)));
  const reachIn = (snapshot: Snapshot) => finish(canReach(snapshot, web, {}, [ledger], noon));
  expect(reachIn(governed)).toMatchObject([{ reach: 'always' }]);
  expect(reachIn(ungoverned)).toMatchObject([{ reach: 'never' }]);
});

describe('what is worked out beforehand', () => {
  test('is what a call, a denial and a question about all destinations ask for', () => {
    const snapshot = compileSnapshot(meshOf(wide));
    expect(stepsOf(snapshot.ready(ledger))).toBeGreaterThan(0);
    expect(stepsOf(snapshot.ready(ledger))).toBe(0);
    expect(stepsOf(snapshot.rulesFor(ledger))).toBe(0);
    expect(stepsOf(snapshot.appliedTo(ledger).prepareNear())).toBe(0);
  });

  test('is what Istio makes of it in that mode', () => {
    const snapshot = compileSnapshot({ ...meshOf(wide), mode: 'istio' });
    expect(stepsOf(snapshot.ready(ledger))).toBeGreaterThan(0);
    expect(stepsOf(snapshot.istio.ready(ledger))).toBe(0);
    const next = compileSnapshot({ ...meshOf(wide), mode: 'istio', previous: snapshot });
    finish(next.prepare(snapshot));
    expect(stepsOf(next.istio.ready(ledger))).toBe(0);
  });

  test('is kept for each destination', () => {
    const snapshot = compileSnapshot(meshOf(wide));
    const ids = ['a', 'b', 'c'].map(inPay);
    for (const id of ids) finish(snapshot.ready(id));
    expect(ids.map((id) => stepsOf(snapshot.ready(id)))).toEqual([0, 0, 0]);
  });

  test('is forgotten at a hundred thousand of them: names that nobody registered do not fill the memory', () => {
    const snapshot = compileSnapshot(meshOf([]));
    const ids = Array.from({ length: 100_001 }, (_, i) => SpiffeId.parse(`spiffe://other.org/${i}`));
    for (const id of ids) snapshot.appliedTo(id);
    const [first = ledger, last = ledger] = [ids[0], ids.at(-1)];
    expect(stepsOf(snapshot.ready(last))).toBe(0);
    expect(stepsOf(snapshot.ready(first))).toBeGreaterThan(0);
  });

  test('shares the rules of a policy that applies to many', () => {
    const own = policyText('selector: { matchLabels: { app: a } }\nrules: [{}]', 'own');
    const workloads = [{ id: inPay('a'), labels: { app: 'a' } }];
    const snapshot = compileSnapshot(meshOf([...wide, ...readPolicies(own)], workloads));
    const [a, b] = [inPay('a'), inPay('b')].map((id) => snapshot.appliedTo(id).allowRules);
    expect([a?.length, b?.length]).toEqual([21, 20]);
    expect(b?.every((rule) => a?.includes(rule))).toBe(true);
  });

  test('comes in steps between which calls are judged', () => {
    const list = Array.from({ length: 80 }, (_, i) => readPolicies(policyText('rules: [{}]', `p${i}`)));
    const steps = stepsOf(compileSnapshot(meshOf(list.flat())).rulesFor(ledger));
    expect(steps).toBeGreaterThanOrEqual(list.length / rulesInStep);
  });
});

describe('edits', () => {
  /** Made after an edit that leaves the policies of all destinations as they were, unless it says otherwise. */
  const edit = (previous: Snapshot, more: Partial<SnapshotInput> = {}): Snapshot => {
    const next = compileSnapshot({ ...meshOf(wide), previous, ...more });
    finish(next.prepare(previous));
    return next;
  };
  const afterEdits = (count: number, from: Snapshot): Snapshot =>
    Array.from({ length: count }).reduce<Snapshot>((snapshot) => edit(snapshot), from);

  test('leave nothing to do for the first call to a destination in use', () => {
    const first = compileSnapshot(meshOf(wide));
    first.appliedTo(ledger);
    const changed = readPolicies(policyText('rules: [{}]', 'more'));
    const next = edit(first, { policies: [...wide, ...changed] });
    expect(stepsOf(next.ready(ledger))).toBe(0);
    expect(decide(next, call(), noon)).toMatchObject({ rule: 'pay/more rule[0]' });
  });

  test('do over nothing that a call needed meanwhile', () => {
    const first = compileSnapshot(meshOf(wide));
    first.appliedTo(ledger);
    const next = compileSnapshot(meshOf(wide));
    finish(next.ready(ledger));
    // One for the destination that is passed over.
    expect(stepsOf(next.prepare(first))).toBeLessThanOrEqual(1);
  });

  test('outlive a destination that is not called between a few of them, and forget it after many', () => {
    const first = compileSnapshot(meshOf(wide));
    first.appliedTo(ledger);
    expect(stepsOf(afterEdits(8, first).ready(ledger))).toBe(0);
    expect(stepsOf(afterEdits(32, first).ready(ledger))).toBeGreaterThan(0);
    const calledOnce = afterEdits(12, first);
    calledOnce.appliedTo(ledger);
    expect(stepsOf(afterEdits(12, calledOnce).ready(ledger))).toBe(0);
  });

  test('mind no destination that nobody calls', () => {
    const first = compileSnapshot(meshOf(wide));
    expect(stepsOf(edit(first).prepare(first))).toBe(0);
  });
});

test.each([
  ['many policies of one rule', 64, 1],
  ['few policies of many rules', 2, 160],
])('the rules of %s are made ready in small steps', (_, policies, rulesOfEach) => {
  const rules = Array.from({ length: rulesOfEach }, () => '{}').join(', ');
  const texts = Array.from({ length: policies }, (_one, i) => policyText(`rules: [${rules}]`, `p${i}`));
  const snapshot = compileSnapshot(meshOf(readPolicies(texts.join('---\n'))));
  const taken = stepsOf(snapshot.rulesFor(ledger));
  expect(taken).toBeGreaterThanOrEqual((policies * rulesOfEach) / rulesInStep);
  expect(taken).toBeLessThanOrEqual((policies * rulesOfEach) / rulesInStep + 8);
});
