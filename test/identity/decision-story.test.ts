import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Actor } from '../../src/audit/event.ts';
import { type LoggedDecision, readLoggedDecision } from '../../src/audit/logged-decision.ts';
import { judgeCall } from '../../src/authz/judge.ts';
import type { PolicyMode } from '../../src/authz/policy-mode.ts';
import { type Administration, createAdministration } from '../../src/identity/administration.ts';
import { compileStoredMesh, createMeshHolder, type MeshHolder } from '../../src/identity/current-mesh.ts';
import { lookBack } from '../../src/identity/decision-past.ts';
import type { DecisionStory } from '../../src/identity/decision-story.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { decisionPorts } from '../../src/up-decisions.ts';
import { decision } from '../audit/events.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { makePolicySigner } from '../harness/policy-signer.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const admin: Actor = { kind: 'uid', uid: 0, role: 'admin' };
const web = SpiffeId.parse('spiffe://mesh.test/ns/shop/sa/web');
const orders = SpiffeId.parse('spiffe://mesh.test/ns/shop/sa/orders');
const signer = makePolicySigner();
const clock = manualClock();

let directory: string;
let store: Store;
let holder: MeshHolder;
let mesh: Administration;
let tell: (record: LoggedDecision) => Promise<DecisionStory>;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'cs-story-'));
  store = await openStore({ dataDir: join(directory, 'data'), clock, randomBytes: (n) => randomBytes(n) });
});
afterEach(async () => {
  await store.close();
  rmSync(directory, { recursive: true, force: true });
});

/** Goes on in a mode, as after a start. */
async function startIn(policyMode: PolicyMode): Promise<void> {
  const settings = { trustDomain, rootNamespace: 'istio-system', ttlSeconds: 3_600, policyMode };
  holder = createMeshHolder(compileStoredMesh(await store.loadMesh(), settings));
  mesh = createAdministration({
    ...{ holder, settings, signer, clock },
    commit: store.commitMesh,
    history: { revision: store.policyRevision, past: store.policyPast },
    latestExpiry: store.latestExpiry,
    latestExpiries: store.latestExpiries,
  });
  await mesh.adoptPolicies();
  const parts = { store, holder, trustDomain, rootNamespace: 'istio-system', clock };
  tell = decisionPorts({ ...parts, breathe: () => undefined }).tellDecision;
}

const put = (message: string, spec: object, namespace = 'shop') => {
  const [apiVersion, kind] = ['security.istio.io/v1', 'AuthorizationPolicy'];
  const text = JSON.stringify({ apiVersion, kind, metadata: { name: 'p', namespace }, spec });
  return mesh.apply([{ file: 'p.yaml', text }], admin, { dryRun: false, message });
};

/** What the door would decide of `web` calling `orders`, as it is recorded. */
async function record(method: string, path = '/a', authority = 'orders.shop:80'): Promise<LoggedDecision> {
  const { snapshot } = holder.current();
  const call = {
    protocol: 'http',
    source: web,
    destination: orders,
    port: 80,
    method,
    path,
    authority,
  } as const;
  const { decision: made, request } = judgeCall(snapshot, call, clock.now());
  const { verdict, reason, rule, why, revision } = made;
  const decisionId = randomBytes(12).toString('hex');
  const event = decision({
    ...{ time: clock.now(), decisionId, verdict, reason, rule, why, revision },
    ...{ source: web.text, destination: orders.text, method, port: 80 },
    host: request?.host ?? authority,
    path: { personal: request?.path ?? path },
  });
  await store.recordEvents([event]);
  const [row] = (await store.findDecisions(decisionId, 1)).rows;
  return readLoggedDecision(row!);
}

const allow = (methods: readonly string[]) => ({ rules: [{ to: [{ operation: { methods } }] }] });

test('in Istio mode what the rules read and the log holds is told, and the edit that changed it', async () => {
  await startIn('istio');
  const byDefault = await record('PUT');
  expect(byDefault).toMatchObject({ verdict: 'allow', reason: 'allow_by_default' });
  await put('only GET', allow(['GET']));
  expect(await tell(byDefault)).toMatchObject({
    past: { policyRevision: { number: 1, message: 'policy mode istio' }, mode: 'istio', rule: null },
    now: { verdict: 'deny', reason: 'no_allow_rule', mode: 'istio' },
    change: { isSame: false, by: { number: 2, message: 'only GET' } },
  });
});

test('in Istio mode nothing is told once a rule that decides reads what the log does not hold', async () => {
  await startIn('istio');
  await put('by header', { rules: [{ when: [{ key: 'request.headers[x-a]', values: ['a'] }] }] });
  const story = await tell(await record('GET'));
  expect(story.now).toMatchObject({
    verdict: 'unknown',
    dependsOn: ['request.headers[x-a]'],
    explanation: null,
  });
  expect(story.change).toMatchObject({ isSame: null, by: null });
});

test('a switch of the mode is named like any edit, and strict mode keeps another form of the call', async () => {
  await startIn('istio');
  const allowed = await record('GET');
  await startIn('strict');
  expect(await tell(allowed)).toMatchObject({
    past: { mode: 'istio' },
    now: { verdict: 'deny', reason: 'no_policy', mode: 'strict' },
    change: { isSame: false, by: { number: 2, message: 'policy mode strict' } },
  });
  const denied = await record('GET');
  await startIn('istio');
  // The path and the host are not as they were sent.
  expect((await tell(denied)).now).toMatchObject({
    verdict: 'unknown',
    dependsOn: expect.arrayContaining(['request.path']),
  });
});

test('policies of then are read with pauses, and those that still stand are not read again', async () => {
  await startIn('strict');
  await put('first', allow(['GET']));
  await put('second', allow(['PUT']));
  let pauses = 0;
  const settings = { trustDomain, rootNamespace: 'istio-system' };
  const archive = { ...store, revision: store.policyRevision };
  const past = lookBack(archive, holder.current(), settings, orders, () => {
    pauses += 1;
    return undefined;
  });
  const live = holder.current().policies.get('shop/p');
  expect((await past.policiesAt(1))[0]).not.toBe(live);
  expect((await past.policiesAt(2))[0]).toBe(live);
  expect(pauses).toBe(2);
});

test('of a revision that is kept no longer its number is told, and nothing that it takes its texts for', async () => {
  await startIn('strict');
  await put('first', allow(['GET']));
  const denied = await record('PUT');
  await put('second', allow(['GET', 'PUT']));
  await store.dropRevisions(1, []);
  expect(await tell(denied)).toMatchObject({
    past: {
      policyRevision: null,
      why: 'policy revision 1 was in force then, and is kept no longer',
      rule: { kind: 'nearest', rule: 'shop/p rule[0]', at: null },
    },
    now: { verdict: 'allow' },
    change: { isSame: false, by: null, why: 'which policies were in force then is not known' },
  });
});

test('of several edits the last that mattered is named', async () => {
  await startIn('strict');
  await put('none', allow(['GET']));
  const denied = await record('PUT');
  await put('put', allow(['PUT']));
  await put('back', allow(['GET']));
  await put('again', allow(['PUT', 'GET']));
  await put('more', allow(['PUT', 'GET', 'HEAD']));
  await put('elsewhere', allow(['GET']), 'bank');
  expect((await tell(denied)).change).toMatchObject({ isSame: false, by: { number: 4, message: 'again' } });
});
