import { beforeEach, expect, test } from 'vitest';
import type { Actor, AuditEvent } from '../../src/audit/event.ts';
import { type Administration, createAdministration } from '../../src/identity/administration.ts';
import { compileStoredMesh, createMeshHolder } from '../../src/identity/current-mesh.ts';
import type { PolicyDocument } from '../../src/identity/mesh.ts';
import type { PolicyRevisionRecord } from '../../src/identity/policy-revision.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { makePolicySigner } from '../harness/policy-signer.ts';

const settings = {
  trustDomain: TrustDomain.parse('mesh.test'),
  rootNamespace: 'istio-system',
  ttlSeconds: 3_600,
};
const admin: Actor = { kind: 'uid', uid: 0, role: 'admin' };

let mesh: Administration;
let events: AuditEvent[];
/** Whether each step takes half a minute. */
let isSlow: boolean;

beforeEach(() => {
  events = [];
  isSlow = false;
  const clock = manualClock();
  const records = new Map<number, PolicyRevisionRecord>();
  const sets = new Map<number, readonly PolicyDocument[]>();
  const empty = { revision: 0, entries: new Map(), policies: new Map(), bans: new Map() };
  const holder = createMeshHolder(compileStoredMesh(empty, settings));
  holder.onChange(() => {
    const { policies, policyRevision } = holder.current().mesh;
    if (policyRevision !== undefined) sets.set(policyRevision.number, [...policies.values()]);
  });
  mesh = createAdministration({
    holder,
    settings,
    commit: async ({ policyRevision, events: made }) => {
      events.push(...made);
      if (policyRevision !== undefined) records.set(policyRevision.record.number, policyRevision.record);
    },
    signer: makePolicySigner(),
    history: {
      revision: async (number) => records.get(number) ?? null,
      past: async (number) => ({
        documents: sets.get(number) ?? [],
        newer: [...holder.current().mesh.policies.keys()],
      }),
    },
    latestExpiry: async () => null,
    latestExpiries: async () => [],
    clock,
    breathe: () => {
      if (!isSlow) return undefined;
      clock.jump(30_000);
      return Promise.resolve();
    },
  });
});

const policy = (key: string, ...spec: readonly string[]): string => {
  const [namespace, name] = key.split('/');
  return [
    'apiVersion: security.istio.io/v1',
    'kind: AuthorizationPolicy',
    `metadata: { name: ${name}, namespace: ${namespace} }`,
    ...(spec.length === 0 ? ['spec: {}'] : ['spec:', ...spec.map((line) => `  ${line}`)]),
    '',
  ].join('\n');
};
const expects = (want: 'allow' | 'deny') =>
  `tests: [{ name: web, ${want}: { from: mesh.test/ns/web/sa/web, method: GET, path: / } }]`;
const all = 'rules: [{}]';
const way = { message: '', dryRun: false };
/** Of the root namespace, which has to name the workload. */
const guarding = (want: 'allow' | 'deny', namespace: string) =>
  expects(want).replace('path', `to: mesh.test/ns/${namespace}/sa/db, path`);
const entry = `apiVersion: countersign.dev/v1
kind: RegistrationEntry
metadata: { name: two, labels: { app: two } }
spec: { spiffeId: spiffe://mesh.test/ns/shop/sa/two, selectors: [unix:uid:1] }
`;

const apply = (texts: readonly string[], dryRun = false) =>
  mesh.apply([{ file: 'p.yaml', text: texts.join('---\n') }], admin, { dryRun });
const refused = (message: string) =>
  expect.objectContaining({
    code: 'policy_test_failed',
    message: expect.stringContaining(message) as string,
  }) as Error;

test('a failing test blocks what it is saved with, dry run or not, and says what it wants and gets', async () => {
  for (const dryRun of [true, false]) {
    await expect(apply([policy('shop/a', all, expects('deny'))], dryRun)).rejects.toMatchObject({
      code: 'policy_test_failed',
      message:
        'the test "web" of shop/a wants deny, and gets allow (allow_rule) at spiffe://mesh.test/ns/shop/sa/a.countersign-test: allowed by shop/a rule[0]',
      place: { file: 'p.yaml', line: 6, column: 11 },
    });
  }
  expect(mesh.current().policies.size).toBe(0);
});

test('policies of one save are tested together', async () => {
  const deny = policy('shop/b', 'action: DENY', all);
  await apply([policy('shop/a', all, expects('deny')), deny]);
  expect(mesh.current().policies.size).toBe(2);
});

test('a test that passed blocks what would turn it, whoever saves that', async () => {
  await apply([policy('shop/a', all, expects('allow'))]);
  await expect(apply([policy('shop/b', 'action: DENY', all)])).rejects.toThrow(refused('shop/a wants allow'));
  // Another namespace is none of its business.
  await apply([policy('pay/b', 'action: DENY', all)]);
});

test('a rule for the whole mesh is barred by the tests of the root namespace alone, and the others are told', async () => {
  await apply([policy('shop/a', all, expects('allow'))]);
  const { warnings } = await apply([policy('istio-system/b', 'action: DENY', all)]);
  expect(warnings).toEqual([expect.stringContaining('shop/a wants allow, and gets deny')]);
  await mesh.deletePolicy('istio-system/b', admin);
  await apply([policy('istio-system/guard', 'action: AUDIT', all, guarding('allow', 'shop'))]);
  const own = apply([policy('istio-system/b', 'action: DENY', all)]);
  await expect(own).rejects.toThrow(refused('istio-system/guard'));
  // Saved with the namespace that has the test, it stands in the way.
  await mesh.deletePolicy('istio-system/guard', admin);
  const both = apply([policy('istio-system/b', 'action: DENY', all), policy('shop/c', all)]);
  await expect(both).rejects.toThrow(refused('shop/a wants allow'));
});

test('a policy that the test of another relies on is not deleted', async () => {
  await apply([policy('shop/a', all), policy('shop/b', expects('allow'))]);
  await expect(mesh.deletePolicy('shop/a', admin)).rejects.toThrow(refused('no ALLOW rule'));
  await mesh.deletePolicy('shop/b', admin);
  await mesh.deletePolicy('shop/a', admin);
});

test('a test of the root namespace guards the others', async () => {
  await apply([policy('istio-system/guard', 'action: AUDIT', all, guarding('deny', 'pay'))]);
  await expect(apply([policy('pay/open', all)])).rejects.toThrow(refused('istio-system/guard'));
});

test('what had failed already keeps nobody from work, and is told', async () => {
  await apply([policy('shop/a', all, expects('allow'))]);
  await apply([policy('shop/b', 'action: DENY', 'selector: { matchLabels: { app: two } }', all)]);
  // The registration makes the test fail, and no policy.
  await apply([entry]);
  const { warnings } = await apply([policy('shop/c', all)]);
  expect(warnings).toEqual([expect.stringContaining('the test "web" of shop/a wants allow, and gets deny')]);
  await expect(apply([policy('shop/a', all, expects('allow'), 'owner: me')])).rejects.toThrow(
    refused('sa/two'),
  );
});

test('a way back to policies whose tests fail by now is open, and says so', async () => {
  await apply([policy('shop/a', all, expects('allow'))]);
  await apply([policy('shop/b', 'action: DENY', 'selector: { matchLabels: { app: two } }', all)]);
  await mesh.deletePolicy('shop/a', admin);
  await apply([entry]);
  const { warnings } = await mesh.activatePolicies(2, admin, way);
  expect(warnings).toEqual([expect.stringContaining('the test "web" of shop/a wants allow, and gets deny')]);
});

test('tests that take too long bar a save, and no way back', async () => {
  await apply([policy('shop/a', all, expects('allow'))]);
  await apply([policy('shop/a', expects('deny'))]);
  isSlow = true;
  await expect(apply([policy('shop/b', all)])).rejects.toThrow(refused('longer than 30 s'));
  const { warnings } = await mesh.activatePolicies(1, admin, way);
  expect(warnings).toEqual(['the tests took longer than 30 s, and were left']);
});

test('a break-glass grant that comes back by the way back is told', async () => {
  const terms = ['expiresAt: 2026-01-01T12:00:00Z', 'ticket: a', 'breakGlass: { reason: b }'];
  await apply([policy('shop/a', all, ...terms)]);
  await mesh.deletePolicy('shop/a', admin);
  const { warnings } = await mesh.activatePolicies('previous', admin, way);
  expect(warnings).toEqual(['shop/a is a break-glass grant: b (a), until 2026-01-01T12:00:00.000Z']);
});

test('a report changes nothing', async () => {
  const text = policy('shop/a', all, expects('deny'));
  const { outcomes, coverage } = await mesh.testPolicies([{ file: 'p.yaml', text }]);
  expect(outcomes).toMatchObject([{ policy: 'shop/a', test: 'web', passed: false, place: 'p.yaml:6:11' }]);
  expect(coverage).toMatchObject([{ rule: 'shop/a rule[0]', matched: 1, notMatched: 0 }]);
  expect(mesh.current().policies.size).toBe(0);
});

// The clock of these tests stands at the first of January 2026.
test.each([
  ['a day and a millisecond', '2026-01-02T00:00:00.001Z', false],
  ['a day', '2026-01-02T00:00:00Z', true],
  ['one that is over', '2025-12-31T00:00:00Z', true],
])('a break-glass grant lasts for a day at most, and is on record: %s', async (_name, expiresAt, saved) => {
  const text = policy(
    'shop/a',
    all,
    `expiresAt: ${expiresAt}`,
    'ticket: INC-7',
    'breakGlass: { reason: fire }',
  );
  const saving = apply([text]);
  if (!saved) {
    await expect(saving).rejects.toMatchObject({
      code: 'policy_invalid',
      place: { file: 'p.yaml', line: 6, column: 14 },
    });
    expect(events).toEqual([]);
    return;
  }
  expect((await saving).warnings).toHaveLength(1);
  expect(events[0]).toMatchObject({
    type: 'policy_change',
    breakGlass: `fire (INC-7), until ${new Date(expiresAt).toISOString()}`,
  });
});

test('a grant does not turn the tests of other policies', async () => {
  await apply([policy('shop/no', 'action: DENY', 'liftable: true', all, expects('deny'))]);
  await apply([
    policy(
      'shop/a',
      all,
      'expiresAt: 2026-01-01T12:00:00Z',
      'ticket: a',
      'breakGlass: { reason: b }',
      expects('allow'),
    ),
  ]);
});
